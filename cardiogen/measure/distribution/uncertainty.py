"""Intervals over subjects by the bootstrap, and paired tests between methods.

Subjects are resampled, never voxels, vertices or draws of one subject: they are what is
independent. The resamples are a pure function of the seed, and fewer are a prefix of more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import keyed_rng
from cardiogen.measure.distribution.estimate import Estimate, finite, same_rows

if TYPE_CHECKING:
    import pandas as pd

Method = Literal["percentile", "bca"]


def bootstrap(
    statistic: Callable[..., float],
    *tables: ArrayLike,
    independent: bool = False,
    method: Method = "percentile",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return a statistic of subjects with its bootstrap interval.

    - ``percentile``: the central ``level`` of the statistic over resamples.
    - ``bca``: the same with quantiles moved for bias and skewness (Efron, JASA 1987, eq. 2.3 and
      6.6: acceleration from the jackknife).

    A distance between two samples (Wasserstein, Frechet, energy) grows by resampling, since every
    resample is further from its own sample: its percentile interval lies too high. Use ``bca`` or
    a real-against-real distance of equal counts for judgment.

    Args:
        statistic: takes the tables, returns a number; it need not be defined by a mean.
        tables: arrays with subjects along the first axis.
        independent: tables hold different subjects (a real and a synthetic cohort) and are
            resampled apart; otherwise row i of every table is the same subject.
        method: how the interval is taken.
        level: confidence.
        draws: number of resamples.
        seed: of the resamples.

    Raises:
        ValueError: for no or empty tables, unequal rows unless ``independent``, and a statistic
            that is not finite on the sample or on a resample.
    """
    arrays = [np.asarray(table) for table in tables]
    if not arrays or any(a.ndim == 0 or len(a) < 2 for a in arrays):
        raise ValueError(f"need tables of at least 2 subjects, got {[a.shape for a in arrays]}")
    if method not in ("percentile", "bca") or not 0 < level < 1 or draws < 1:
        raise ValueError(
            f"method must be percentile or bca, level in (0, 1) and draws at least 1, got "
            f"{method!r}, {level}, {draws}"
        )
    if not independent:
        same_rows(**{f"table {i}": a for i, a in enumerate(arrays)})

    value = _finite_number(statistic(*arrays))
    rng = keyed_rng(seed, "bootstrap")
    counts = [len(a) for a in (arrays if independent else arrays[:1])]
    resampled = np.empty(draws)
    for k in range(draws):
        rows = [rng.integers(0, count, count) for count in counts]
        resampled[k] = _finite_number(statistic(*_taken(arrays, rows)))
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca_tails(tails, value, resampled, _jackknife(statistic, arrays, counts))
    low, high = np.quantile(resampled, tails)
    return Estimate(value, float(low), float(high), level)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    statistic: Callable[[NDArray], float] = np.mean,
    method: Method = "percentile",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return ``statistic(a) - statistic(b)`` of two methods on the same subjects.

    Args:
        a: per-subject results of one method, ``(N, ...)``.
        b: of the other, rows in the same order.
        statistic: of one method's results.
        method: see ``bootstrap``.
        level: confidence.
        draws: number of resamples.
        seed: of the resamples.
    """
    left, right = (finite(x, n, ndim=max(np.ndim(x), 1), least=2) for x, n in ((a, "a"), (b, "b")))
    return bootstrap(
        lambda x, y: float(statistic(x)) - float(statistic(y)),
        left, right, method=method, level=level, draws=draws, seed=seed,
    )  # fmt: skip


def paired_wilcoxon(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test of paired results ``(N,)``.

    Ranks count zero differences (Pratt, JASA 1959); where all are zero, p is 1.
    """
    from scipy.stats import wilcoxon

    left, right = finite(a, "a", ndim=1), finite(b, "b", ndim=1)
    same_rows(a=left, b=right)
    if (left == right).all():
        return 1.0
    return float(wilcoxon(left, right, zero_method="pratt").pvalue)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values adjusted for their number by Holm's step-down rule (Scand. J. Stat. 1979).

    ``p~_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`` in ascending order of p.
    """
    p = finite(p_values, "p_values", ndim=1)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values must lie in [0, 1], got {p.min()} to {p.max()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def compare_methods(
    results: Mapping[str, ArrayLike], baseline: str, *, draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return how the mean of every method differs from the baseline's on the same subjects.

    Args:
        results: per-subject results ``(N,)`` by name of method.
        baseline: one of the names.
        draws: resamples of the interval.
        seed: of the resamples.

    Returns:
        Table with index ``method`` and columns ``difference``, ``low``, ``high`` (95 %), ``p``
        (Wilcoxon) and ``holm p`` (adjusted for the number of methods compared).
    """
    import pandas as pd

    if baseline not in results or len(results) < 2:
        raise ValueError(f"baseline must be one of 2 or more methods {list(results)}: {baseline}")
    rows = {}
    for name, values in results.items():
        if name != baseline:
            gap = paired_difference(values, results[baseline], draws=draws, seed=seed)
            p = paired_wilcoxon(values, results[baseline])
            rows[name] = (gap.value, gap.low, gap.high, p)
    table = pd.DataFrame.from_dict(
        rows, orient="index", columns=["difference", "low", "high", "p"]
    )
    return table.assign(**{"holm p": holm(table["p"])}).rename_axis("method")


def _taken(arrays: list[NDArray], rows: list[NDArray]) -> list[NDArray]:
    """Rows of every table; one set of rows serves all of them."""
    shared = rows * len(arrays) if len(rows) == 1 else rows
    return [a[r] for a, r in zip(arrays, shared, strict=True)]


def _jackknife(
    statistic: Callable[..., float], arrays: list[NDArray], counts: list[int]
) -> list[NDArray]:
    """Leave-one-out statistics, one vector per set of subjects."""
    everyone = [np.arange(count) for count in counts]
    left_out = []
    for which, count in enumerate(counts):
        values = np.empty(count)
        for i in range(count):
            rows = list(everyone)
            rows[which] = np.delete(everyone[which], i)
            values[i] = _finite_number(statistic(*_taken(arrays, rows)))
        left_out.append(values)
    return left_out


def _bca_tails(
    tails: NDArray, value: float, resampled: NDArray, left_out: list[NDArray]
) -> NDArray:
    """Quantile levels of the BCa interval: ``Phi(z0 + (z0 + z) / (1 - a (z0 + z)))``."""
    from scipy.special import ndtr, ndtri

    below = ((resampled < value).sum() + (resampled <= value).sum()) / (2 * len(resampled))
    # Half a resample keeps the bias finite where the whole distribution lies on one side.
    z0 = ndtri(np.clip(below, 0.5 / len(resampled), 1 - 0.5 / len(resampled)))
    influences = [(len(x) - 1) * (x.mean() - x) / len(x) for x in left_out]
    spread = sum(float((u**2).sum()) for u in influences)
    skew = sum(float((u**3).sum()) for u in influences)
    acceleration = skew / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = z0 + ndtri(tails)
    return ndtr(z0 + shifted / (1 - acceleration * shifted))


def _finite_number(value: float) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"statistic must be finite on every resample, got {number}")
    return number
