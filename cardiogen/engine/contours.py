"""Contours of label maps: points on the surfaces of a heart, in world mm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure.frame import lv_frame, stack_axis
from cardiogen.measure.volumes import label_volumes

Array = NDArray[np.float64]

_POINTS_PER_CONTOUR = 24
_SLICE_STEP_MM = 5.0
# Outlines of one surface in a slice on average, and in all. Hearts show 1 to 3 in a slice, noise
# shows thousands, and the memory of a fit grows with every one.
_MOST_PER_SLICE = 20
_MOST_CONTOURS = 1000


@dataclass(frozen=True, eq=False)
class FrameObservation:
    """What a label map of one frame says about the heart's surfaces.

    Attributes:
        points: surface name (``endo``, ``epi``, ``free``) -> world points ``(N, 3)``, mm.
        sigma_mm: SD of these points about the true surface.
        volumes_ml: left cavity, myocardium, right cavity ``(3,)``; NaN where not labeled.
    """

    points: Mapping[str, Array]
    sigma_mm: float
    volumes_ml: Array


def observe_frame(labels: NDArray[np.uint8], grid: Grid) -> FrameObservation:
    """Trace the endocardium, epicardium and right free wall in the slices of a label map.

    Contours are taken in the acquired slices, where they are sharp, and never between slices. Each
    is thinned to 24 points, since neighbors on a contour err together.

    Args:
        labels: structures ``(D, H, W)``.
        grid: their lattice.

    Raises:
        CardiogenError: L60 or L61 if the left ventricle cannot be recognized, L66 for structures
            that lie scattered in more pieces than a heart's.
    """
    frame = lv_frame(labels, grid)
    across = stack_axis(grid)
    if across is None:
        across = int(np.argmax(np.abs(frame.axis @ (grid.affine[:3, :3] / grid.spacing))))
    step = max(1, round(_SLICE_STEP_MM / grid.spacing[across]))
    heart = (labels == Structure.LV) | (labels == Structure.MYO)
    masks = {
        "endo": labels == Structure.LV,
        "epi": heart,
        # The right cavity together with the left ventricle: its outline is the free wall alone.
        "free": heart | (labels == Structure.RV),
    }
    slices = range(0, grid.shape[across], step)
    points = {
        name: _contour_points(mask, labels, grid, across, slices, name)
        for name, mask in masks.items()
    }
    in_plane = np.delete(grid.spacing, across).mean()
    volumes = label_volumes(labels, grid)
    found = np.array([volumes[s][0] for s in (Structure.LV, Structure.MYO, Structure.RV)])
    return FrameObservation(
        points=points,
        # Half a pixel for the tracing, a tenth of the slice distance for what thick slices blur.
        sigma_mm=float(0.5 * in_plane + 0.1 * grid.spacing[across]),
        volumes_ml=np.where(found > 0, found, np.nan),
    )


def _contour_points(
    mask: NDArray[np.bool_],
    labels: NDArray[np.uint8],
    grid: Grid,
    across: int,
    slices: range,
    name: str,
) -> Array:
    """Return world points of the outlines of a mask in the given slices."""
    from skimage.measure import find_contours

    found, outlines, traced = [], 0, 0
    for index in slices:
        plane = np.take(mask, index, axis=across)
        structures = np.take(labels, index, axis=across)
        if not (structures == Structure.LV).any() and name != "free":
            # Below the cavity the outline of the wall says nothing about a ray's end: skip caps.
            continue
        contours = find_contours(np.pad(plane, 1).astype(np.float64), 0.5)
        outlines, traced = outlines + len(contours), traced + bool(contours)
        _require_few(outlines, most=_MOST_CONTOURS)
        for contour in contours:
            contour = _thinned(contour[:-1] - 1.0)
            if name == "free":
                contour = contour[_beside(contour, structures == Structure.RV)]
            voxels = np.insert(contour, across, index, axis=1)
            found.append(grid.to_world(voxels))
    _require_few(outlines, most=_MOST_PER_SLICE * traced)
    return np.concatenate(found) if found else np.empty((0, 3))


def _require_few(outlines: int, *, most: int) -> None:
    """Refuse a surface in more pieces than a heart's (L66)."""
    if outlines > most:
        raise CardiogenError(
            "L66", "labels", found=f"{outlines} outlines or more of one surface, scattered pieces",
            expected=f"a heart, whose slices show up to {_MOST_PER_SLICE} outlines each",
            remedy="labels without stray voxels, or another --label-map",
        )  # fmt: skip


def _thinned(contour: Array) -> Array:
    """Return at most 24 points at equal steps along a closed contour."""
    closed = np.concatenate([contour, contour[:1]])
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    wanted = np.arange(_POINTS_PER_CONTOUR) * length[-1] / _POINTS_PER_CONTOUR
    return np.stack([np.interp(wanted, length, closed[:, k]) for k in (0, 1)], axis=1)


def _beside(contour: Array, region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a contour point is the edge of a region: one of the voxels around it belongs."""
    padded = np.pad(region, 2)
    low = np.floor(contour).astype(int) + 2
    return np.any([padded[low[:, 0] + i, low[:, 1] + j] for i in (0, 1) for j in (0, 1)], axis=0)


def require_heart(labels: NDArray[np.uint8], where: str) -> None:
    """Refuse a frame without all three structures (L37)."""
    missing = [
        s.name for s in (Structure.LV, Structure.MYO, Structure.RV) if not (labels == s).any()
    ]
    if missing:
        raise CardiogenError(
            "L37", where, found=f"no voxel of {', '.join(missing)}", expected="LV, MYO and RV",
            remedy="a complete label map, or another --label-map",
        )  # fmt: skip
