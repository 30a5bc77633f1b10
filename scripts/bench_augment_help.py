"""Does augmentation help? Arms of the same training, judged in domain and on shifted images.

Arms: none, random, random at the CPU time of the adversary, random consistency, adversarial,
shape (in the latent space of the shipped model), both (random labels, hard agreement), and random
with synthetic hearts. All runs go into a CSV, also those that collapse; a run that is there is not
made again, so the work can be cut into parts (--patients, --arms) and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_ARMS = ("adversarial", "random", "random_long", "consistency", "none", "shape", "both",
         "synthetic")  # fmt: skip


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    data = os.environ.get("CARDIOGEN_REAL_DATA", str(_ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohort", type=Path, default=Path(data) / "acdc_dev25")
    parser.add_argument("--out", type=Path, required=True, help="CSV of all runs, new or begun")
    parser.add_argument("--arms", nargs="*", choices=_ARMS, default=list(_ARMS))
    parser.add_argument("--patients", nargs="*", type=int, default=[1, 3, 10])
    parser.add_argument("--subsets", type=int, default=3, help="draws of patients and seeds")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--report", action="store_true", help="only report what the CSV holds")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Make the runs and report them."""
    o = options()
    # Imported after the options are read: torch takes seconds, --help should not.
    import pandas as pd
    import torch

    torch.set_num_threads(o.threads)
    from bench.help_report import report
    from bench.help_runs import Comparison, Plan

    plan = Plan(cohort=o.cohort, arms=tuple(o.arms), patients=tuple(o.patients),
                subsets=o.subsets, steps=o.steps)  # fmt: skip
    if o.quick:
        plan = Plan(
            cohort=o.cohort, arms=("adversarial", "random", "random_long"), patients=(1,),
            subsets=2, steps=10, test=1, shifts=("in_domain", "bias", "inversion"),
        )  # fmt: skip
    for row in Comparison(plan, o.out).run() if not o.report else ():
        sys.stdout.write(
            f"{row['patients']} patients, subset {row['subset']}, {row['arm']}, {row['shift']}: "
            f"Dice {row['dice']:.3f} after {row['cpu_s']} CPU s\n"
        )
        sys.stdout.flush()
    sys.stdout.write(report(pd.read_csv(o.out)) + "\n")


if __name__ == "__main__":
    main()
