"""The numbers of the Learn2Reg scorer (MDL-UzL/L2R, 8847509), quirks included.

What it does otherwise than ``mode="strict"``, each kept on purpose:

- labels are pulled by nearest neighbor, and whatever comes from outside of the grid is background,
  however little outside;
- a structure that either image lacks is NaN and left out of the mean; one that the field moves out
  of the image has Dice 0 and an infinite HD95;
- HD95 is in voxels, whatever the spacing;
- SDlogJ is ``std(log(clip(det J + 3, 1e-9, 1e9)))`` two voxels or more from the border: the
  identity is already in ``det J``, so the 3 makes it several times smaller than the true spread;
- folds are counted after the clip, so there are none, whatever the field;
- the mask holds where it is exactly 1;
- TRE reads the field with cubic splines, as zero outside of the grid, and measures in the spacing
  of the moving image, not in its world;
- "30" of HD95 is the quantile 0.3 of the cases: the good end, as opposed to Dice, TRE and SDlogJ.

Arrays run (d, h, w) here and (x, y, z) there; none of the numbers depends on it.
Reference: Hering et al., IEEE TMI 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.measure import dice
from registration.metrics.surfels import robust_hausdorff

Metric = Literal["dice", "hd95", "sdlogj", "tre"]

# Quantile that the scorer calls "30".
_QUANTILES: dict[str, float] = {"dice": 0.3, "hd95": 0.3, "sdlogj": 0.7, "tre": 0.7}
_SHIFT, _LOW, _HIGH = 3.0, 1e-9, 1e9
_BORDER = 2


@dataclass(frozen=True)
class Aggregate:
    """Mean, population standard deviation and the "30" quantile of the cases."""

    mean: float
    std: float
    quantile30: float


def l2r_warp_labels(labels: ArrayLike, displacement: NDArray) -> NDArray:
    """Return labels read at ``x + u(x)``: nearest neighbor, background outside of the grid.

    Args:
        labels: moving labels ``(D, H, W)``.
        displacement: ``(3, D, H, W)``, voxels.
    """
    from scipy.ndimage import map_coordinates

    labels = np.asarray(labels)
    coords = np.indices(displacement.shape[1:]) + displacement

    return map_coordinates(labels, coords, order=0, mode="constant", cval=0)


def l2r_dice(
    fixed: ArrayLike, moving: ArrayLike, moved: ArrayLike, labels: Sequence[int]
) -> NDArray[np.float64]:
    """Return Dice of fixed and moved, one per label; NaN where fixed or moving lacks it."""
    fixed, moving, moved = (np.asarray(a) for a in (fixed, moving, moved))
    values = [
        dice(fixed == label, moved == label) if _in_both(fixed, moving, label) else np.nan
        for label in labels
    ]

    return np.array(values, dtype=np.float64)


def l2r_hd95(
    fixed: ArrayLike, moving: ArrayLike, moved: ArrayLike, labels: Sequence[int]
) -> NDArray[np.float64]:
    """Return HD95 in voxels, one per label; NaN where fixed or moving lacks it, inf if moved does.

    See ``surfels.robust_hausdorff``.
    """
    fixed, moving, moved = (np.asarray(a) for a in (fixed, moving, moved))
    values = [
        robust_hausdorff(fixed == label, moved == label)
        if _in_both(fixed, moving, label)
        else np.nan
        for label in labels
    ]

    return np.array(values, dtype=np.float64)


def l2r_sdlogj(displacement: NDArray, *, mask: ArrayLike | None = None) -> float:
    """Return ``std(log(clip(det J + 3, 1e-9, 1e9)))``, two voxels or more from the border.

    Args:
        displacement: ``(3, D, H, W)``, voxels.
        mask: ``(D, H, W)``; voxels where it is exactly 1 count.

    Returns:
        Population standard deviation; NaN if no voxel is left.
    """
    logs = np.log((_inner_determinant(displacement) + _SHIFT).clip(_LOW, _HIGH))
    if mask is not None:
        crop = (slice(_BORDER, -_BORDER),) * 3
        logs = logs[np.asarray(mask)[crop] == 1]

    return float(logs.std()) if logs.size else float("nan")


def l2r_tre(
    fixed_voxels: ArrayLike,
    moving_voxels: ArrayLike,
    displacement: NDArray,
    *,
    moving_spacing: Sequence[float],
) -> NDArray[np.float64]:
    """Return ``|(p + u(p) - q) * spacing|`` of every landmark, ``(V,)``.

    Args:
        fixed_voxels: landmarks p ``(V, 3)`` in voxels (d, h, w) of the fixed image.
        moving_voxels: landmarks q in voxels of the moving image.
        displacement: ``(3, D, H, W)``, voxels.
        moving_spacing: mm along (d, h, w) of the moving image.
    """
    from scipy.ndimage import map_coordinates

    fixed, moving = (np.asarray(p, dtype=np.float64) for p in (fixed_voxels, moving_voxels))
    read = [map_coordinates(u, fixed.T, order=3, mode="constant", cval=0.0) for u in displacement]

    return np.linalg.norm(
        (fixed + np.stack(read, 1) - moving) * np.asarray(moving_spacing), axis=1
    )


def mean_of_present(values: NDArray[np.float64]) -> float:
    """Return the mean of what is not NaN; NaN of nothing."""
    present = values[~np.isnan(values)]

    return float(present.mean()) if present.size else float("nan")


def aggregate(values: ArrayLike, metric: Metric) -> Aggregate:
    """Return mean, standard deviation and "30" quantile over the cases of a task.

    NaN of a single case makes all three NaN, as in the scorer.

    Args:
        values: one mean per case ``(N,)``.
        metric: decides the quantile: 0.7 for ``sdlogj`` and ``tre``, 0.3 for ``dice`` and
            ``hd95``.
    """
    values = np.asarray(values, dtype=np.float64)
    # Infinite HD95 make the standard deviation inf - inf.
    with np.errstate(invalid="ignore"):
        return Aggregate(
            mean=float(values.mean()),
            std=float(values.std()),
            quantile30=float(np.quantile(values, _QUANTILES[metric])),
        )


def _in_both(fixed: NDArray, moving: NDArray, label: int) -> bool:
    return bool((fixed == label).any() and (moving == label).any())


def _inner_determinant(displacement: NDArray) -> NDArray:
    """Determinants by central differences without the two outer voxels, ``(D-4, H-4, W-4)``.

    The crop also removes what the scorer's zeros beyond the border would have spoiled.
    """
    rows = [
        (_inner(displacement, axis, 1) - _inner(displacement, axis, -1)) / 2 for axis in range(3)
    ]
    matrix = np.stack(rows) + np.eye(3)[:, :, None, None, None]

    return (matrix[0] * np.cross(matrix[1], matrix[2], axis=0)).sum(axis=0)


def _inner(displacement: NDArray, axis: int, step: int) -> NDArray:
    """All voxels but the two outer ones, read one step further along an axis."""
    starts = [_BORDER + step * (a == axis) for a in range(3)]
    sizes = [max(n - 2 * _BORDER, 0) for n in displacement.shape[1:]]
    window = (slice(start, start + n) for start, n in zip(starts, sizes, strict=True))

    return displacement[(slice(None), *window)]
