"""Measure motion tracking: annulus, population, human and pig cines, long axes, bad input.

Prints every number beside what was asked for. Needs ``human_cine`` and ``pig_cine`` of
../shared/data, and an idle machine for the seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_ROWS = ("annulus", "population", "human", "pig", "views", "bad_input")


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    data = os.environ.get("CARDIOGEN_REAL_DATA", str(_ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the real hearts")
    parser.add_argument("--rows", nargs="*", default=list(_ROWS), choices=_ROWS)
    parser.add_argument("--preset", default="default", help="preset of tracking")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")

    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    o = options()
    # Imported after the options are read: torch takes seconds, --help should not.
    import torch

    torch.set_num_threads(o.threads)
    from bench.tracking_rows import ROWS
    from bench.view_rows import view_rows

    rows = {**ROWS, "views": view_rows}

    missed = 0
    for name in o.rows:
        say(name)
        for row in rows[name](o.data, o.preset):
            say(str(row))
            missed += row.met is False
    say(f"{missed} missed")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
