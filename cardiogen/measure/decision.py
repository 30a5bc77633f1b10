"""Which label map to show when the anatomy is uncertain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def overlap_labels(probabilities: ArrayLike) -> NDArray[np.uint8]:
    """Return the label map ``(...)`` whose expected Dice with the truth is large.

    The mask A that makes E[2 |A and B| / (|A| + |B|)] largest holds the voxels that are more
    probable than half of the Dice D that it reaches (Lipton et al., ECML PKDD 2014; Dai and Li,
    JMLR 2023): less than one half, so that it is larger than the set of voxels that are more
    probable than not. With voxels in order of their probabilities p, |B| near its mean,

        D_s = max_k 2 sum_{i <= k} p_i / (k + sum_i p_i).

    A voxel goes to the structure s of largest ``p_s / (D_s / 2)``, or to none if that is below 1:
    each structure's own best mask but where two of them want one voxel.

    Args:
        probabilities: of the structures 1 to S, ``(S, ...)``; what is left to 1 is background.

    Raises:
        ValueError: for probabilities outside [0, 1], NaN among them, or that add up to more.
    """
    found = np.asarray(probabilities, dtype=np.float64)
    if found.ndim < 2 or not ((found >= 0).all() and (found.sum(axis=0) <= 1 + 1e-6).all()):
        raise ValueError(
            f"probabilities must be (S, ...) from 0 to 1 and add up to 1 at most, got shape "
            f"{found.shape}, least {found.min(initial=1):g}, sums up to "
            f"{found.sum(axis=0).max(initial=0):g}"
        )
    worth = np.stack([p / (_best_dice(p) / 2) for p in found])
    best = worth.argmax(axis=0)

    return np.where(worth.max(axis=0) >= 1, best + 1, 0).astype(np.uint8)


def _best_dice(p: Array) -> float:
    """Return D of probabilities; 2, that no voxel reaches, where the structure never is."""
    ordered = np.sort(p[p > 0])[::-1]
    if not ordered.size:
        return 2.0
    inside = np.cumsum(ordered)

    return float((2 * inside / (np.arange(1, len(ordered) + 1) + inside[-1])).max())
