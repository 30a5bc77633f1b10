"""Compare models of left ventricles at ED and ES, given EDVI and EF, on MESA's shapes.

Prints one table: real subjects against real ones (the floor), mean motion, PCA + conditional
Gaussian, the nearest subject, a small cVAE that reports its decoder mean, and our mesh VAE.
Subjects are split 700 / 100 / 200 by the seed. W1, SD ratios and coverage are of EDV (mL), ESV
(mL), EF (%), mean ED wall (mm) and mass (g), cavities closed by a flat lid at the base. ES from
ED is judged by the single guess of each model, its spread by draws, and every model is held
against PCA by paired differences with 95 % intervals over the test subjects.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_LINEAR = "PCA + Gaussian"
_ROWS = ("real", "mean motion", _LINEAR, "nearest", "small cVAE, mean", "mesh VAE")


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    data = os.environ.get("CARDIOGEN_REAL_DATA", str(_ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(data) / "mesa_lv_dev1000",
                        help="folder with shapes.npz and subjects.csv")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of split and draws")
    parser.add_argument("--rows", nargs="*", default=list(_ROWS), choices=_ROWS)
    parser.add_argument("--mesh", type=Path, help="TOML of the mesh VAE; default: mesh_mesa")
    parser.add_argument("--run", type=Path, help="folder of its checkpoints, to stop and go on")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    return parser.parse_args()


def main() -> None:
    """Fit, sample, complete and print."""
    o = options()
    # Imported after the options are read: torch takes seconds, --help should not.
    import torch

    torch.set_num_threads(o.threads)
    from bench.mesa_data import check_volumes, load_cohort, split
    from bench.mesa_networks import fit_small_cvae, mesh_fitter
    from bench.mesa_rivals import fit_mean_motion, fit_nearest, fit_pca, fit_real
    from bench.mesa_rows import differences, row_of, show

    from cardiogen.engine.config import load_config, preset_path
    from cardiogen.models.mesh import MeshConfig

    config = load_config(MeshConfig, o.mesh or preset_path("scripts/mesh_mesa"))
    simple = (fit_real, fit_mean_motion, fit_pca, fit_nearest, fit_small_cvae)
    fits = dict(zip(_ROWS, (*simple, mesh_fitter(config, o.run)), strict=True))
    cohort = load_cohort(o.data)
    say(check_volumes(cohort))
    train, validation, test = split(cohort, seed=o.seed)
    rows = {}
    for name in o.rows:
        rows[name] = row_of(fits[name](train, validation), train, test, seed=o.seed)
        say(f"{name} done")
    linear = rows.get(_LINEAR)
    texts = {name: dict(row.text) for name, row in rows.items()}
    for name in texts.keys() - {_LINEAR, "real"} if linear else ():
        texts[name] |= differences(rows[name], linear, test, name="PCA")
    say(show(texts))


def say(text: str) -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
