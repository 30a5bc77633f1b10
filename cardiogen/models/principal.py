"""Principal directions of many long rows, the same for every refit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_FEW, _RANK = 8, 1e-10
_BLOCK = 1 << 15  # columns made float64 at once, as rows may fill much of the memory


def principal(rows: NDArray, count: int) -> tuple[Array, Array, Array]:
    """Return mean, unit modes and standard deviations of rows ``(N, P)``, at most ``count``."""
    mean = rows.mean(axis=0, dtype=np.float64)
    values, modes = directions(rows, min(count, len(rows) - 1), center=mean)

    return mean, modes, np.sqrt(values / (len(rows) - 1))


def directions(rows: NDArray, count: int, *, center: Array | None = None) -> tuple[Array, Array]:
    """Return the largest sums of squares along unit directions, and those, at most ``count``.

    Args:
        rows: ``(N, P)``; few long rows go through their Gram matrix ``(N, N)``.
        count: how many are wanted. Rows of low rank have no more than that.
        center: what is subtracted from every row ``(P,)``.
    """
    count = min(count, *rows.shape)
    wide = len(rows) <= rows.shape[1]
    if not wide:
        centered = np.asarray(rows, np.float64) if center is None else rows - center
        values, modes = _largest(centered.T @ centered, count)
    else:
        values, modes = _largest(sum(part @ part.T for part in _blocks(rows, center)), count)
    kept = values > _RANK * values[0]
    values, modes = values[kept], modes[kept]
    if wide:
        found = np.concatenate([modes @ part for part in _blocks(rows, center)], axis=1)
        modes = _signed(found / np.sqrt(values)[:, None])

    return values, modes


def _blocks(rows: NDArray, center: Array | None) -> Iterator[Array]:
    """Yield centered columns in float64."""
    middle = np.zeros(rows.shape[1]) if center is None else center
    for start in range(0, rows.shape[1], _BLOCK):
        chosen = slice(start, start + _BLOCK)
        yield rows[:, chosen] - middle[chosen]


def _largest(matrix: Array, count: int) -> tuple[Array, Array]:
    """Return the largest eigenvalues and their vectors as rows, largest first."""
    # Only training comes here: the import would cost every command a quarter of a second.
    import scipy.linalg
    import scipy.sparse.linalg

    size = len(matrix)
    if count > size // _FEW:
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - count, size - 1])
    else:
        # Lanczos from a fixed start: a full decomposition of thousands takes minutes.
        values, vectors = scipy.sparse.linalg.eigsh(matrix, count, v0=np.ones(size))
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]

    return values[::-1], _signed(vectors[:, ::-1].T)


def _signed(vectors: Array) -> Array:
    """Return vectors whose largest entry is positive: a sign is free, and refits shall agree."""
    largest = np.abs(vectors).argmax(axis=1)

    return vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
