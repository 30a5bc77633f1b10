"""Axes of a heart, found from its mesh or its labels: where slices lie and cameras look from.

Convention: ``long_axis`` points from apex to base, ``rightward`` from LV to RV at a right angle to
it; both are unit vectors of world RAS. Voxel axes are never trusted to know them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface, Topology


@dataclass(frozen=True, eq=False)
class HeartAxes:
    """Pose of a heart in the world.

    Attributes:
        center: centroid of the LV blood pool, world RAS mm ``(3,)``.
        long_axis: unit vector from apex to base ``(3,)``.
        rightward: unit vector from LV to RV, orthogonal to ``long_axis`` ``(3,)``.
        apex_mm: position of the LV pool's apex along ``long_axis`` from ``center`` (negative).
        base_mm: position of its base.
        low: smallest coordinates of the heart along (rightward, anterior, long_axis) from
            ``center``, mm ``(3,)``.
        high: largest coordinates ``(3,)``.
    """

    center: NDArray[np.float64]
    long_axis: NDArray[np.float64]
    rightward: NDArray[np.float64]
    apex_mm: float
    base_mm: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def frame(self) -> NDArray[np.float64]:
        """Unit vectors (rightward, anterior, long_axis) as rows ``(3, 3)``."""
        return np.stack([self.rightward, self.anterior, self.long_axis])

    @property
    def middle(self) -> NDArray[np.float64]:
        """Center of the box around the heart, world RAS mm ``(3,)``."""
        return self.center + (self.low + self.high) / 2 @ self.frame

    def spanning(self, pool: NDArray[np.float64]) -> HeartAxes:
        """Return the same pose with apex and base of another frame's LV points ``(N, 3)``."""
        along = (pool - self.center) @ self.long_axis
        return replace(self, apex_mm=float(along.min()), base_mm=float(along.max()))

    @property
    def anterior(self) -> NDArray[np.float64]:
        """Unit vector orthogonal to both, toward the anterior wall in a heart of true hand."""
        return np.cross(self.long_axis, self.rightward)

    def level(self, fraction: float) -> NDArray[np.float64]:
        """Return the world point at a fraction of the LV pool's length, 0 apex to 1 base."""
        along = self.apex_mm + fraction * (self.base_mm - self.apex_mm)
        return self.center + along * self.long_axis


def axes_from_mesh(vertices: NDArray[np.float64], topology: Topology) -> HeartAxes:
    """Return the axes of one mesh frame ``(V, 3)``.

    The base is told from the apex by AHA segments (1-6 basal, 13-17 apical) where the mesh has
    them, otherwise by its base patch.

    Raises:
        ValueError: if the topology lacks LV or RV, or all that tells base from apex.
    """
    missing = {Surface.LV_ENDO, Surface.RV_ENDO} - set(topology.surfaces)
    if missing:
        raise ValueError(f"topology must have LV_ENDO and RV_ENDO, got none of {missing}")
    pool = vertices[np.unique(topology.surfaces[Surface.LV_ENDO])]
    right = vertices[np.unique(topology.surfaces[Surface.RV_ENDO])].mean(axis=0)
    segment = topology.aha_segment
    basal, apical = np.isin(segment, range(1, 7)), np.isin(segment, range(13, 18))
    if basal.any() and apical.any():
        towards_base = vertices[basal].mean(axis=0) - vertices[apical].mean(axis=0)
    elif "base" in topology.parts:
        towards_base = vertices[np.unique(topology.parts["base"])].mean(axis=0) - pool.mean(axis=0)
        axis = _principal_axis(pool)
        towards_base = axis * np.copysign(1.0, axis @ towards_base)
    else:
        raise ValueError("topology must have AHA segments or a base patch to tell base from apex")
    outer = topology.surfaces.get(Surface.EPI, topology.all_faces)
    return _axes(pool, right, towards_base, vertices[np.unique(outer)])


def axes_from_labels(labels: NDArray[np.integer], grid: Grid) -> HeartAxes:
    """Return the axes of one label map ``(D, H, W)`` of structures, as ``lv_frame`` finds them.

    Raises:
        CardiogenError: L60 if a structure is absent, L61 if the LV pool is not open at one end.
    """
    from cardiogen.measure.frame import lv_frame, require

    frame = lv_frame(labels, grid)
    require(labels, Structure.RV)
    pool, right = (grid.to_world(np.argwhere(labels == s)) for s in (Structure.LV, Structure.RV))
    heart = grid.to_world(np.argwhere(labels != Structure.BACKGROUND))
    return _axes(pool, right.mean(axis=0), frame.axis, heart)


def _principal_axis(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.eigh(np.cov(points.T))[1][:, -1]


def _axes(
    pool: NDArray[np.float64],
    right: NDArray[np.float64],
    towards_base: NDArray[np.float64],
    heart: NDArray[np.float64],
) -> HeartAxes:
    center = pool.mean(axis=0)
    long_axis = towards_base / np.linalg.norm(towards_base)
    rightward = right - center
    rightward = rightward - (rightward @ long_axis) * long_axis
    rightward = rightward / np.linalg.norm(rightward)
    along = (pool - center) @ long_axis
    frame = np.stack([rightward, np.cross(long_axis, rightward), long_axis])
    inside = (heart - center) @ frame.T
    return HeartAxes(
        center=center,
        long_axis=long_axis,
        rightward=rightward,
        apex_mm=float(along.min()),
        base_mm=float(along.max()),
        low=inside.min(axis=0),
        high=inside.max(axis=0),
    )
