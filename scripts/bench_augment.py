"""Measure augmentation: what a step of training costs with it, and how fast chains alone are.

Prints every number beside what was asked for. On a CPU it is CPU time of one thread; other work on
the machine still costs it caches, so an idle one is better.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cost", action="store_true", help="steps of training, in plain steps")
    parser.add_argument("--throughput", action="store_true",
                        help="a random chain on a volume, beside other packages")  # fmt: skip
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--only", default="", help="cases of --cost whose names hold this text")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of each measurement")
    parser.add_argument("--size", type=int, default=64, help="voxels per axis for --throughput")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")

    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    o = options()
    if not (o.cost or o.throughput):
        sys.exit("nothing to measure: give --cost or --throughput")
    # Imported after the options are read: torch takes seconds, --help should not.
    import torch

    torch.set_num_threads(o.threads)
    device = o.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    missed = cost(o, device) if o.cost else 0
    missed += throughput(o) if o.throughput else 0
    say(f"{missed} missed")


def cost(o: argparse.Namespace, device: str) -> int:
    """Print what steps cost; return how many bars were missed."""
    from bench.augment_cost import CASES, cost_rows

    missed = 0
    for case in CASES:
        if o.only in case.name:
            for row in cost_rows(case, device=device, rounds=o.rounds):
                say(str(row))
                missed += row.met is False

    return missed


def throughput(o: argparse.Namespace) -> int:
    """Print milliseconds a volume by package; return how many are faster than ours."""
    from bench.augment_throughput import PACKAGES, throughput_rows

    rows = {row.package: row for row in throughput_rows(o.size, rounds=o.rounds)}
    for name in PACKAGES:
        say(f"chain on {o.size}³, image and labels: {rows.get(name, name + ' is not installed')}")

    return sum(not row.met for row in rows.values())


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
