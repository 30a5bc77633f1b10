"""How a set of synthetic shapes lies among real ones, from any matrices of distances.

Every number here depends on how many shapes there are: compare sets of equal sizes only, and judge
against two real sets of the same sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import keyed_rng
from cardiogen.measure.distribution.estimate import Draws, finite
from cardiogen.measure.distribution.shape_distances import vertex_distances

# Distances this close to the least, relatively, tie: rounding must not choose the neighbor.
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class SetDistances:
    """Distances among N real and M synthetic shapes, in mm or whatever was measured.

    Attributes:
        real: ``(N, N)``; its diagonal is not read.
        synthetic: ``(M, M)``; its diagonal is not read.
        cross: ``(N, M)``, real by synthetic.
    """

    real: NDArray[np.float64]
    synthetic: NDArray[np.float64]
    cross: NDArray[np.float64]

    def __post_init__(self) -> None:
        n, m = self.cross.shape if np.ndim(self.cross) == 2 else (-1, -1)
        wanted = {"real": (n, n), "synthetic": (m, m), "cross": (n, m)}
        for name, shape in wanted.items():
            matrix = finite(getattr(self, name), name, ndim=2)
            if matrix.shape != shape or (matrix < 0).any():
                raise ValueError(f"{name} must be distances {shape}, got shape {matrix.shape}")

    def subset(self, real: ArrayLike, synthetic: ArrayLike) -> SetDistances:
        """Return the distances among chosen real and synthetic shapes."""
        i, j = np.asarray(real), np.asarray(synthetic)
        return SetDistances(
            self.real[np.ix_(i, i)], self.synthetic[np.ix_(j, j)], self.cross[np.ix_(i, j)]
        )


def set_distances(real: NDArray, synthetic: NDArray, *, block: int = 256) -> SetDistances:
    """Return all vertex distances (mm) of shapes ``(N, V, 3)`` and ``(M, V, 3)``."""
    return SetDistances(
        vertex_distances(real, block=block),
        vertex_distances(synthetic, block=block),
        vertex_distances(real, synthetic, block=block),
    )


def matching_distance(distances: SetDistances) -> float:
    """Return MMD: the mean over real shapes of the distance to the nearest synthetic one.

    Reference: Achlioptas et al., ICML 2018, section 3.
    """
    return float(distances.cross.min(axis=1).mean())


def set_coverage(distances: SetDistances) -> float:
    """Return COV: the share of real shapes that are nearest to some synthetic shape.

    A synthetic shape with several nearest ones picks among them with equal chances; what comes
    back is the expectation. Reference: Achlioptas et al., ICML 2018, section 3.
    """
    cross = distances.cross
    nearest = cross <= cross.min(axis=0) * (1 + _TIE)
    chance = nearest / nearest.sum(axis=0)
    return float(1 - np.prod(1 - chance, axis=1).mean())


def one_nna(distances: SetDistances) -> float:
    """Return the leave-one-out accuracy of telling real from synthetic by the nearest neighbor.

    Equal distributions give ``(n - 1) / (2n - 1)`` in expectation for n shapes each, just under
    one half; 1 means sets apart, 0 that each shape has a copy in the other set. Where neighbors
    of both sets tie, the shape counts by the share of its own set among them: what an unbiased
    coin among them gives on average.

    Reference: Lopez-Paz and Oquab, ICLR 2017; Yang et al., ICCV 2019, section 6.

    Raises:
        ValueError: for sets of different sizes (the larger one attracts neighbors) or below 2.
    """
    n, m = distances.cross.shape
    if n != m or n < 2:
        raise ValueError(f"one_nna needs as many real as synthetic shapes, 2 or more: {n}, {m}")
    correct = _own_share(distances.real, distances.cross).sum()
    correct += _own_share(distances.synthetic, distances.cross.T).sum()
    return float(correct / (n + m))


def diversity_ratio(distances: SetDistances) -> float:
    """Return the mean distance of synthetic pairs over that of real pairs; 1 is wanted."""
    return _pair_mean(distances.synthetic, "synthetic") / _pair_mean(distances.real, "real")


def repeat_draws(
    metric: Callable[[SetDistances], float],
    distances: SetDistances,
    *,
    draws: int = 20,
    size: int | None = None,
    subjects: ArrayLike | None = None,
    seed: int = 0,
) -> Draws:
    """Return a metric over repeated draws of equally many real and synthetic shapes.

    Args:
        metric: of one draw, for example ``one_nna``.
        distances: among all shapes.
        draws: how many.
        size: shapes of each set in a draw, without replacement; by default as many as possible.
        subjects: ``(M,)`` row of the real shape whose conditions each synthetic one was given.
            Draws are then paired: every real shape comes with one synthetic shape of its own.
        seed: of the draws; fewer draws are a prefix of more.

    Raises:
        ValueError: if ``size`` is too large, a real shape has no synthetic one, or all draws
            would be the same.
    """
    n, m = distances.cross.shape
    order, counts = _by_subject(subjects, n, m) if subjects is not None else (None, None)
    size = min(n, m) if size is None else size
    if not 2 <= size <= min(n, m) or draws < 1:
        raise ValueError(f"size must be 2 to {min(n, m)} and draws positive, got {size}, {draws}")
    if size == n and m == n and draws > 1:
        raise ValueError(
            f"all draws of {size} from {n} real and {m} synthetic shapes are the same; give a "
            "smaller size or more synthetic shapes"
        )
    values = np.empty(draws)
    for k in range(draws):
        rng = keyed_rng(seed, "shape draws", k)
        real = rng.permutation(n)[:size]
        if counts is None:
            synthetic = rng.permutation(m)[:size]
        else:
            first = np.cumsum(counts) - counts
            synthetic = order[first[real] + rng.integers(0, counts[real])]
        values[k] = metric(distances.subset(real, synthetic))
    return Draws(values)


def _by_subject(subjects: ArrayLike, n: int, m: int) -> tuple[NDArray, NDArray]:
    """Synthetic shapes in the order of their real ones, and how many each of those has."""
    rows = np.asarray(subjects)
    if rows.shape != (m,) or rows.dtype.kind not in "iu" or rows.min() < 0 or rows.max() >= n:
        raise ValueError(f"subjects must be {m} rows of the {n} real shapes, got {rows.shape}")
    counts = np.bincount(rows, minlength=n)
    if (counts == 0).any():
        raise ValueError(f"{int((counts == 0).sum())} of {n} real shapes have no synthetic one")
    return np.argsort(rows, kind="stable"), counts


def _own_share(own: NDArray, other: NDArray) -> NDArray:
    """Share of the own set among the nearest neighbors of every row."""
    own = own.copy()
    np.fill_diagonal(own, np.inf)
    reach = np.minimum(own.min(axis=1), other.min(axis=1))[:, None] * (1 + _TIE)
    ours, theirs = (own <= reach).sum(axis=1), (other <= reach).sum(axis=1)
    return ours / (ours + theirs)


def _pair_mean(matrix: NDArray, name: str) -> float:
    """Mean over pairs of different shapes."""
    rows, columns = np.triu_indices(len(matrix), 1)
    mean = float(matrix[rows, columns].mean()) if len(rows) else 0.0
    if mean <= 0:
        raise ValueError(f"{name} shapes must differ, got mean pairwise distance {mean}")
    return mean
