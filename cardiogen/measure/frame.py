"""Frame of the left ventricle found from labels: long axis, centerline, apical and basal level.

Convention: everything is world mm, so that neither the storage order of the voxels nor the pose of
the grid matters. The axis points from apex to base.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure

# Slices at least this many times as far apart as pixels make a stack: its slices are the planes.
STACK_RATIO = 2.0


@dataclass(frozen=True, eq=False)
class LvFrame:
    """Short-axis planes and centerline of one left ventricle.

    Attributes:
        center: centroid of the cavity, world mm ``(3,)``.
        axis: unit normal of the short-axis planes, apex to base ``(3,)``.
        drift: in-plane shift of the cavity's center per mm along ``axis`` ``(3,)``.
        apex: level of the cavity's apical end, mm along ``axis`` from ``center``.
        base: level of the basal end of the cavity inside its wall, mm.
        step: distance between planes that the voxels resolve, mm.
        stack_axis: array axis across a stack of thick slices, or None for a volume.
    """

    center: NDArray[np.float64]
    axis: NDArray[np.float64]
    drift: NDArray[np.float64]
    apex: float
    base: float
    step: float
    stack_axis: int | None

    def level(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return the height of world points ``(..., 3)`` along the axis, mm."""
        return (np.asarray(points) - self.center) @ self.axis

    def fraction(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return the height of world points between the cavity's apex (0) and base (1)."""
        return (self.level(points) - self.apex) / (self.base - self.apex)

    def radial(self, points: ArrayLike) -> NDArray[np.float64]:
        """Return the in-plane offset of world points from the centerline, ``(..., 3)`` mm."""
        level = self.level(points)[..., None]
        return np.asarray(points) - self.center - level * (self.axis + self.drift)


def stack_axis(grid: Grid) -> int | None:
    """Return the axis across thick slices, or None if the voxels are too cubic to tell."""
    order = np.argsort(grid.spacing)
    coarse = grid.spacing[order[2]] >= STACK_RATIO * grid.spacing[order[1]]
    return int(order[2]) if coarse else None


def face_vectors(grid: Grid) -> NDArray[np.float64]:
    """Return the area vector (mm^2) of a voxel's face on the far side of every axis, rows."""
    columns = grid.affine[:3, :3].T
    turned = np.cross(columns[[1, 2, 0]], columns[[2, 0, 1]])
    return turned * np.sign(np.linalg.det(grid.affine[:3, :3]))


def opening_faces(labels: NDArray, grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the voxel faces of the cavity's opening: where LV meets neither LV nor MYO.

    The area vector of a closed surface vanishes. The sum over the opening is therefore the same
    for every sheet over the wall's rim, and points out of the cavity, from apex to base.

    Args:
        labels: structures ``(D, H, W)``; outside the array is background.
        grid: their lattice.

    Returns:
        Centers ``(N, 3)`` in world mm and area vectors ``(N, 3)`` in mm^2, out of the cavity.
    """
    padded = np.pad(labels, 1)
    inside = padded == Structure.LV
    outside = ~inside & (padded != Structure.MYO)
    vectors = face_vectors(grid)
    centers, areas = [], []
    for axis in range(3):
        here, there = inside.swapaxes(0, axis), outside.swapaxes(0, axis)
        for sign, meets in ((1.0, here[:-1] & there[1:]), (-1.0, here[1:] & there[:-1])):
            where = np.argwhere(meets.swapaxes(0, axis)) - 1.0
            where[:, axis] += 0.5
            centers.append(grid.to_world(where))
            areas.append(np.broadcast_to(sign * vectors[axis], where.shape))
    return np.concatenate(centers), np.concatenate(areas)


def lv_frame(labels: ArrayLike, grid: Grid) -> LvFrame:
    """Find the frame of the left ventricle.

    In a stack of thick slices the short-axis planes are its slices; elsewhere their normal is the
    direction of the cavity's opening, drawn towards the cavity's own long direction by two steps
    ``n <- C n`` with its covariance C (a valve plane may be tilted by 20 degrees). The opening
    tells base from apex in both. ``C n`` is also the regression of the cavity's position on its
    level, the centerline.

    Args:
        labels: structures ``(D, H, W)`` of one frame.
        grid: their lattice.

    Raises:
        CardiogenError: L60 if LV or MYO is absent, L61 if the cavity is not open at one end.
    """
    labels = np.asarray(labels)
    require(labels, Structure.LV, Structure.MYO)
    cavity = grid.to_world(np.argwhere(labels == Structure.LV))
    wall = grid.to_world(np.argwhere(labels == Structure.MYO))
    center = cavity.mean(axis=0)
    covariance = (cavity - center).T @ (cavity - center) / len(cavity)
    opening = opening_faces(labels, grid)[1].sum(axis=0)
    across = stack_axis(grid)
    if across is None:
        axis, step = opening, float(np.cbrt(grid.voxel_volume_ml * 1000.0))
        for _ in range(2):
            axis = covariance @ axis
    else:
        axis = face_vectors(grid)[across]
        step = float(abs(grid.affine[:3, across] @ axis) / np.linalg.norm(axis))
        axis = axis * np.sign(axis @ opening)
    length = float(np.linalg.norm(axis))
    if length == 0 or np.linalg.norm(opening) < np.prod(grid.spacing) / max(grid.spacing):
        raise CardiogenError(
            "L61", "labels", found="a left ventricular cavity without an opening at one end",
            expected="a cavity that the wall closes at the apex and leaves open at the base",
            remedy="labels of the whole ventricle, or another --label-map",
        )  # fmt: skip
    axis = axis / length
    spread = axis @ covariance @ axis
    drift = covariance @ axis / spread - axis if spread > 0 else np.zeros(3)
    levels, wall_levels = (cavity - center) @ axis, (wall - center) @ axis
    return LvFrame(
        center=center,
        axis=axis,
        drift=drift,
        apex=float(levels.min() - step / 2),
        base=float(min(levels.max(), max(wall_levels.max(), levels.min())) + step / 2),
        step=step,
        stack_axis=across,
    )


def require(labels: NDArray, *structures: Structure) -> None:
    """Raise CardiogenError L60 unless every structure is labeled somewhere."""
    missing = [s.name for s in structures if not (labels == s).any()]
    if missing:
        raise CardiogenError(
            "L60", "labels", found=f"no voxel of {', '.join(missing)}",
            expected=f"{', '.join(s.name for s in structures)} in the frame",
            remedy="a frame that shows them, or another --label-map",
        )  # fmt: skip
