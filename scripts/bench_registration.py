"""Compare registrations of real cardiac pairs: ours, SimpleITK's demons, ANTs where installed.

ED is fixed and ES moving, 1.5 mm in plane, native slices, the heart and 25 mm around it; no fit
sees labels. Prints, and writes as CSV, accuracy, regularity and seconds by method, group and
patient; the seconds of all pairs in one call; peak memory; and how far an affine is recovered
across contrasts. Needs the ACDC folder of ../shared/data and an idle machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    data = os.environ.get("CARDIOGEN_REAL_DATA", str(_ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(data) / "acdc_dev25",
                        help="folder of patients with subjects.csv")  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder for the CSV tables; default: none")
    parser.add_argument("--overwrite", action="store_true", help="replace tables of these names")
    parser.add_argument("--patients", nargs="*", default=[], help="only these")
    parser.add_argument("--methods", nargs="*", default=[], help='only these, e.g. "ours fast"')
    parser.add_argument("--rows", nargs="*", default=["pairs", "batch", "memory", "contrasts"],
                        choices=["pairs", "batch", "memory", "contrasts"])  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of ours")

    return parser.parse_args()


def main() -> None:
    """Measure, print and write."""
    o = options()
    # Imported after the options are read: torch takes seconds, --help should not.
    import torch

    torch.set_num_threads(o.threads)
    from bench import registration_rows as rows
    from bench.acdc_pairs import load_pairs
    from bench.registrars import registrars

    pairs, methods = load_pairs(o.data, o.patients), registrars(o.methods)
    say(f"{len(pairs)} pairs, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if "pairs" in o.rows:
        table = rows.pair_table(pairs, methods)
        numbers = [c for c in table.columns if c not in ("method", "patient", "group")]
        means = table.groupby("method", sort=False)[numbers].mean()
        means["pairs with folds"] = table.groupby("method", sort=False)["folds"].agg(
            lambda folds: int((folds > 0).sum())
        )
        show(means, "means", o)
        by_group = table.pivot_table("dice", "group", "method", sort=False)
        show(by_group, "dice_by_group", o)
        keep(table, "pairs", o)
    if "batch" in o.rows:
        seconds = rows.batch_seconds(pairs, "fast")
        say(f"all {len(pairs)} pairs in one call, ours fast: {seconds:.2f} s")
    if "memory" in o.rows:
        for name in methods:
            megabytes = rows.peak_memory_mb(o.data, pairs[0].name, name)
            say(f"peak memory of a process, {name}: {megabytes:.0f} MB")
    if "contrasts" in o.rows:
        table = rows.contrast_table(pairs[:: max(len(pairs) // 5, 1)])
        show(table.groupby("term", sort=False)[["seconds", "middle_mm", "within_30_mm",
"degrees"]].max(), "contrasts_worst", o)  # fmt: skip
        keep(table, "contrasts", o)


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show(table: object, name: str, o: argparse.Namespace) -> None:
    """Print a table and keep it."""
    say(f"\n{name}\n{table.to_string(float_format=lambda x: f'{x:.4g}')}\n")
    keep(table.reset_index(), name, o)


def keep(table: object, name: str, o: argparse.Namespace) -> None:
    """Write a table, if wanted."""
    if o.out is None:
        return
    path = o.out / f"{name}.csv"
    if path.exists() and not o.overwrite:
        sys.exit(f"{path} exists; try another --out, or --overwrite")
    o.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


if __name__ == "__main__":
    main()
