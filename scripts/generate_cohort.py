"""Generate hearts for a table of clinical factors and compare them with published ranges.

    python scripts/generate_cohort.py factors.csv --out cohort

The table has one row a subject and any of the columns age, sex, height_cm, weight_kg, sbp_mmhg.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cardiogen
from cardiogen.measure import measure_path


def main() -> None:
    """Generate, measure the written label maps, print z-scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="CSV with one row of factors a subject")
    parser.add_argument("-n", type=int, default=1, help="hearts for each row")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same hearts")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted --out")
    options = parser.parse_args()
    folder = cardiogen.generate(
        cohort=options.table, n=options.n, seed=options.seed, out=options.out,
        workers=options.jobs, resume=options.resume,
    )  # fmt: skip
    measured = measure_path(folder, z_scores=True)
    scores = measured.table.filter(regex="subject| z$")
    print(scores.to_string(index=False, float_format=lambda x: f"{x:+.2f}"))
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
