"""Directions of the left ventricular wall at ED: radial, circumferential, longitudinal.

Convention: rows of ``(N, 3, 3)``, unit vectors in world axes. Radial points outward,
circumferential is ``longitudinal x radial`` and, with the cylinder's axes, longitudinal points
from apex to base. Normal strains do not depend on these signs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.measure.frame import LvFrame
from cardiogen.measure.strain_tensor import slice_normal
from cardiogen.measure.thickness import lv_surfaces

Array = NDArray[np.float64]
Directions = Literal["cylindrical", "wall"]

DIRECTIONS: dict[str, str] = {
    "cylindrical": "radial in the short-axis plane away from the centerline, longitudinal along "
    "the long axis",
    "wall": "circumferential about the centerline in the short-axis plane, radial across the wall "
    "from endocardium to epicardium, longitudinal along the wall",
}


def cylinder_axes(points: Array, frame: LvFrame) -> Array:
    """Return the directions of a cylinder about the centerline, ``(N, 3, 3)``.

    NaN at points on the centerline, where no direction is radial.

    Args:
        points: world mm ``(N, 3)`` at ED.
        frame: frame of the left ventricle.
    """
    return _triad(_unit(frame.radial(points)), frame.axis)


def planar_axes(points: Array, frame: LvFrame, grid: Grid, across: int) -> Array:
    """Return the directions in the slices, whose normal takes the place of the long axis."""
    normal = slice_normal(grid, across)
    normal = normal * np.sign(normal @ frame.axis)
    radial = frame.radial(points)
    return _triad(_unit(radial - (radial @ normal)[:, None] * normal), normal)


def wall_axes(points: Array, frame: LvFrame, labels: NDArray, grid: Grid) -> Array:
    """Return directions that follow the wall where it leans, as it does near the apex.

    Circumferential is that of the cylinder. Radial is the way from the nearest point of the
    endocardium to the nearest of the epicardium, as far as it is perpendicular to that: stairs of
    voxels would turn it in the plane, where the centerline knows better. Longitudinal is
    perpendicular to both, so in the wall.

    Args:
        points: world mm ``(N, 3)`` of the wall at ED.
        frame: frame of the left ventricle.
        labels: structures ``(D, H, W)`` at ED.
        grid: their lattice.
    """
    from scipy.spatial import cKDTree

    inner, outer = (cloud[cKDTree(cloud).query(points)[1]]
                    for cloud in lv_surfaces(labels, grid, frame))  # fmt: skip
    around = cylinder_axes(points, frame)[:, 1]
    through = outer - inner
    radial = _unit(through - (through * around).sum(axis=1, keepdims=True) * around)
    return np.stack([radial, around, np.cross(radial, around)], axis=1)


def _triad(radial: Array, axis: Array) -> Array:
    along = np.broadcast_to(axis, radial.shape)
    return np.stack([radial, np.cross(along, radial), along], axis=1)


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 1e-9, length, np.nan)
