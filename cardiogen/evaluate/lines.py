"""Lines of a report: one number of one method, with its interval, its bar and the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.evaluate.contests import Contest
from cardiogen.measure.distribution import Estimate, bootstrap

Array = NDArray[np.float64]
# Least and greatest value that is wanted; None leaves a side open.
Band = tuple[float | None, float | None]

KEPT, MISSED, OPEN = "kept", "missed", "undecided"


@dataclass(frozen=True)
class Line:
    """One number.

    Attributes:
        metric: what was measured.
        of: of which phenotype, structure or group; empty for all.
        unit: its unit; ``1`` for ratios and shares.
        method: whose number it is.
        value: None where there is none, for the ``reason`` given.
        low, high: its 95 % interval, where one was computed.
        count: subjects behind it.
        failures: subjects that gave no number; they are in no other number.
        wanted: the bar.
        reason: why there is no value.
    """

    metric: str
    method: str
    value: float | None
    unit: str = "1"
    of: str = ""
    low: float | None = None
    high: float | None = None
    count: int = 0
    failures: int = 0
    wanted: Band | None = None
    reason: str | None = None

    @property
    def verdict(self) -> str:
        """Return ``kept`` if the value is in its bar, ``missed`` if its whole interval is not."""
        if self.wanted is None or self.value is None:
            return ""
        least = -math.inf if self.wanted[0] is None else self.wanted[0]
        most = math.inf if self.wanted[1] is None else self.wanted[1]
        if least <= self.value <= most:
            return KEPT
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return OPEN if low <= most and least <= high else MISSED

    def as_dict(self) -> dict[str, object]:
        """Return the line as a row of the report."""
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True, eq=False)
class Result:
    """What a task found.

    Attributes:
        lines: all numbers.
        reason: why there are none.
        arrays: what the plots draw, by name.
        contests: numbers by which methods are held against the baseline.
    """

    lines: tuple[Line, ...] = ()
    reason: str | None = None
    arrays: dict[str, dict[str, Array]] = field(default_factory=dict)
    contests: tuple[Contest, ...] = ()


def estimated(metric: str, method: str, found: Estimate, **facts: object) -> Line:
    """Return the line of an estimate."""
    return Line(metric, method, found.value, low=found.low, high=found.high, **facts)


def mean_line(
    metric: str, method: str, values: ArrayLike, *, resamples: int, seed: int, **facts: object
) -> Line:
    """Return the mean over subjects ``(N,)`` with its bootstrap interval.

    Subjects without a finite value are counted as failures and take no part.
    """
    given = np.asarray(values, dtype=np.float64)
    kept = given[np.isfinite(given)]
    facts |= {"count": len(kept), "failures": len(given) - len(kept)}
    if len(kept) < 2:
        return Line(metric, method, None, reason=f"{len(kept)} subjects are too few", **facts)
    found = bootstrap(lambda x: float(x.mean()), kept, draws=resamples, seed=seed)

    return estimated(metric, method, found, **facts)


def missing(metric: str, method: str, reason: str, **facts: object) -> Line:
    """Return a line without a number."""
    return Line(metric, method, None, reason=reason, **facts)


def verdicts(lines: Iterable[Line], method: str) -> dict[str, int]:
    """Return how many bars of a method were kept, missed or left undecided."""
    found = [line.verdict for line in lines if line.method == method]

    return {verdict: found.count(verdict) for verdict in (KEPT, OPEN, MISSED)}
