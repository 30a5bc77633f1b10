"""Material contours on the wall of a heart mesh: where rays from the centerline leave it at ED.

Convention: rings of levels (apex to base) by angles about the long axis. Every point is a fixed
combination of the corners of one triangle, so it moves with the mesh exactly and on any topology.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.mesh import Surface, Topology
from cardiogen.measure.frame import LvFrame
from cardiogen.measure.mesh_thickness import wall_faces

Array = NDArray[np.float64]

LEVELS, ANGLES = 20, 72
_EDGE = 1e-9  # a ray through an edge belongs to both triangles, not to neither


@dataclass(frozen=True, eq=False)
class MaterialPoints:
    """Points that move with a mesh.

    Attributes:
        corners: vertex indices ``(..., 3)``.
        weights: of the corners ``(..., 3)``, sum 1; NaN where a ray left the mesh nowhere.
    """

    corners: NDArray[np.int64]
    weights: Array

    def at(self, vertices: Array) -> Array:
        """Return their positions ``(T, ..., 3)`` on meshes ``(T, V, 3)``."""
        return np.einsum("...k,t...kc->t...c", self.weights, vertices[:, self.corners])

    @property
    def nearest(self) -> NDArray[np.int64]:
        """Vertex that every point is nearest to in weight ``(...)``."""
        largest = np.argmax(self.weights, axis=-1)[..., None]
        return np.take_along_axis(self.corners, largest, axis=-1)[..., 0]


@dataclass(frozen=True, eq=False)
class WallLattice:
    """Rings and apex of one surface of the wall: ``rings (LEVELS, ANGLES)``, ``apex (1,)``."""

    rings: MaterialPoints
    apex: MaterialPoints


def mesh_frame(vertices: Array, wall: NDArray[np.int64]) -> LvFrame:
    """Return the frame of the left ventricle of one mesh, as ``lv_frame`` does from labels.

    The axis is the direction of the cavity's opening drawn towards its long direction by two
    steps ``n <- C n``; the base is the lowest point of the opening's rim, so that every ring
    below it is closed.

    Args:
        vertices: ``(V, 3)`` world mm at ED.
        wall: outward faces ``(F, 3)`` of the endocardium, open at the base.

    Raises:
        ValueError: if the surface has no opening.
    """
    edges = np.sort(wall[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    lines, uses = np.unique(edges, axis=0, return_counts=True)
    rim = np.unique(lines[uses == 1])
    a, b, c = np.moveaxis(vertices[wall], 1, 0)
    axis = -np.cross(b - a, c - a).sum(axis=0) / 2.0  # the area vectors of a closed surface cancel
    if rim.size == 0 or np.linalg.norm(axis) < 1.0:
        raise ValueError("wall must be open at the base, got a closed endocardium")
    center, covariance = _moments(vertices[wall], vertices[rim].mean(axis=0))
    for _ in range(2):
        axis = covariance @ axis
        axis = axis / np.linalg.norm(axis)
    drift = covariance @ axis / (axis @ covariance @ axis) - axis
    level = (vertices - center) @ axis
    base, apex = float(level[rim].min()), float(level[wall].min())
    return LvFrame(center, axis, drift, apex, base, (base - apex) / LEVELS, None)


def _moments(triangles: Array, top: Array) -> tuple[Array, Array]:
    """Centroid ``(3,)`` and covariance ``(3, 3)`` of the cavity below a flat lid through ``top``.

    Seen from a point of the lid, the lid itself has no volume.
    """
    corners = triangles - top
    volume = np.linalg.det(corners) / 6.0  # of the tetrahedron from the top to a face
    total, sums = volume.sum(), corners.sum(axis=1)
    centroid = (volume[:, None] * sums).sum(axis=0) / 4.0 / total
    squares = np.einsum("f,fki,fkj->ij", volume, corners, corners)
    squares = squares + np.einsum("f,fi,fj->ij", volume, sums, sums)
    return top + centroid, squares / 20.0 / total - np.outer(centroid, centroid)


def lv_walls(topology: Topology) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Return the faces of endocardium and epicardium without lids; None without ``LV_EPI``.

    A mesh whose epicardium encloses both ventricles has none of the left one alone.
    """
    if Surface.LV_ENDO not in topology.surfaces:
        raise ValueError(f"topology must have LV_ENDO, got {sorted(topology.surfaces)}")
    if Surface.LV_EPI not in topology.surfaces:
        return topology.surfaces[Surface.LV_ENDO], None
    return wall_faces(topology)


def wall_lattice(vertices: Array, faces: NDArray[np.int64], frame: LvFrame) -> WallLattice:
    """Return the rings of one surface of a mesh at ED, at the same places for every surface.

    Args:
        vertices: ``(V, 3)`` world mm.
        faces: of the surface ``(F, 3)``.
        frame: frame of the left ventricle; rings lie midway between LEVELS + 1 planes from the
            cavity's apex to its base.
    """
    share = (np.arange(LEVELS) + 0.5) / LEVELS
    height = frame.apex + share * (frame.base - frame.apex)
    origins = frame.center + height[:, None] * (frame.axis + frame.drift)
    seed = np.eye(3)[np.argmin(np.abs(frame.axis))]
    first = np.cross(frame.axis, seed) / np.linalg.norm(np.cross(frame.axis, seed))
    angle = 2 * np.pi * np.arange(ANGLES) / ANGLES
    around = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * np.cross(frame.axis, first)
    down = -(frame.axis + frame.drift)[None]
    hits = [ray_hits(origin, around, vertices, faces) for origin in origins]
    rings = MaterialPoints(*(np.stack(part) for part in zip(*hits, strict=True)))
    return WallLattice(
        rings, MaterialPoints(*ray_hits(origins[LEVELS // 2], down, vertices, faces))
    )


def ray_hits(
    origin: Array, directions: Array, vertices: Array, faces: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Array]:
    """Return where rays from one origin first meet a surface.

    Solves ``origin + s d = a + u (b - a) + v (c - a)`` for all pairs (Moeller and Trumbore, J.
    Graphics Tools 1997).

    Args:
        origin: ``(3,)``.
        directions: ``(N, 3)``.
        vertices: ``(V, 3)``.
        faces: ``(F, 3)``.

    Returns:
        Corners ``(N, 3)`` of the triangles met and weights ``(N, 3)``, NaN where none is met.
    """
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    first, second, start = b - a, c - a, origin - a
    normal, turned = np.cross(first, second), np.cross(start, first)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = -1.0 / (directions @ normal.T)  # (N, F)
        distance = scale * (start * normal).sum(axis=1)
        u = scale * (directions @ np.cross(second, start).T)
        v = scale * (directions @ turned.T)
        met = (u >= -_EDGE) & (v >= -_EDGE) & (u + v <= 1 + _EDGE) & (distance > 0)
    nearest = np.argmin(np.where(met, distance, np.inf), axis=1)
    rows = np.arange(len(directions))
    u, v = u[rows, nearest], v[rows, nearest]
    weights = np.stack([1 - u - v, u, v], axis=1)
    weights[~met[rows, nearest]] = np.nan
    return faces[nearest], weights
