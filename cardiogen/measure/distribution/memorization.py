"""Does a model hand out its training subjects? Distances to them and to subjects it never saw.

Everything follows from distances (mm, or any other) of generated hearts to training subjects and
to held-out subjects of the same population, as ``vertex_distances`` gives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.measure.distribution.estimate import Estimate, finite
from cardiogen.measure.distribution.normative import auroc, share_interval
from cardiogen.measure.distribution.uncertainty import bootstrap


@dataclass(frozen=True)
class Memorization:
    """Signs of copied training subjects.

    Attributes:
        distance_ratio: distance to the nearest training over the nearest held-out subject, for
            equally many of both; 1 is wanted, below 1 generated hearts hug the training set.
        duplicate_share: share of generated hearts nearer to a training subject than ``threshold``.
        threshold: distance below which a heart is a near duplicate.
        expected_share: share of held-out subjects that are that near; copies come on top of it.
        membership_auc: chance that a training subject has a nearer generated heart than a held-out
            subject has; 0.5 is wanted.
    """

    distance_ratio: Estimate
    duplicate_share: Estimate
    threshold: float
    expected_share: float
    membership_auc: Estimate


def memorization(
    to_training: ArrayLike,
    to_held_out: ArrayLike,
    held_out_to_training: ArrayLike,
    *,
    threshold: float | None = None,
    duplicate_quantile: float = 0.01,
    draws: int = 1000,
    seed: int = 0,
) -> Memorization:
    """Return the signs of memorization with 95 % intervals.

    Intervals are the bootstrap's over generated hearts (ratio) and over candidates (AUC), and
    the exact binomial one (share).

    Args:
        to_training: ``(G, N)``, generated hearts by training subjects.
        to_held_out: ``(G, M)``, by held-out subjects.
        held_out_to_training: ``(M, N)``.
        threshold: distance of near duplicates; by default the ``duplicate_quantile`` of how near
            held-out subjects are to the training set.
        duplicate_quantile: so many of new, honest hearts count as duplicates.
        draws: resamples of the intervals.
        seed: of the resamples.

    Raises:
        ValueError: for matrices that do not fit or are not finite.
    """
    training = finite(to_training, "to_training", ndim=2, least=2)
    held_out = finite(to_held_out, "to_held_out", ndim=2, least=2)
    between = finite(held_out_to_training, "held_out_to_training", ndim=2, least=2)
    (g, n), m = training.shape, held_out.shape[1]
    if len(held_out) != g or between.shape != (m, n):
        raise ValueError(
            f"distances must be (G, N), (G, M) and (M, N), got {training.shape}, "
            f"{held_out.shape} and {between.shape}"
        )
    usual = between.min(axis=1)
    limit = float(np.quantile(usual, duplicate_quantile)) if threshold is None else threshold
    near = training.min(axis=1) < limit
    size = min(n, m)
    return Memorization(
        distance_ratio=bootstrap(
            lambda a, b: a.mean() / b.mean(),
            expected_nearest(training, size), expected_nearest(held_out, size),
            draws=draws, seed=seed,
        ),
        duplicate_share=share_interval(int(near.sum()), g),
        threshold=limit,
        expected_share=float((usual < limit).mean()),
        membership_auc=bootstrap(
            auroc, -training.min(axis=0), -held_out.min(axis=0),
            independent=True, draws=draws, seed=seed,
        ),
    )  # fmt: skip


def expected_nearest(distances: ArrayLike, size: int) -> NDArray[np.float64]:
    """Return the mean distance to the nearest of ``size`` random columns, per row ``(G,)``.

    The nearest of many subjects is nearer than that of few, so sets of different sizes compare
    through subsets of one size. The mean over all subsets is exact: the k-th nearest of n is the
    nearest of a subset with chance ``C(n - k, size - 1) / C(n, size)``.

    Args:
        distances: ``(G, n)``.
        size: 1 to n.
    """
    ordered = np.sort(finite(distances, "distances", ndim=2), axis=1)
    count = ordered.shape[1]
    if not 1 <= size <= count:
        raise ValueError(f"size must be 1 to {count}, got {size}")
    k = np.arange(1, count - size + 1)
    # Chance of the next rank over that of rank k.
    steps = (count - k - size + 1) / (count - k)
    chances = size / count * np.concatenate([[1.0], np.cumprod(steps)])
    return ordered[:, : len(chances)] @ chances
