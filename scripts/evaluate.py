"""Evaluate model bundles as `cardiogen evaluate` does, and print groups and bars.

    python scripts/evaluate.py BUNDLE [BUNDLE ...] --out report

The first bundle is the one that is judged, the others stand in the same tables, and so does the
shipped linear model, which all are held against. Without any it evaluates the default model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from cardiogen.cli.evaluate import evaluate


def main() -> None:
    """Evaluate; print how each model does against the baseline and how many bars it keeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="*", help="by default the default model")
    parser.add_argument("--cohort", default="population", help="population or a folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("-n", type=int, help="held-out hearts instead of those of --size")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same report")
    o = parser.parse_args()
    bundle = o.bundles[0] if o.bundles else None
    folder = evaluate(
        bundle, out=o.out, cohort=o.cohort, size=o.size, n=o.n, seed=o.seed, beside=o.bundles[1:]
    )
    facts = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for name, groups in facts["groups"].items():
        words = ", ".join(f"{group} {word}" for group, word in groups.items())
        print(f"{name} against {facts['baseline']}: {words}")
    for name, counts in facts["verdicts"].items():
        print(f"{name}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    print(f"written: {folder}")


if __name__ == "__main__":
    main()
