"""Thickness of the left ventricular wall in mm, from labels.

Definition: at a point of the wall, the distance to the endocardium plus the distance to the
epicardium, each the shortest in three dimensions. Between concentric cylinders or spheres that is
the difference of the radii at every point. The cut at the base belongs to neither surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure.frame import LvFrame, lv_frame, opening_faces

_MARGIN = 4  # voxels around the ventricle, enough for the surface and its smoothing
# Stairs of voxels reach towards each other: without smoothing (in voxels) the wall of an analytic
# cylinder or sphere comes out 0.2-0.5 mm too thin at 1.4 mm.
_SMOOTHING = 1.0
_CUT = 2.0  # voxels from the cut at the base within which smoothing rounds the surfaces


def wall_thickness(
    labels: ArrayLike, grid: Grid, *, frame: LvFrame | None = None
) -> NDArray[np.float64]:
    """Return the wall thickness at every voxel of MYO.

    The surfaces are the zeros of smoothed signed distances to the cavity and to cavity + wall. In
    a stack of thick slices these are distances in every slice, interpolated between the slices
    (Raya and Udupa, IEEE TMI 1990), so that the surfaces slope as the heart's do; above the last
    slice they go straight on, and below the first they close within half a step, unless no slice
    shows the cap: then they go straight on there, too.

    Args:
        labels: structures ``(D, H, W)`` of one frame.
        grid: their lattice.
        frame: frame of the left ventricle; found from the labels if None.

    Returns:
        ``(D, H, W)`` mm; NaN outside MYO. Values in the cap of a stack of thick slices lean on
        the half step of closure and are rough.

    Raises:
        CardiogenError: L60 or L61 if there is no left ventricle that could be measured.
    """
    labels = np.asarray(labels)
    frame = frame or lv_frame(labels, grid)
    wall = np.argwhere(labels == Structure.MYO)
    points = grid.to_world(wall)
    endo, epi = lv_surfaces(labels, grid, frame)
    if frame.stack_axis is None:
        # At the cut the surfaces are rounded off: the wall is measured a little below it.
        depth, normal = _below_opening(points, labels, grid)
        points = points - np.maximum(_CUT * frame.step - depth, 0.0)[:, None] * normal
    result = np.full(labels.shape, np.nan)
    result[tuple(wall.T)] = _nearest(points, endo) + _nearest(points, epi)
    return result


def lv_surfaces(
    labels: NDArray, grid: Grid, frame: LvFrame
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return dense points on the endocardium and the epicardium, world mm ``(N, 3)`` each."""
    masks, lattice = _masks(labels, grid, frame)
    if frame.stack_axis is None:
        fields = [_signed_distance(mask, lattice.spacing) for mask in masks]
        endo, epi = (lattice.to_world(_zero_crossings(field)) for field in fields)
        endo, epi = (points[_below_opening(points, labels, grid)[0] > _CUT * frame.step]
                     for points in (endo, epi))  # fmt: skip
    else:
        endo, epi = _stack_surfaces(masks, lattice)
    # Where the cavity is open its outline is the ventricle's too, and there is no wall.
    apart = _nearest(epi, endo) > 0.75 * min(grid.spacing)
    return endo, epi[apart]


def _below_opening(points: NDArray, labels: NDArray, grid: Grid) -> tuple[NDArray, NDArray]:
    """Depth of points ``(N, 3)`` below the plane of the cavity's opening, mm, and its normal."""
    centers, areas = opening_faces(labels, grid)
    normal = areas.sum(axis=0)
    normal = normal / np.linalg.norm(normal)
    return (centers.mean(axis=0) - points) @ normal, normal


def _stack_surfaces(
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]], lattice: Grid
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    used = np.flatnonzero(masks[1].any(axis=(1, 2)))
    first, last = int(used[0]), int(used[-1])
    factor = max(1, round(lattice.spacing[0] / min(lattice.spacing[1:])))
    open_apex = bool(masks[0][first].any())
    surfaces = []
    for mask in masks:
        planes = np.stack([_signed_distance(m, lattice.spacing[1:])
                           for m in mask[first : last + 1]])  # fmt: skip
        crossings = _zero_crossings(_between(_extended(planes, open_apex=open_apex), factor))
        crossings[:, 0] = crossings[:, 0] / factor + first - 1
        surfaces.append(lattice.to_world(crossings))
    return surfaces[0], surfaces[1]


def _masks(
    labels: NDArray, grid: Grid, frame: LvFrame
) -> tuple[tuple[NDArray[np.bool_], NDArray[np.bool_]], Grid]:
    """Masks of cavity and of cavity + wall, cropped; a stack's slices first, apex to base."""
    order, upward = (0, 1, 2), True
    if frame.stack_axis is not None:
        across = frame.stack_axis
        upward = bool(grid.affine[:3, across] @ frame.axis > 0)
        order = (across, *(axis for axis in range(3) if axis != across))
    lattice = grid.permuted(order, (not upward, False, False))
    values = labels.transpose(order)[:: 1 if upward else -1]
    endo = values == Structure.LV
    epi = endo | (values == Structure.MYO)
    inside = np.argwhere(epi)
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    lattice = lattice.cropped(tuple(int(n) - _MARGIN for n in low),
                              tuple(int(n) + 2 * _MARGIN for n in high - low))  # fmt: skip
    return (np.pad(endo[box], _MARGIN), np.pad(epi[box], _MARGIN)), lattice


def _signed_distance(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray:
    """Smoothed signed distance (negative inside) to the outline of a mask, mm; NaN if empty.

    Voxel centers next to the outline are half a voxel away from it.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    if not mask.any():
        return np.full(mask.shape, np.nan)
    half = 0.5 * float(np.mean(spacing))
    outside = distance_transform_edt(~mask, sampling=spacing) - half
    inside = distance_transform_edt(mask, sampling=spacing) - half
    return gaussian_filter(np.where(mask, -inside, outside), _SMOOTHING)


def _extended(distance: NDArray, *, open_apex: bool) -> NDArray:
    """Fill planes without outline and add one plane at either end."""
    filled = np.concatenate([distance[:1] * np.nan, distance, distance[-1:] * np.nan])
    known = np.flatnonzero(np.isfinite(filled[:, 0, 0]))
    for plane in range(len(filled)):
        if plane in known:
            continue
        nearest = known[np.argmin(np.abs(known - plane))]
        filled[plane] = filled[nearest]
        if plane < known[0] and not open_apex:
            # Reaches zero at the deepest point halfway to this plane: a cone of half a step.
            filled[plane] = filled[nearest] - 2.0 * filled[nearest].min()
    return filled


def _between(values: NDArray, factor: int) -> NDArray:
    """Linear interpolation along axis 0 with ``factor`` steps between planes."""
    if factor == 1:
        return values
    position = np.arange((len(values) - 1) * factor + 1) / factor
    lower = np.minimum(position.astype(int), len(values) - 2)
    weight = (position - lower)[:, None, None]
    return (1 - weight) * values[lower] + weight * values[lower + 1]


def _zero_crossings(values: NDArray) -> NDArray[np.float64]:
    """Points ``(N, 3)`` in array coordinates where ``values`` changes sign along an axis."""
    found = []
    for axis in range(3):
        swapped = values.swapaxes(0, axis)
        where = np.argwhere(((swapped[:-1] < 0) != (swapped[1:] < 0)).swapaxes(0, axis))
        ahead = where.copy()
        ahead[:, axis] += 1
        here, there = values[tuple(where.T)], values[tuple(ahead.T)]
        points = where.astype(np.float64)
        points[:, axis] += here / (here - there)
        found.append(points)
    return np.concatenate(found)


def _nearest(points: NDArray, cloud: NDArray) -> NDArray[np.float64]:
    from scipy.spatial import cKDTree

    return cKDTree(cloud).query(points)[0]
