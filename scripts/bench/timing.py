"""Paired timing: in every round each contender runs once, in random order, after a warm-up.

Other work on the machine stretches some contenders more than others; rounds make them share it,
and ``Quiet`` says how much of it there was.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Action = Callable[[], object]

# A contender that has had its time runs on up to this many rounds, unless it has had it twice.
_LEAST_ROUNDS = 3
_BUSY_SHARE = 0.1


def clock(device: str) -> Callable[[Action], float]:
    """Return a function that runs an action and gives its seconds: events on a GPU."""
    return _cuda_seconds if device == "cuda" else _cpu_seconds


def _cpu_seconds(action: Action) -> float:
    start = time.perf_counter()
    result = action()
    seconds = time.perf_counter() - start
    # The result is freed only now: a deallocation is not part of the call.
    del result

    return seconds


def _cuda_seconds(action: Action) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    result = action()
    end.record()
    torch.cuda.synchronize()
    del result

    return start.elapsed_time(end) / 1000


def rounds_of(
    actions: Mapping[str, Action],
    *,
    device: str,
    rounds: int,
    budget_s: float,
    before: Mapping[str, Action] | None = None,
) -> dict[str, Array]:
    """Return the seconds of every action in every round ``(rounds,)``, NaN where it sat out.

    Args:
        actions: what to time, by name.
        device: ``"cpu"`` or ``"cuda"``.
        rounds: most rounds.
        budget_s: time of one action over all rounds, after which it sits out (it may take twice
            that for its first 3 rounds).
        before: untimed action ahead of every run of the action of that name.
    """
    seconds_of, before = clock(device), before or {}
    shuffler = random.Random(0)
    times = {name: np.full(rounds, np.nan) for name in actions}
    for name, action in actions.items():
        before.get(name, int)()
        seconds_of(action)
    for turn in range(rounds):
        for name in shuffler.sample(list(actions), len(actions)):
            allowed = 2 * budget_s if turn < _LEAST_ROUNDS else budget_s
            if turn == 0 or np.nansum(times[name]) < allowed:
                before.get(name, int)()
                times[name][turn] = seconds_of(actions[name])

    return times


def quartiles(values: Array) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile of what is not NaN."""
    low, middle, high = np.nanquantile(values, (0.25, 0.5, 0.75))

    return float(low), float(middle), float(high)


def paired_ratio(over: Array, under: Array) -> tuple[float, float, float]:
    """Return the ratio of medians over the rounds both ran, between quartiles of its rounds."""
    both = ~np.isnan(over) & ~np.isnan(under)
    low, _, high = quartiles(over[both] / under[both])

    return low, float(np.median(over[both]) / np.median(under[both])), high


def copy_bandwidth(device: str, *, quick: bool) -> float:
    """Return bytes read and written per second by a copy of 64 (GPU: 256) million floats."""
    size = 2**18 if quick else 2**28 if device == "cuda" else 2**26
    source, target = torch.ones(size, device=device), torch.zeros(size, device=device)
    seconds = rounds_of(
        {"copy": lambda: target.copy_(source)}, device=device, rounds=9, budget_s=5.0
    )

    return 2 * 4 * size / quartiles(seconds["copy"])[1]


def streaming_add(voxels: int, device: str) -> Action:
    """Return an action that streams three floats per voxel: the yardstick of the memory floor."""
    a, b, c = (torch.ones(voxels, device=device) for _ in range(3))

    return lambda: torch.add(a, b, out=c)


class Quiet:
    """How much of the machine other processes took since this was made."""

    def __init__(self) -> None:
        self._start = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return busy and all CPU seconds of the machine, and our own (children's too)."""
        own = sum(os.times()[:4])
        stat = Path("/proc/stat")
        if not stat.is_file():
            return 0.0, 0.0, own
        ticks = [int(t) for t in stat.read_text().splitlines()[0].split()[1:9]]
        scale = os.sysconf("SC_CLK_TCK")

        return (sum(ticks) - ticks[3] - ticks[4]) / scale, sum(ticks) / scale, own

    def others(self) -> float:
        """Return the share of all CPU time that others took (stolen time too); 0 if unknown."""
        busy, total, own = (b - a for a, b in zip(self._start, self._now(), strict=True))

        return max(0.0, (busy - own) / total) if total > 0 else 0.0

    def warning(self) -> str | None:
        """Return what to tell the user if the machine was not ours alone."""
        share = self.others()
        if share <= _BUSY_SHARE:
            return None

        return (
            f"other processes took {share:.0%} of the CPU time: these ratios are not to be trusted"
        )


def busy_now() -> str | None:
    """Watch the machine for half a second and return a warning if it is busy."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    watch = Quiet()
    time.sleep(0.5)
    if load > 1.5 * cores:
        return f"the load average is {load:.1f} on {cores} cores: timings will mislead"

    return watch.warning()
