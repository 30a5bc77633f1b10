"""Thickness of the left ventricular wall in mm, from meshes.

Definition: at a vertex of the endocardium, the shortest distance to the triangles of the
epicardium. Lids at the base belong to neither surface.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.mesh import Surface, Topology
from cardiogen.measure.vectors import components, cross, dot, length


def wall_faces(topology: Topology) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the faces of endocardium and epicardium of the left ventricle without their lids.

    A lid bounds both volumes, or joins the two surfaces: the wall of ``LV_ENDO`` are its faces
    that ``LV_EPI`` does not have, that of ``LV_EPI`` those that touch no vertex of ``LV_ENDO``.
    """
    endo, epi = topology.surfaces[Surface.LV_ENDO], topology.surfaces[Surface.LV_EPI]
    size = topology.vertex_count
    keys = [np.sort(faces, axis=1) @ np.array([size * size, size, 1]) for faces in (endo, epi)]
    return endo[~np.isin(*keys)], epi[~np.isin(epi, endo).any(axis=1)]


def mesh_thickness(vertices: ArrayLike, topology: Topology) -> NDArray[np.float64]:
    """Return the distance from every endocardial vertex to the epicardium.

    Args:
        vertices: ``(V, 3)`` or ``(T, V, 3)`` world mm.
        topology: needs ``LV_ENDO`` and ``LV_EPI``.

    Returns:
        ``(V,)`` or ``(T, V)`` mm; NaN at vertices that are not on the endocardial wall.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    endo, epi = wall_faces(topology)
    inner = np.unique(endo)
    frames = vertices.reshape(-1, *vertices.shape[-2:])
    result = np.full(frames.shape[:2], np.nan)
    for frame, out in zip(frames, result, strict=True):
        out[inner] = distance_to_triangles(frame[inner], frame[epi])
    return result.reshape(vertices.shape[:-1])


def distance_to_triangles(
    points: ArrayLike, triangles: ArrayLike, *, candidates: int = 8
) -> NDArray[np.float64]:
    """Return the distance of points ``(N, 3)`` to the nearest of triangles ``(F, 3, 3)``.

    Exact for the ``candidates`` triangles whose centers are nearest, which holds the nearest
    triangle unless triangles differ greatly in size.
    """
    from scipy.spatial import cKDTree

    points, triangles = np.asarray(points), np.asarray(triangles)
    count = min(candidates, len(triangles))
    _, index = cKDTree(triangles.mean(axis=1)).query(points, k=count)
    near = triangles[np.asarray(index).reshape(len(points), count)]
    corners = [components(near[:, :, k]) for k in range(3)]
    return _point_triangle(components(points)[..., None], corners).min(axis=1)


def _point_triangle(points: NDArray, corners: list[NDArray]) -> NDArray[np.float64]:
    """Distance of points to triangles, components first: plane inside, edges else."""
    a, b, c = corners
    normal = cross(b - a, c - a)
    inside = np.ones(np.broadcast_shapes(points.shape, a.shape)[1:], dtype=bool)
    along = np.full(inside.shape, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge, spoke = end - start, points - start
        inside &= dot(cross(edge, spoke), normal) >= 0
        squared = dot(edge, edge)
        share = np.clip(dot(spoke, edge) / np.where(squared > 0, squared, 1.0), 0.0, 1.0)
        along = np.minimum(along, length(spoke - share * edge))
    area = length(normal)
    height = np.abs(dot(points - a, normal)) / np.where(area > 0, area, 1.0)
    return np.where(inside & (area > 0), height, along)
