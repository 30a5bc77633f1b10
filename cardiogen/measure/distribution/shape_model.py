"""Specificity, compactness and generalization of shape models (Davies, IEEE TMI 2002).

Shapes are ``(N, V, 3)`` mm with corresponding vertices in one frame. Modes are those of a PCA.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import keyed_rng
from cardiogen.measure.distribution.shape_distances import centered_gram, nearest_shapes

# Eigenvalues below this share of the largest are rounding of the Gram matrix.
_RANK = 1e-12


def specificity(generated: NDArray, training: NDArray, *, block: int = 256) -> float:
    """Return the mean distance (mm) of generated shapes to their nearest training shape.

    Small values mean plausible shapes, and zero means copies: judge with the distance of held-out
    real shapes to the same training shapes. Per shape: ``nearest_shapes(generated, training)[0]``.
    """
    return float(nearest_shapes(generated, training, block=block)[0].mean())


def mode_variances(shapes: NDArray, *, block: int = 256) -> NDArray[np.float64]:
    """Return the variances of the PCA modes, descending, in mm^2 per vertex ``(K,)``.

    They sum to ``sum |x - m|^2 / (V (N - 1))``; K is the rank of the shapes, below N.
    """
    if len(shapes) < 2:
        raise ValueError(f"modes need at least 2 shapes, got {len(shapes)}")
    values = np.linalg.eigvalsh(centered_gram(shapes, block=block))[::-1]
    values = values[values > _RANK * max(values[0], 0.0)]
    if not len(values):
        raise ValueError(f"shapes must differ, got {len(shapes)} equal ones")
    return values / (shapes.shape[1] * (len(shapes) - 1))


def compactness(shapes: NDArray, *, block: int = 256) -> NDArray[np.float64]:
    """Return the share of variance in the first 1, 2, ... modes, ``(K,)``, up to 1."""
    variances = mode_variances(shapes, block=block)
    return np.cumsum(variances) / variances.sum()


def generalization(
    shapes: NDArray,
    modes: Sequence[int],
    *,
    folds: int = 10,
    seed: int = 0,
    block: int = 256,
) -> NDArray[np.float64]:
    """Return how well the first modes of other subjects rebuild each subject.

    A PCA of the shapes outside a subject's fold gives the mean and modes; the error is the vertex
    RMSE of the subject's projection. All of it follows from the Gram matrix, so a fold costs one
    eigendecomposition of N x N. Errors below 1e-7 of the spread are rounding.

    Args:
        shapes: ``(N, V, 3)`` mm, one per subject.
        modes: numbers of modes, 0 for the mean shape alone.
        folds: number of parts; N leaves one subject out at a time.
        seed: of the parts.
        block: shapes per block of the Gram matrix.

    Returns:
        Errors in mm, ``(N, len(modes))``; average over subjects.
    """
    count = len(shapes)
    if not 2 <= folds <= count:
        raise ValueError(f"folds must be 2 to {count}, got {folds}")
    largest = count - -(-count // folds) - 1
    if not len(modes) or min(modes) < 0 or max(modes) > largest:
        raise ValueError(f"modes must lie in 0 to {largest}, got {list(modes)}")
    gram = centered_gram(shapes, block=block)
    part = np.empty(count, dtype=np.int64)
    part[keyed_rng(seed, "generalization").permutation(count)] = np.arange(count) % folds
    squared = np.empty((count, len(modes)))
    for fold in range(folds):
        squared[part == fold] = _left_over(gram, part == fold, list(modes))
    return np.sqrt(squared / shapes.shape[1])


def _left_over(gram: NDArray, held_out: NDArray, modes: list[int]) -> NDArray:
    """Squared residuals ``(n, len(modes))`` of held-out rows after projection on modes."""
    train = gram[np.ix_(~held_out, ~held_out)]
    cross = gram[np.ix_(held_out, ~held_out)]
    own = gram.diagonal()[held_out]
    # Inner products about the training mean instead of everyone's.
    middle, total = train.mean(axis=1), float(train.mean())
    about = cross - middle[None] - cross.mean(axis=1)[:, None] + total
    size = own - 2 * cross.mean(axis=1) + total
    values, vectors = np.linalg.eigh(train - middle[None] - middle[:, None] + total)
    values, vectors = values[::-1], vectors[:, ::-1]
    real = values > _RANK * max(values[0], 0.0)
    explained = np.zeros((len(own), len(values) + 1))
    explained[:, 1:][:, real] = (about @ vectors[:, real]) ** 2 / values[real]
    return np.clip(size[:, None] - np.cumsum(explained, axis=1)[:, modes], 0.0, None)
