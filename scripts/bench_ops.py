"""Measure the warp operators beside their reference, the VoxelMorph formula and other packages.

Everybody runs in the same shuffled rounds, slow ones in fewer. Writes every number (CSV), tables
(Markdown) and a plot of ratios (PNG), and prints the bars that the kernels must reach. Packages
that are absent are skipped: pip install monai torch-interpol SimpleITK hf-deepali. Needs an idle
machine, about ten minutes on two cores, and 8 GB.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the three files")
    parser.add_argument("--overwrite", action="store_true", help="replace files of these names")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose names match")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    parser.add_argument("--rounds", type=int, help="most rounds (default: 15; on a GPU 50)")
    parser.add_argument("--budget", type=float, default=3.0, metavar="S",
                        help="seconds per contender and pass")  # fmt: skip
    parser.add_argument("--no-memory", action="store_true", help="skip peak memory")

    return parser.parse_args()


def warn(text: str | None) -> list[str]:
    """Say something on stderr, and return it as a note."""
    if text is None:
        return []
    sys.stderr.write(f"warning: {text}\n")

    return [f"Warning: {text}."]


def main() -> None:
    """Measure, write and print."""
    o = options()
    # Imported after the options are read: torch takes seconds, --help should not.
    import torch
    from bench import report
    from bench.bars import Run
    from bench.cases import cases
    from bench.contenders import MODULES, installed
    from bench.measure import SCALED, Settings, measure, scaling
    from bench.timing import Quiet, busy_now, copy_bandwidth

    from cardiogen.base import progress

    taken = [str(o.out / name) for name in report.NAMES if (o.out / name).exists()]
    if taken and not o.overwrite:
        sys.exit(f"{', '.join(taken)} exist; try another --out, or --overwrite")
    o.out.mkdir(parents=True, exist_ok=True)
    device = o.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if o.threads:
        torch.set_num_threads(o.threads)
    rounds = o.rounds or (3 if o.quick else 50 if device == "cuda" else 15)
    settings = Settings(device=device, quick=o.quick, rounds=rounds, budget_s=o.budget,
                        memory=not o.no_memory)  # fmt: skip

    notes = [f"Skipped: {name} (not installed)." for name in MODULES if not installed(name)]
    print("\n".join([*report.machine(device), *notes]))
    notes += ["Quick sizes: no number here means anything."] if o.quick else []
    notes += warn(busy_now())
    quiet = Quiet()
    before = copy_bandwidth(device, quick=o.quick)
    chosen = [c for c in cases(device=device, quick=o.quick) if re.search(o.only, c.name)]
    jobs = [(measure, case, name) for case in chosen for name, _ in case.leaves]
    if device == "cpu" and torch.get_num_threads() > 1:
        jobs += [(scaling, c, p) for c in chosen for p, _ in c.leaves if (c.name, p) in SCALED]
    rows = []
    for do, case, pass_name in progress(jobs, "measuring"):
        found = list(do(case, pass_name, settings))
        rows += found
        told = ", ".join(f"{row.contender} {row.median_ms:.3g} ms" for row in found)
        print(f"{case.name}, {pass_name}: {told}", flush=True)
    bandwidth = (before + copy_bandwidth(device, quick=o.quick)) / 2
    notes += warn(quiet.warning())

    run = Run(rows, bandwidth, device, o.quick)
    report.write(run, o.out, notes, overwrite=o.overwrite)
    print("\n".join(["", *report.bar_lines(run), "", *notes]))
    print("wrote " + ", ".join(str(o.out / name) for name in report.NAMES))


if __name__ == "__main__":
    main()
