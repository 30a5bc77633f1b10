"""How unusual a heart is: calibrated p-values of a score, false positives, and discrimination.

A score is larger for more deviant hearts. Its p-value is its rank among the scores of healthy
subjects that neither the model nor the score was fitted to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.measure.distribution.estimate import Estimate, finite


def conformal_p_values(scores: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Return ``p = (k + 1) / (n + 1)``, k of n reference scores being at least as large.

    For a score exchangeable with the reference ``P(p <= a) <= a`` for every a, at any n and
    distribution; with equality at ``a = i / (n + 1)`` if no scores tie. That holds on average over
    references: with one of n subjects the false positive rate at a scatters around it with a
    standard deviation of about ``sqrt(a (1 - a) / n)``. The least p is ``1 / (n + 1)``.

    Reference: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005.

    Args:
        scores: ``(M,)``, large for deviant hearts.
        reference: ``(n,)`` scores of held-out healthy subjects.

    Returns:
        p-values ``(M,)`` in (0, 1].
    """
    new, known = finite(scores, "scores", ndim=1), finite(reference, "reference", ndim=1)
    at_least = len(known) - np.searchsorted(np.sort(known), new, side="left")
    return (at_least + 1) / (len(known) + 1)


def false_positive_rate(
    p_values: ArrayLike, *, threshold: float = 0.05, level: float = 0.95
) -> Estimate:
    """Return the share of healthy subjects with ``p <= threshold`` and its exact interval.

    The interval is Clopper and Pearson's (Biometrika 1934): subjects vary, the reference that the
    p-values rest on does not.
    """
    p = finite(p_values, "p_values", ndim=1)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values must lie in [0, 1], got {p.min()} to {p.max()}")
    return share_interval(int((p <= threshold).sum()), len(p), level=level)


def share_interval(count: int, total: int, *, level: float = 0.95) -> Estimate:
    """Return ``count / total`` with the exact binomial interval of Clopper and Pearson."""
    from scipy.stats import binomtest

    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count must be 0 to total and total positive, got {count}, {total}")
    interval = binomtest(count, total).proportion_ci(level, method="exact")
    return Estimate(count / total, float(interval.low), float(interval.high), level)


def auroc(deviant: ArrayLike, healthy: ArrayLike) -> float:
    """Return ``P(x > y) + P(x = y) / 2`` of scores x of deviant and y of healthy subjects.

    It is Mann and Whitney's U over the number of pairs, ties counted by half, exactly. For an
    interval: ``bootstrap(auroc, deviant, healthy, independent=True)``.
    """
    x = finite(deviant, "deviant", ndim=1)
    y = np.sort(finite(healthy, "healthy", ndim=1))
    twice = np.searchsorted(y, x, side="left") + np.searchsorted(y, x, side="right")
    return float(twice.sum() / (2 * len(x) * len(y)))
