"""Distances from the surfaces on which contours lie, as maps around the template.

``endo`` is the left endocardium, ``epi`` the left epicardium, ``free`` the outline of both
ventricles without the right wall: the names of ``engine.contours``. The flat base is no surface
here: contours end there, they do not lie on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.data.mesh import Surface
from cardiogen.models.deformation.template import DeformationTemplate

Array = NDArray[np.float64]

_LATERAL = {
    "endo": ("lv_endo",), "epi": ("lv_free_wall", "septum"),
    "free": ("lv_free_wall", "rv_free_wall"),
}  # fmt: skip
_INSIDE = {
    "endo": (Surface.LV_ENDO,), "epi": (Surface.LV_EPI,),
    "free": (Surface.LV_EPI, Surface.RV_ENDO),
}  # fmt: skip
_SPACING_MM = 2.5
_SUBDIVISIONS = 2
_FAR_MM = 25.0  # distances beyond are not told apart


@dataclass(frozen=True, eq=False)
class DistanceMaps:
    """Signed distances, mm, positive outside.

    Attributes:
        names: of the surfaces.
        grid: around the template, heart frame.
        values: ``(1, K, *S)`` float32.
        base: height of the left base plane, mm.
    """

    names: tuple[str, ...]
    grid: Grid
    values: Tensor
    base: float

    @classmethod
    def of(cls, template: DeformationTemplate) -> DistanceMaps:
        """Return the maps of a template with the population's parts."""
        grid = grid_around(template)
        maps = [_lateral_distance(template, name, grid) for name in _LATERAL]
        rim = np.unique(template.topology.parts["lv_rim"])

        return cls(tuple(_LATERAL), grid, torch.from_numpy(np.stack(maps)[None]).float(),
                   float(template.vertices[rim, 2].mean()))  # fmt: skip

    def at(self, points: Tensor, which: Tensor) -> Tensor:
        """Return how far points ``(N, P, 3)`` lie from their surfaces ``(P,)``, ``(N, P)`` mm."""
        # One image, read at all points at once: copies of it would cost more than the reading.
        flat = points.reshape(1, -1, 3)
        found = ops.sample_at_points(self.values.to(points), flat, self.grid)
        found = found.view(*points.shape[:2], -1)

        return found.gather(2, which.view(1, -1, 1).expand(len(points), -1, 1))[..., 0]


def _lateral_distance(template: DeformationTemplate, name: str, grid: Grid) -> Array:
    """Return the distance to the lateral faces of a surface."""
    faces = np.concatenate([template.topology.parts[part] for part in _LATERAL[name]])

    return signed_distance(template, faces, _INSIDE[name], grid)


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
