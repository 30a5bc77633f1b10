"""The ranking of Learn2Reg: methods compared pair by pair, with significance.

For every measure, method j scores against the others by Wilcoxon rank-sum tests of all their
entries; scores become ranks from 0.1 (worst) to 1.0, equal scores share the mean of their ranks;
the rank of a task is the geometric mean over its measures.
Reference: Hering et al., IEEE TMI 2023, section on the ranking scheme; MDL-UzL/L2R ``ranking``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registration.metrics.landmarks import HARDEST, hardest

if TYPE_CHECKING:
    import pandas as pd

Points = Literal["losses", "wins"]

SIGNIFICANCE = 0.05
_LOWEST, _HIGHEST = 0.1, 1.0


@dataclass(frozen=True)
class Measure:
    """What all methods reached in one measure.

    Attributes:
        values: ``(N, ...)``, one row per method, entries (cases, labels, landmarks) in one order.
            No NaN: what a missing entry costs is the caller's choice (Learn2Reg: Dice 0, HD95 10
            voxels, runtime 3,500 to 5,000 s, SDlogJ 5).
        larger_is_better: true for Dice, false for distances, SDlogJ and runtime.
        weight: exponent in the geometric mean.
    """

    values: NDArray[np.float64]
    larger_is_better: bool
    weight: float = 1.0


def rank_methods(
    methods: list[str], measures: Mapping[str, Measure], *, points: Points = "losses"
) -> pd.DataFrame:
    """Return the rank score of every method by measure and for the task, best first.

    ``rank = (prod_m r_m^w_m)^(1 / sum w_m)``.

    Args:
        methods: N names.
        measures: name -> values of all methods.
        points: see :func:`significance_points`.

    Returns:
        Table with index ``method``, one column per measure and ``rank``.
    """
    import pandas as pd

    if not measures:
        raise ValueError("measures must not be empty, got none")
    for name, measure in measures.items():
        if len(measure.values) != len(methods):
            raise ValueError(
                f"{name} must have a row for each of {len(methods)} methods, "
                f"got {len(measure.values)}"
            )
    ranks = {
        name: rank_scores(
            significance_points(m.values, larger_is_better=m.larger_is_better, points=points)
        )
        for name, m in measures.items()
    }
    weights = np.array([m.weight for m in measures.values()])
    table = pd.DataFrame(ranks, index=pd.Index(methods, name="method"))
    table["rank"] = np.exp(np.log(table.to_numpy()) @ weights / weights.sum())

    return table.sort_values("rank", ascending=False, kind="stable")


def significance_points(
    values: ArrayLike,
    *,
    larger_is_better: bool,
    points: Points = "losses",
    significance: float = SIGNIFICANCE,
) -> NDArray[np.int64]:
    """Return the points of every method, ``(N,)``; more are better.

    Method i beats j if the two-sided Wilcoxon rank-sum test of all their entries has p below
    ``significance`` and i is on the better side.

    Args:
        values: ``(N, ...)``, one row per method.
        larger_is_better: direction of the measure.
        points: ``"losses"`` takes one off for every method that is significantly better, which is
            what the published ranking code does; ``"wins"`` gives one for every method that is
            significantly worse, as its description says. They can differ.
        significance: level of the test.
    """
    from scipy.stats import ranksums

    if points not in ("losses", "wins"):
        raise ValueError(f'points must be "losses" or "wins", got {points!r}')
    rows = np.asarray(values, dtype=np.float64).reshape(len(np.asarray(values)), -1)
    if np.isnan(rows).any():
        raise ValueError("values must not hold NaN: replace missing entries by what they cost")
    rows = rows if larger_is_better else -rows
    beats = np.zeros((len(rows), len(rows)), dtype=np.int64)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            statistic, p = ranksums(one, other)
            beats[i, j] = statistic > 0 and p < significance

    return -beats.sum(axis=0) if points == "losses" else beats.sum(axis=1)


def rank_scores(points: ArrayLike) -> NDArray[np.float64]:
    """Map points (more are better) to ranks of 0.1 to 1.0; ties share the mean of their ranks."""
    points = np.asarray(points)
    scale = np.linspace(_LOWEST, _HIGHEST, len(points))
    _, group = np.unique(points, return_inverse=True)
    ranks = np.empty(len(points))
    ranks[np.argsort(points, kind="stable")] = scale
    totals = np.bincount(group, weights=ranks) / np.bincount(group)

    return totals[group]


def robust_subset(
    values: ArrayLike,
    initial: ArrayLike,
    *,
    larger_is_better: bool,
    fraction: float = HARDEST,
    by_case: bool = False,
) -> NDArray[np.float64]:
    """Return the entries of every method that were worst before registration, ``(N, K)``.

    The difficulty is fixed by the initial values, so that all methods answer for the same entries.

    Args:
        values: ``(N, cases, entries)``.
        initial: ``(cases, entries)`` without registration.
        larger_is_better: direction of the measure.
        fraction: share to keep.
        by_case: choose within every case (Learn2Reg's TRE30) or among all of them (its Dice30).
    """
    values, initial = np.asarray(values), np.asarray(initial)
    if values.shape[1:] != initial.shape or initial.ndim != 2:
        raise ValueError(
            f"values must be (N, cases, entries) and initial (cases, entries), "
            f"got {values.shape} and {initial.shape}"
        )
    cases = initial if by_case else initial.reshape(1, -1)
    rows = values.reshape(len(values), *cases.shape)
    chosen = [
        rows[:, i, hardest(case, larger_is_harder=not larger_is_better, fraction=fraction)]
        for i, case in enumerate(cases)
    ]

    return np.concatenate(chosen, axis=1)
