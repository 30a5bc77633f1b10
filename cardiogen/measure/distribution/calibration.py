"""Are predicted spreads honest? Coverage of sample intervals and the probability transform.

A prediction is S samples of P phenotypes per subject, ``samples (N, S, P)``, judged by the truth
``(N, P)`` in the same native units. If truth and samples come from one distribution, the rank of
the truth among the samples is uniform on its S + 1 places; everything here follows from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import keyed_rng
from cardiogen.measure.distribution.estimate import finite

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True, eq=False)
class Coverage:
    """Which truths lay inside the central intervals of their samples.

    Attributes:
        levels: nominal coverages (L).
        hits: ``(N, L, P)``; bootstrap its means over the first axis for intervals.
        widths: mean width of the intervals in native units ``(L, P)``: of two honest models the
            sharper one is better.
    """

    levels: tuple[float, ...]
    hits: NDArray[np.bool_]
    widths: NDArray[np.float64]

    @property
    def per_phenotype(self) -> NDArray[np.float64]:
        """Share of subjects inside, ``(L, P)``."""
        return self.hits.mean(axis=0)

    @property
    def pooled(self) -> NDArray[np.float64]:
        """Share over subjects and phenotypes, ``(L,)``."""
        return self.hits.mean(axis=(0, 2))

    def by_group(self, groups: ArrayLike) -> NDArray[np.float64]:
        """Pooled coverage of every group of subjects ``(G, L)``, for labels ``(N,)`` 0 to G-1."""
        labels = np.asarray(groups)
        if labels.shape != self.hits.shape[:1]:
            raise ValueError(f"groups must be ({len(self.hits)},), got {labels.shape}")
        return np.stack(
            [self.hits[labels == g].mean(axis=(0, 2)) for g in range(int(labels.max()) + 1)]
        )

    def table(self, names: Sequence[str]) -> pd.DataFrame:
        """Coverage with index ``phenotype`` (the last row ``pooled``) and one column per level."""
        import pandas as pd

        if len(names) != self.hits.shape[2]:
            raise ValueError(f"names must be {self.hits.shape[2]}, got {len(names)}")
        rows = np.vstack([self.per_phenotype.T, self.pooled])
        index = pd.Index([*names, "pooled"], name="phenotype")
        return pd.DataFrame(rows, index=index, columns=list(self.levels))


@dataclass(frozen=True, eq=False)
class Uniformity:
    """Kolmogorov-Smirnov test of transformed values against the uniform distribution, ``(P,)``."""

    distance: NDArray[np.float64]
    p_value: NDArray[np.float64]


def interval_coverage(
    samples: ArrayLike, truth: ArrayLike, *, levels: Sequence[float] = LEVELS
) -> Coverage:
    """Return how often central sample intervals hold the truth.

    The bounds of level c are the samples' quantiles at positions ``(S + 1) (1 -+ c) / 2`` among
    the sorted samples, linear in between. Then few samples are not taken for a narrow prediction:
    where positions are whole, honest intervals hold exactly c of the truths for any S.

    Args:
        samples: ``(N, S, P)`` in native units.
        truth: ``(N, P)``.
        levels: nominal coverages in (0, 1).

    Raises:
        ValueError: for shapes that disagree, values that are not finite, and levels whose interval
            is wider than S samples reach, ``S < 2 / (1 - c) - 1`` (19 for 90 %, 39 for 95 %).
    """
    drawn, true = _prediction(samples, truth)
    count = drawn.shape[1]
    for level in levels:
        if not 0 < level < 1 or (count + 1) * (1 - level) < 2 - 1e-9:
            raise ValueError(
                f"levels must lie in (0, 1) with 2 / (1 - level) - 1 or more samples, "
                f"got level {level} with {count}"
            )
    hits = np.empty((len(true), len(levels), true.shape[1]), dtype=bool)
    widths = np.empty(hits.shape[1:])
    for k, level in enumerate(levels):
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(drawn, tails, axis=1, method="weibull")
        hits[:, k] = (low <= true) & (true <= high)
        widths[k] = (high - low).mean(axis=0)
    return Coverage(tuple(levels), hits, widths)


def quantile_groups(condition: ArrayLike, *, groups: int = 10) -> NDArray[np.int64]:
    """Return the group ``(N,)`` of every subject by quantiles of a condition, 0 the lowest.

    Equal values stay together: a condition with at most ``groups`` different values gets one
    group for each (sex: two), and groups of a tied condition may be fewer and unequal.
    """
    values = finite(condition, "condition", ndim=1)
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    distinct, which = np.unique(values, return_inverse=True)
    if len(distinct) <= groups:
        return which.astype(np.int64)
    edges = np.quantile(values, np.arange(1, groups) / groups)
    # Renumbered, as an edge that many values share leaves a group empty.
    return np.unique(np.searchsorted(edges, values, side="left"), return_inverse=True)[1]


def coverage_by_group(
    coverage: Coverage, condition: ArrayLike, *, groups: int = 10
) -> pd.DataFrame:
    """Return the pooled coverage by deciles of a condition (age, BMI, ...).

    Returns:
        Table with one row per group and columns ``from``, ``to`` (unit of the condition),
        ``subjects`` and one per level.
    """
    import pandas as pd

    values = finite(condition, "condition", ndim=1)
    which = quantile_groups(values, groups=groups)
    shares = coverage.by_group(which)
    members = [values[which == g] for g in range(len(shares))]
    table = pd.DataFrame(
        {
            "from": [m.min() for m in members],
            "to": [m.max() for m in members],
            "subjects": [len(m) for m in members],
        }
    )
    for k, level in enumerate(coverage.levels):
        table[level] = shares[:, k]
    return table.rename_axis("group")


def pit_values(samples: ArrayLike, truth: ArrayLike, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the randomized probability integral transform of the truth, ``(N, P)`` in (0, 1).

    ``u = (#{x_s < y} + w (#{x_s = y} + 1)) / (S + 1)`` with w uniform: exactly uniform for honest
    samples, of any number and with ties. Reference: Czado et al., Biometrics 2009, section 2.
    """
    drawn, true = _prediction(samples, truth)
    below = (drawn < true[:, None]).sum(axis=1)
    equal = (drawn == true[:, None]).sum(axis=1)
    within = keyed_rng(seed, "pit").random(true.shape)
    return (below + within * (equal + 1)) / (drawn.shape[1] + 1)


def pit_uniformity(pit: ArrayLike) -> Uniformity:
    """Return the Kolmogorov-Smirnov test of every phenotype's transform ``(N, P)``.

    Phenotypes of one heart depend on each other: adjust their p-values with ``holm``, do not pool.
    """
    from scipy.stats import kstest

    values = finite(pit, "pit", ndim=2)
    tests = [kstest(column, "uniform") for column in values.T]
    return Uniformity(
        distance=np.array([float(t.statistic) for t in tests]),
        p_value=np.array([float(t.pvalue) for t in tests]),
    )


def _prediction(samples: ArrayLike, truth: ArrayLike) -> tuple[NDArray, NDArray]:
    drawn, true = finite(samples, "samples", ndim=3), finite(truth, "truth", ndim=2)
    if (drawn.shape[0], drawn.shape[2]) != true.shape or drawn.shape[1] < 1:
        raise ValueError(
            f"samples must be (N, S, P) of truth (N, P), got {drawn.shape} and {true.shape}"
        )
    return drawn, true
