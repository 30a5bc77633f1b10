"""Material motion: where every point of a heart, blood and surroundings included, goes with time.

A point keeps its lattice row and column and its relative place between the surfaces of its ray:
blood scales with the cavity, the wall keeps the area fraction (D^2 - e^2) / (p^2 - e^2) as an
incompressible cylinder would, the right cavity keeps the linear fraction. Mesh vertices therefore
move exactly as the meshes do, but for those of the right base: it is no lattice surface, and what
lies over it (atrium, outflow tract) is not modeled. Outside the heart the motion fades to nothing
within some 50 mm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.population.anatomy import ray_surfaces
from cardiogen.population.coordinates import COORDINATES, twist_angle
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.lattice import bilinear, lattice_angles, lattice_position, ray_lattices
from cardiogen.population.rays import ray_coordinates, ray_points

Array = NDArray[np.float64]

_FADE_MM = 25.0


class HeartFrame:
    """One heart at one phase: ray coordinates of points and the surfaces on their rays.

    Attributes:
        coordinates: shape coordinates ``(1, P)``.
    """

    def __init__(self, coordinates: Array) -> None:
        self.coordinates = coordinates.reshape(1, -1)
        surfaces = ray_surfaces(self.coordinates)
        self._lattices = ray_lattices(surfaces)
        self._focal = surfaces["focal"][:, None]
        self._descent = float(self.coordinates[0, COORDINATES["descent"]][0])

    def locate(self, points: Array) -> tuple[Array, Array, Array]:
        """Return row, column and ray distance (mm) of heart-frame points ``(N, 3)``."""
        raised = points[None] + np.array([0.0, 0.0, self._descent])
        mu, theta, distance = ray_coordinates(raised, self._focal)
        theta = theta - self._twist(raised[..., 2])
        row, column = lattice_position(self.coordinates, mu, theta)
        return row[0], column[0], distance[0]

    def place(self, row: Array, column: Array, distance: Array) -> Array:
        """Return the heart-frame points ``(N, 3)`` of lattice positions, the inverse."""
        mu, theta = lattice_angles(self.coordinates, row[None], column[None])
        points = ray_points(self._focal, mu, theta, distance[None])
        turn = self._twist(points[..., 2])
        x, y, z = np.moveaxis(points, -1, 0)
        cosine, sine = np.cos(turn), np.sin(turn)
        turned = [cosine * x - sine * y, sine * x + cosine * y, z - self._descent]
        return np.stack(turned, axis=-1)[0]

    def surfaces(self, row: Array, column: Array) -> tuple[Array, Array, Array]:
        """Return the distances of endocardium, epicardium and right free wall, ``(N,)`` mm.

        Off the septum the third equals the second.
        """
        found = (bilinear(self._lattices[name], row[None], column[None])[0]
                 for name in ("endo", "epi", "free"))  # fmt: skip
        endo, epi, free = found
        return endo, epi, np.maximum(free, epi)

    def _twist(self, z: Array) -> Array:
        return twist_angle(self.coordinates, np.arccos(np.clip(-z / self._focal, 0, 1)))


def move_points(points: Array, start: HeartFrame, end: HeartFrame) -> Array:
    """Move heart-frame points from one phase of a heart to another.

    Args:
        points: ``(N, 3)`` mm at the phase of ``start``.
        start, end: the heart at both phases.

    Returns:
        ``(N, 3)`` mm at the phase of ``end``.
    """
    row, column, distance = start.locate(points)
    before, after = start.surfaces(row, column), end.surfaces(row, column)
    moved = end.place(row, column, _transfer(distance, before, after))
    outside = np.maximum(distance - before[2], 0.0)
    # Above the base the rays end in the atria, which are not modeled: they fade with height.
    above = np.maximum(-row, 0.0) * 5.0
    weight = np.exp(-((np.hypot(outside, above) / _FADE_MM) ** 2))[:, None]
    return points + weight * (moved - points)


def _transfer(
    distance: Array, before: tuple[Array, Array, Array], after: tuple[Array, Array, Array]
) -> Array:
    """Map ray distances so that every surface goes to itself, monotonically."""
    (e0, p0, r0), (e1, p1, r1) = before, after
    blood = distance / e0 * e1
    wall = np.clip((distance**2 - e0**2) / (p0**2 - e0**2), 0, 1)
    myocardium = np.sqrt(e1**2 + wall * (p1**2 - e1**2))
    depth = np.maximum(r0 - p0, 1e-9)
    right = p1 + np.clip((distance - p0) / depth, 0, 1) * (r1 - p1)
    regions = [distance <= e0, distance <= p0, distance <= r0]
    return np.select(regions, [blood, myocardium, right], distance - r0 + r1)


def heart_frame(heart: PopulationHeart, phase: float) -> HeartFrame:
    """Return a population heart at one phase."""
    return HeartFrame(heart.coordinates([phase])[0])


def displacement_field(
    heart: PopulationHeart, grid: Grid, *, from_phase: float, to_phase: float
) -> Array:
    """Return the exact displacement ``from_to`` on a grid, ``(3, D, H, W)`` in voxels.

    ``warp(image at to_phase, field)`` gives the image at ``from_phase``; points at ``from_phase``
    move by the field to where they are at ``to_phase``.
    """
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    voxels = voxels.reshape(-1, 3).astype(np.float64)
    points = heart.pose.to_heart(grid.to_world(voxels))
    moved = move_points(points, heart_frame(heart, from_phase), heart_frame(heart, to_phase))
    field = grid.to_voxel(heart.pose.to_world(moved)) - voxels
    return field.T.reshape(3, *grid.shape)
