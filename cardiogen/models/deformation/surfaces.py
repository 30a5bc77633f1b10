"""Signed distances from surfaces of the template, on voxels around it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.data.mesh import Surface
from cardiogen.models.deformation.template import DeformationTemplate

Array = NDArray[np.float64]

_SPACING_MM = 2.5
_SUBDIVISIONS = 2
_FAR_MM = 25.0  # distances beyond are not told apart


def grid_around(template: DeformationTemplate) -> Grid:
    """Return the voxels on which maps around the template are kept."""
    low = template.vertices.min(axis=0) - template.margin_mm
    extent = template.vertices.max(axis=0) + template.margin_mm - low
    shape = tuple(int(n) for n in np.ceil(extent / _SPACING_MM) + 1)

    return Grid.regular(shape, (_SPACING_MM,) * 3, tuple(low))


def signed_distance(
    template: DeformationTemplate, faces: Array, inside_of: tuple[Surface, ...], grid: Grid
) -> Array:
    """Return the distance to faces, negative inside any of the closed surfaces, ``(*S)`` mm."""
    from scipy.spatial import cKDTree

    points = dense_points(template.vertices[faces])
    places = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    away, _ = cKDTree(points).query(
        grid.to_world(places.reshape(-1, 3).astype(np.float64)), distance_upper_bound=_FAR_MM
    )
    away = np.minimum(away, _FAR_MM)
    inside = np.zeros(grid.shape, dtype=bool)
    for surface in inside_of:
        closed = np.ascontiguousarray(template.topology.surfaces[surface])
        inside |= ops.voxelize(
            torch.from_numpy(template.vertices), torch.from_numpy(closed), grid
        ).numpy()

    return np.where(inside, -1.0, 1.0) * away.reshape(grid.shape)


def dense_points(triangles: Array) -> Array:
    """Return the corners of triangles that are divided into four, twice."""
    for _ in range(_SUBDIVISIONS):
        a, b, c = np.moveaxis(triangles, 1, 0)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        triangles = np.concatenate([
            np.stack(corners, axis=1)
            for corners in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
        ])  # fmt: skip

    return np.unique(np.round(triangles.reshape(-1, 3), 3), axis=0)
