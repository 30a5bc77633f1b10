"""Evaluate a model bundle as `cardiogen evaluate` does, and print its bars.

    python scripts/evaluate.py BUNDLE --out report

Without BUNDLE it evaluates the shipped model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cardiogen.cli.evaluate import evaluate


def main() -> None:
    """Evaluate and print how many bars each model keeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?", help="default: the one shipped")
    parser.add_argument("--cohort", default="population", help="population or a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("-n", type=int, help="held-out hearts instead of those of --size")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same report")
    o = parser.parse_args()
    folder = evaluate(o.bundle, out=o.out, cohort=o.cohort, size=o.size, n=o.n, seed=o.seed)
    for name, counts in json.loads((folder / "report.json").read_text())["verdicts"].items():
        print(f"{name}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
