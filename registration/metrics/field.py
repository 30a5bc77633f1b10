"""Regularity of a displacement: folds, spread of log det J, change of volume in the myocardium.

Convention: ``J = d(x + u)/dx``. Folds are counted by the ten determinants of ``ops.folding``;
``det J`` by central differences serves the spread alone, since it can miss folds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops

LOG_BOUNDS = (1e-9, 1e9)
DILATION_MM = 5.0


@dataclass(frozen=True)
class FieldMetrics:
    """Regularity of one displacement; NaN where its region is empty.

    Attributes:
        folding_fraction: share of cells in which the field is not one-to-one.
        folding_fraction_myocardium: the same, in the myocardium dilated by 5 mm.
        nonpositive_fraction: share of voxels with ``det J <= 0`` by central differences.
        sdlogj: standard deviation of ``log det J``.
        det_error_myocardium: mean ``|det J - 1|`` over the myocardium, 0 if incompressible.
    """

    folding_fraction: float
    folding_fraction_myocardium: float
    nonpositive_fraction: float
    sdlogj: float
    det_error_myocardium: float


def field_metrics(
    displacement: Tensor,
    *,
    spacing: tuple[float, float, float],
    mask: NDArray[np.bool_] | None = None,
    myocardium: NDArray[np.bool_] | None = None,
) -> FieldMetrics:
    """Return how regular a displacement is.

    Folds: cells (between neighboring voxels) whose corners all lie in the region.
    ``SDlogJ = std(log(clip(det J, 1e-9, 1e9)))`` over the region's interior voxels, where central
    differences exist. A determinant that is not positive has no logarithm; clipped it enters with
    -20.7, so that folds raise the spread (left out, they would lower it), and
    ``nonpositive_fraction`` says how many there are.

    Args:
        displacement: ``(1, 3, D, H, W)``, voxels.
        spacing: mm along (d, h, w).
        mask: region ``(D, H, W)``; None is the whole grid.
        myocardium: its voxels on the same grid; without it the two measures of it are NaN.
    """
    shape = tuple(displacement.shape[2:])
    region = np.ones(shape, dtype=bool) if mask is None else mask
    field = displacement.detach().double().cpu()
    folded = ops.folding(field).mask[0].numpy()
    determinant = ops.jacobian_determinant(field)[0, 0].numpy()
    inner = determinant[region & interior(shape)]
    wall = near_wall = np.zeros(shape, dtype=bool)
    if myocardium is not None:
        wall = myocardium & region & interior(shape)
        near_wall = dilate(myocardium, spacing=spacing, by_mm=DILATION_MM) & region

    return FieldMetrics(
        folding_fraction=_mean(folded[cells_within(region)]),
        folding_fraction_myocardium=_mean(folded[cells_within(near_wall)]),
        nonpositive_fraction=_mean(inner <= 0),
        sdlogj=sd_log(inner),
        det_error_myocardium=_mean(abs(determinant[wall] - 1)),
    )


def sd_log(determinants: NDArray[np.float64]) -> float:
    """Return ``std(log(clip(det, 1e-9, 1e9)))`` (population); NaN of none."""
    if not determinants.size:
        return float("nan")

    return float(np.log(determinants.clip(*LOG_BOUNDS)).std())


def interior(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the voxels with neighbors on both sides; axes of one or two voxels do not count."""
    inside = np.zeros(shape, dtype=bool)
    inside[tuple(slice(1, -1) if n > 2 else slice(None) for n in shape)] = True

    return inside


def cells_within(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the cells whose corner voxels all lie in the region, ``(D-1, H-1, W-1)``.

    An axis of one voxel gives one cell, as in ``ops.folding``.
    """
    for axis, size in enumerate(region.shape):
        if size > 1:
            low, high = np.arange(size - 1), np.arange(1, size)
            region = region.take(low, axis) & region.take(high, axis)

    return region


def dilate(
    region: NDArray[np.bool_], *, spacing: tuple[float, float, float], by_mm: float
) -> NDArray[np.bool_]:
    """Return the voxels at most ``by_mm`` away from a voxel of the region."""
    from scipy.ndimage import distance_transform_edt

    if not region.any():
        return region

    return distance_transform_edt(~region, sampling=spacing) <= by_mm


def check_displacement(displacement: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return one finite displacement on the CPU, or say what is wrong with it."""
    ops.check_shape(displacement, "1 3 D H W", "displacement",
                    **dict(zip("DHW", shape, strict=True)))  # fmt: skip
    field = displacement.detach().cpu()
    bad = int((~torch.isfinite(field)).sum())
    if bad:
        raise ValueError(f"displacement must be finite, got {bad} values that are not")

    return field


def _mean(values: NDArray) -> float:
    return float(values.mean()) if values.size else float("nan")
