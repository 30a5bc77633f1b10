"""Contests: every model against the baseline on the same subjects, in four groups.

A contest is one number of a table of subjects, less being better. Rows are subjects, the same ones
for every method; they are resampled together, and the interval of the difference to the baseline
decides: better or worse if it lies wholly on one side of zero, else equal; of fewer than six
subjects nothing is decided, since all of five agree by chance once in 16 times. A model beats the
baseline in a group if it is better in some contest and worse in none, and loses the other way
round; ``mixed`` is both. Each interval stands for itself: nothing is adjusted for their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import keyed_rng

Array = NDArray[np.float64]

GROUPS = ("completion", "generation", "conditioning", "plausibility")
BEATS, EQUALS, LOSES, MIXED = "beats", "equals", "loses", "mixed"
FEW, NONE = "too few", "not compared"
_LEAST, _DECIDING = 2, 6


@dataclass(frozen=True, eq=False)
class Contest:
    """One number by which methods are compared.

    Attributes:
        group: one of ``GROUPS``.
        metric: what is compared; less is better.
        unit: of it.
        tables: method -> rows of subjects ``(N, ...)``; NaN where a subject failed.
        statistic: from rows ``(n, ...)`` without NaN to the number.
    """

    group: str
    metric: str
    unit: str
    tables: Mapping[str, Array]
    statistic: Callable[[Array], float]


@dataclass(frozen=True)
class Duel:
    """The number of a method, and how much larger than the baseline's it is, with its interval.

    Attributes:
        count: subjects that both have.
        failures: subjects that the method alone lacks.
    """

    group: str
    metric: str
    unit: str
    method: str
    value: float
    difference: float
    low: float
    high: float
    count: int
    failures: int

    @property
    def verdict(self) -> str:
        """Return ``better``, ``worse``, ``equal`` or ``too few``."""
        if self.count < _DECIDING:
            return FEW
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "equal"

    def as_dict(self) -> dict[str, object]:
        """Return the duel as a row of the report."""
        return asdict(self) | {"verdict": self.verdict}


def mean_of(rows: Array) -> float:
    """Return the mean, for contests of errors."""
    return float(rows.mean())


def duels(
    contests: Iterable[Contest],
    methods: Sequence[str],
    baseline: str,
    *,
    resamples: int,
    seed: int,
) -> list[Duel]:
    """Return every method against the baseline in every contest that both take part in."""
    found = []
    for contest in contests:
        if baseline not in contest.tables:
            continue
        rival = contest.tables[baseline]
        for method in methods:
            if method == baseline or method not in contest.tables:
                continue
            duel = _duel(contest, method, rival, resamples, seed)
            if duel is not None:
                found.append(duel)
    return found


def _duel(contest: Contest, method: str, rival: Array, resamples: int, seed: int) -> Duel | None:
    own = contest.tables[method]
    there, other = (np.isfinite(t.reshape(len(t), -1)).all(axis=1) for t in (own, rival))
    kept = there & other
    if kept.sum() < _LEAST:
        return None
    a, b = own[kept], rival[kept]
    rng = keyed_rng(seed, f"evaluate/duel/{contest.group}/{contest.metric}")
    drawn = []
    for _ in range(resamples):
        rows = rng.integers(0, len(a), len(a))
        drawn.append(contest.statistic(a[rows]) - contest.statistic(b[rows]))
    value, finite = contest.statistic(a), np.array(drawn)[np.isfinite(drawn)]
    # Few subjects may be all of one sex, of which some statistics say nothing.
    if not np.isfinite(value) or not finite.size:
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return Duel(
        contest.group, contest.metric, contest.unit, method, value,
        value - contest.statistic(b), float(low), float(high), int(kept.sum()),
        int((other & ~there).sum()),
    )  # fmt: skip


def group_verdicts(found: Sequence[Duel], method: str) -> dict[str, str]:
    """Return for each group whether a method beats, equals or loses to the baseline."""
    verdicts = {}
    for group in GROUPS:
        words = {d.verdict for d in found if d.group == group and d.method == method}
        if not words:
            verdicts[group] = NONE
        elif words == {FEW}:
            verdicts[group] = FEW
        elif {"better", "worse"} <= words:
            verdicts[group] = MIXED
        else:
            verdicts[group] = BEATS if "better" in words else LOSES if "worse" in words else EQUALS
    return verdicts
