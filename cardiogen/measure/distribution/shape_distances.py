"""Vertex distances between many shapes, blockwise, so that memory does not grow with the cohort.

``d(a, b) = sqrt(mean_v |a_v - b_v|^2)`` in mm of shapes ``(N, V, 3)`` with corresponding vertices
in one frame: nothing is aligned here, so a difference of pose counts as one of shape.

Squared distances come as ``|a|^2 + |b|^2 - 2 a b`` in float64, one matrix product per block. Where
that difference cancels, pairs are subtracted one by one: copies are at distance 0 exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Squared distances under this share of |a|^2 + |b|^2 are computed again by subtraction; above it
# rounding is below 1e-9 of the distance.
_CANCELED = 1e-6
_PAIRS = 64  # pairs subtracted at once


def vertex_distances(a: NDArray, b: NDArray | None = None, *, block: int = 256) -> NDArray:
    """Return the distance matrix ``(N, M)`` mm of two sets of shapes, or ``(N, N)`` of one.

    Beyond the matrix, memory is that of two blocks of shapes in float64; ``a`` and ``b`` may be
    memory maps of any real dtype.

    Args:
        a: ``(N, V, 3)`` mm.
        b: ``(M, V, 3)`` mm; None for ``a`` with itself (symmetric, half the work).
        block: shapes per block.

    Raises:
        ValueError: for shapes that do not correspond or are not finite.
    """
    other = _checked(a, b, block)
    origin = _origin(other, block)
    distances = np.empty((len(a), len(other)))
    for i in range(0, len(a), block):
        left = _rows(a, i, block) - origin
        for j in range(i if b is None else 0, len(other), block):
            right = left if b is None and i == j else _rows(other, j, block) - origin
            tile = np.sqrt(_squared(left, right) / a.shape[1])
            distances[i : i + block, j : j + block] = tile
            if b is None:
                distances[j : j + block, i : i + block] = tile.T
    return distances


def nearest_shapes(
    a: NDArray, b: NDArray | None = None, *, block: int = 256
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how far the nearest shape of ``b`` is from every shape of ``a``, and which it is.

    The first of equally near ones is taken. Memory is that of two blocks.

    Args:
        a: ``(N, V, 3)`` mm.
        b: ``(M, V, 3)`` mm; None for the nearest other shape of ``a``.
        block: shapes per block.

    Returns:
        Distances ``(N,)`` mm and indices ``(N,)``.
    """
    other = _checked(a, b, block)
    if b is None and len(a) < 2:
        raise ValueError(f"the nearest other shape needs at least 2 shapes, got {len(a)}")
    origin = _origin(other, block)
    nearest, index = np.full(len(a), np.inf), np.zeros(len(a), dtype=np.int64)
    for i in range(0, len(a), block):
        left = _rows(a, i, block) - origin
        rows = np.arange(len(left))
        for j in range(0, len(other), block):
            squared = _squared(left, _rows(other, j, block) - origin)
            if b is None and i == j:
                squared[rows, rows] = np.inf
            best = squared.argmin(axis=1)
            closer = squared[rows, best] < nearest[i : i + block]
            nearest[i : i + block][closer] = squared[rows, best][closer]
            index[i : i + block][closer] = best[closer] + j
    return np.sqrt(nearest / a.shape[1]), index


def centered_gram(shapes: NDArray, *, block: int = 256) -> NDArray[np.float64]:
    """Return ``<x_i - m, x_j - m>`` in mm^2 of shapes ``(N, V, 3)`` about their mean, ``(N, N)``.

    Its eigenvalues are those of the PCA of the shapes, at the cost of N and not of 3V modes.
    """
    _checked(shapes, None, block)
    starts = range(0, len(shapes), block)
    mean = sum(_rows(shapes, i, block).sum(axis=0) for i in starts) / len(shapes)
    gram = np.empty((len(shapes), len(shapes)))
    for i in starts:
        left = _rows(shapes, i, block) - mean
        for j in range(i, len(shapes), block):
            tile = left @ (_rows(shapes, j, block) - mean).T
            gram[i : i + block, j : j + block] = tile
            gram[j : j + block, i : i + block] = tile.T
    return gram


def _checked(a: NDArray, b: NDArray | None, block: int) -> NDArray:
    """The second set, after a look at both."""
    other = a if b is None else b
    for name, shapes in (("a", a), ("b", other)):
        if np.ndim(shapes) != 3 or not all(np.shape(shapes)):
            raise ValueError(f"{name} must be shapes (N, V, 3), got {np.shape(shapes)}")
    if a.shape[1:] != other.shape[1:] or block < 1:
        raise ValueError(
            f"shapes must correspond and block be positive, got {a.shape}, {other.shape}, {block}"
        )
    return other


def _rows(shapes: NDArray, start: int, block: int) -> NDArray[np.float64]:
    """One block as float64 rows ``(n, V*3)``, refused unless finite."""
    taken = np.asarray(shapes[start : start + block], dtype=np.float64)
    rows = taken.reshape(len(taken), -1)
    failed = int((~np.isfinite(rows)).any(axis=1).sum())
    if failed:
        raise ValueError(
            f"shapes must be finite, got {failed} failed in {start} to {start + block}"
        )
    return rows


def _origin(shapes: NDArray, block: int) -> NDArray:
    """A point amid the shapes: any will do, near ones keep the digits of small distances."""
    return _rows(shapes, 0, block).mean(axis=0)


def _squared(left: NDArray, right: NDArray) -> NDArray:
    """Squared distances ``(n, m)`` of rows."""
    scale = np.einsum("ik,ik->i", left, left)[:, None] + np.einsum("jk,jk->j", right, right)
    squared = scale - 2 * (left @ right.T)
    rows, columns = np.nonzero(squared <= _CANCELED * scale)
    for k in range(0, len(rows), _PAIRS):
        i, j = rows[k : k + _PAIRS], columns[k : k + _PAIRS]
        apart = left[i] - right[j]
        squared[i, j] = np.einsum("pk,pk->p", apart, apart)
    return squared
