"""Distances between two cohorts of phenotypes, on samples and in native units.

Tables are ``(N, P)``: one row per heart, one column per phenotype (mL, %, g, mm). One-dimensional
distances are in the unit of their phenotype. Distances of whole vectors mix units, so columns are
divided by the real cohort's standard deviation unless ``scale="native"``; then no unit matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.measure.distribution.estimate import finite

if TYPE_CHECKING:
    import pandas as pd

Scale = Literal["sd", "native"]
_BLOCK = 2048  # rows of a block of pairwise distances: 32 MiB


@dataclass(frozen=True)
class Frechet:
    """Frechet distance of two Gaussians and its parts.

    Attributes:
        value: ``sqrt(means + covariances)``, in real standard deviations (or the native unit).
        means: squared distance of the means.
        covariances: ``tr(A + B - 2 (A B)^(1/2))``.
        shrinkage: share of the covariances that was replaced by a multiple of the identity.
    """

    value: float
    means: float
    covariances: float
    shrinkage: float


@dataclass(frozen=True)
class CorrelationError:
    """Difference of two correlation matrices over pairs of phenotypes.

    Attributes:
        rms: root mean square over the pairs.
        largest: largest absolute difference.
        pair: columns where it is.
    """

    rms: float
    largest: float
    pair: tuple[int, int]


def wasserstein(real: ArrayLike, synthetic: ArrayLike) -> float:
    """Return the 1-Wasserstein distance ``int |F(x) - G(x)| dx`` of samples ``(N,)``, ``(M,)``."""
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(*_two(real, synthetic, ndim=1)))


def ks_distance(real: ArrayLike, synthetic: ArrayLike) -> float:
    """Return the Kolmogorov-Smirnov distance ``max |F(x) - G(x)|`` of samples ``(N,)``, ``(M,)``.

    It has no unit.
    """
    left, right = _two(real, synthetic, ndim=1)
    steps = np.concatenate([left, right])
    below = [np.searchsorted(np.sort(x), steps, side="right") / len(x) for x in (left, right)]
    return float(np.abs(below[0] - below[1]).max())


def energy_distance(real: ArrayLike, synthetic: ArrayLike, *, scale: Scale = "sd") -> float:
    """Return ``sqrt(2 E|X - Y| - E|X - X'| - E|Y - Y'|)`` of vectors ``(N, P)``, ``(M, P)``.

    All pairs count, those of a row with itself included, so the distance is never negative and is
    zero only between equal samples; its floor shrinks as the samples grow.

    Reference: Szekely and Rizzo, J. Stat. Plan. Inference 2013.
    """
    left, right = _scaled(real, synthetic, scale)
    across, among_left, among_right = (
        _mean_distance(a, b) for a, b in ((left, right), (left, left), (right, right))
    )
    return float(np.sqrt(max(2 * across - among_left - among_right, 0.0)))


def frechet_distance(
    real: ArrayLike,
    synthetic: ArrayLike,
    *,
    shrinkage: float | Literal["ledoit-wolf"] = "ledoit-wolf",
    scale: Scale = "sd",
) -> Frechet:
    """Return the Frechet distance of the Gaussians fitted to ``(N, P)`` and ``(M, P)``.

    ``d^2 = |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2))`` with covariances shrunk towards the
    identity, ``(1 - s) S + s tr(S) / P I``. Both cohorts get one s, or equal distributions would
    lie apart by the difference of two: with ``"ledoit-wolf"`` the larger of their two.
    """
    left, right = _scaled(real, synthetic, scale)
    share = shrinkage
    if share == "ledoit-wolf":
        share = max(ledoit_wolf(left), ledoit_wolf(right))
    if not 0 <= share <= 1:
        raise ValueError(f"shrinkage must be ledoit-wolf or lie in [0, 1], got {shrinkage}")
    a, b = (_shrunk_covariance(x, share) for x in (left, right))
    root = _square_root(a)
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0.0, None)).sum()
    means = float(((left.mean(axis=0) - right.mean(axis=0)) ** 2).sum())
    covariances = max(float(np.trace(a) + np.trace(b) - 2 * overlap), 0.0)
    return Frechet(float(np.sqrt(means + covariances)), means, covariances, float(share))


def ledoit_wolf(table: ArrayLike) -> float:
    """Return the share of shrinkage towards the identity that is best in mean square, [0, 1].

    With ``S = 1/N sum x x^T`` of centered rows and ``m = tr(S) / P`` it is ``b^2 / d^2``,
    ``d^2 = |S - m I|^2`` and ``b^2 = min(d^2, 1/N^2 sum |x x^T - S|^2)``.

    Reference: Ledoit and Wolf, J. Multivar. Anal. 2004, section 3.3.
    """
    rows = finite(table, "table", ndim=2, least=2)
    rows = rows - rows.mean(axis=0)
    covariance = rows.T @ rows / len(rows)
    middle = np.trace(covariance) / len(covariance)
    from_identity = float(((covariance - middle * np.eye(len(covariance))) ** 2).sum())
    # sum |x x^T - S|^2 = sum |x|^4 - N |S|^2, since the x x^T sum to N S.
    noise = float(((rows**2).sum(axis=1) ** 2).sum() / len(rows) - (covariance**2).sum())
    if from_identity <= 0:
        return 1.0  # one phenotype, or already a multiple of the identity: nothing changes
    return min(noise / len(rows) / from_identity, 1.0)


def correlation_error(real: ArrayLike, synthetic: ArrayLike) -> CorrelationError:
    """Return how far the correlations of phenotypes are apart, ``(N, P)`` against ``(M, P)``."""
    left, right = _two(real, synthetic, ndim=2)
    if left.shape[1] < 2:
        raise ValueError(f"correlations need at least 2 phenotypes, got {left.shape[1]}")
    _spread(left, "real"), _spread(right, "synthetic")
    gap = np.corrcoef(left, rowvar=False) - np.corrcoef(right, rowvar=False)
    rows, columns = np.triu_indices(len(gap), 1)
    apart = np.abs(gap[rows, columns])
    worst = int(apart.argmax())
    return CorrelationError(
        rms=float(np.sqrt((apart**2).mean())),
        largest=float(apart[worst]),
        pair=(int(rows[worst]), int(columns[worst])),
    )


def sd_ratio(real: ArrayLike, synthetic: ArrayLike) -> NDArray[np.float64]:
    """Return synthetic over real standard deviation per phenotype ``(P,)``; below 1: collapsed."""
    left, right = _two(real, synthetic, ndim=2)
    return right.std(axis=0, ddof=1) / _spread(left, "real")


def mean_shift(real: ArrayLike, synthetic: ArrayLike) -> NDArray[np.float64]:
    """Return synthetic minus real mean in real standard deviations, per phenotype ``(P,)``."""
    left, right = _two(real, synthetic, ndim=2)
    return (right.mean(axis=0) - left.mean(axis=0)) / _spread(left, "real")


def compare_phenotypes(
    real: ArrayLike, synthetic: ArrayLike, names: Sequence[str]
) -> pd.DataFrame:
    """Return the one-dimensional distances of every phenotype.

    Args:
        real: ``(N, P)`` in native units.
        synthetic: ``(M, P)`` in the same units.
        names: P names, with their units.

    Returns:
        Table with index ``phenotype`` and columns ``w1`` (native unit), ``energy`` (square root
        of that unit), ``ks``, ``mean shift (SD)``, ``SD ratio``.
    """
    import pandas as pd
    from scipy.stats import energy_distance as energy

    left, right = _two(real, synthetic, ndim=2)
    if len(names) != left.shape[1]:
        raise ValueError(f"names must be {left.shape[1]}, one per column, got {len(names)}")
    pairs = list(zip(left.T, right.T, strict=True))
    columns = {
        "w1": [wasserstein(a, b) for a, b in pairs],
        "energy": [float(energy(a, b)) for a, b in pairs],
        "ks": [ks_distance(a, b) for a, b in pairs],
        "mean shift (SD)": mean_shift(left, right),
        "SD ratio": sd_ratio(left, right),
    }
    return pd.DataFrame(columns, index=pd.Index(names, name="phenotype"))


def _two(real: ArrayLike, synthetic: ArrayLike, *, ndim: int) -> tuple[NDArray, NDArray]:
    least = 2 if ndim == 2 else 1
    left = finite(real, "real", ndim=ndim, least=least)
    right = finite(synthetic, "synthetic", ndim=ndim, least=least)
    if left.shape[1:] != right.shape[1:]:
        raise ValueError(f"phenotypes must be the same, got shapes {left.shape}, {right.shape}")
    return left, right


def _spread(table: NDArray, name: str) -> NDArray:
    """Standard deviations ``(P,)``, none of them zero."""
    sd = table.std(axis=0, ddof=1)
    # A constant column can get a deviation of rounding size.
    constant = np.flatnonzero(sd <= 1e-12 * np.abs(table).max(axis=0))
    if constant.size:
        raise ValueError(f"{name} must vary in every column, got constants in {constant.tolist()}")
    return sd


def _scaled(real: ArrayLike, synthetic: ArrayLike, scale: Scale) -> tuple[NDArray, NDArray]:
    """Both tables about the real mean, over the real standard deviation or in native units."""
    if scale not in ("sd", "native"):
        raise ValueError(f"scale must be sd or native, got {scale!r}")
    left, right = _two(real, synthetic, ndim=2)
    unit = _spread(left, "real") if scale == "sd" else 1.0
    middle = left.mean(axis=0)
    return (left - middle) / unit, (right - middle) / unit


def _mean_distance(a: NDArray, b: NDArray) -> float:
    from scipy.spatial.distance import cdist

    total = 0.0
    for i in range(0, len(a), _BLOCK):
        for j in range(0, len(b), _BLOCK):
            total += float(cdist(a[i : i + _BLOCK], b[j : j + _BLOCK]).sum())
    return total / (len(a) * len(b))


def _shrunk_covariance(rows: NDArray, share: float) -> NDArray:
    covariance = np.atleast_2d(np.cov(rows, rowvar=False))
    identity = np.eye(len(covariance))
    return (1 - share) * covariance + share * np.trace(covariance) / len(covariance) * identity


def _square_root(matrix: NDArray) -> NDArray:
    """Symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
