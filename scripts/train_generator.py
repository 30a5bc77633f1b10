"""Train a generative model, draw hearts from it, and compare them with published ranges.

    python scripts/train_generator.py linear --out trained

Any preset of `cardiogen train --config` will do, or a TOML file of one's own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cardiogen
from cardiogen.base import CardiogenError
from cardiogen.measure import measure_path


def main() -> None:
    """Train, generate, measure what was written, print z-scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="preset such as linear, deformation, mesh; or a TOML file")
    parser.add_argument("-n", type=int, default=8, help="hearts to draw")
    parser.add_argument("--age", type=float, default=50.0, help="years of these hearts")
    parser.add_argument("--sex", default="F", help="F or M")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same hearts")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, required=True, help="makes bundle/ and hearts/ there")
    o = parser.parse_args()
    try:
        bundle = cardiogen.train(o.out / "bundle", config=o.config, jobs=o.jobs, device=o.device)
        folder = cardiogen.generate(
            age=o.age, sex=o.sex, n=o.n, seed=o.seed, model=bundle, out=o.out / "hearts",
            workers=o.jobs,
        )  # fmt: skip
        measured = measure_path(folder, z_scores=True)
    except CardiogenError as error:
        raise SystemExit(f"train_generator: {error}") from None
    scores = measured.table.filter(regex="subject| z$")
    print(scores.to_string(index=False, float_format=lambda x: f"{x:+.2f}"))
    print(f"written: {o.out}")


if __name__ == "__main__":
    main()
