"""Anatomy: shape coordinates of a heart -> biventricular mesh with exactly given volumes.

One frame of one heart is a short vector of unconstrained numbers, the shape coordinates
(``coordinates.py``). Three of them are log volumes (mL) of left cavity, myocardium and right
cavity; the others shape the surfaces along the rays of ``rays.py`` without changing those volumes,
because three scales (cavity width, wall thickness, right ventricular depth) are solved for.
Distances along a ray are positive and ordered, whatever the numbers: hearts whose shape
coordinates all lie five of the population's SDs off at once still have no crossing faces;
overflowing numbers are refused.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.mesh import Surface
from cardiogen.population.coordinates import (
    COORDINATE_COUNT,
    COORDINATES,
    azimuths,
    polar_angles,
    turned_points,
)
from cardiogen.population.rays import distance_at, points_towards, ray_points
from cardiogen.population.right_base import base_heights, base_points
from cardiogen.population.shape_fields import lattice_fields
from cardiogen.population.template import (
    COLUMNS,
    LV_CENTER,
    ROWS,
    RV_LID,
    RV_ROWS,
    SEPTAL,
    VERTEX_COUNT,
    template_topology,
)

Array = NDArray[np.float64]

_RV_WALL_MM = 3.0
_SOLVER_STEPS = 20
_VOLUME_TOLERANCE = 1e-8


def _field(coordinates: Array, name: str, basis: Array) -> Array:
    # einsum without BLAS: the same bits for any number of threads and frames.
    return np.einsum("tk,kij->tij", coordinates[:, COORDINATES[name]], basis)


def signed_volume_ml(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Return the volume that closed, outward faces bound, ``(T,)`` mL."""
    # Coordinates first, and no index checked: gathering is several times faster so. It leaves rows
    # whose sums are taken in one order: a frame alone is the same bits as among others.
    x, y, z = np.ascontiguousarray(np.moveaxis(vertices, -1, 0))
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (
        tuple(each.take(corner, axis=1, mode="clip") for each in (x, y, z))
        for corner in np.ascontiguousarray(faces.T)
    )
    triple = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    return triple.sum(axis=1) / 6000.0


def _solve_scale(
    volume_of: Callable[[Array], Array], target: Array, start: Array, name: str
) -> Array:
    """Return s with ``volume_of(s) = target`` by the secant rule on logarithms, for all frames.

    A frame that has converged no longer moves, so its result does not depend on its neighbors.
    """
    previous, current = np.log(start) - 0.02, np.log(start)
    target = np.log(target)
    error_before = np.log(volume_of(np.exp(previous))) - target
    for _ in range(_SOLVER_STEPS):
        error = np.log(volume_of(np.exp(current))) - target
        open_ = np.abs(error) > 1e-12
        if not open_.any():
            break
        slope = np.where(open_, error - error_before, 1.0)
        step = np.clip(error * (current - previous) / np.where(slope == 0, 1.0, slope), -0.7, 0.7)
        step = np.where(open_, step, 0.0)
        previous, error_before, current = current, error, current - step
    residual = np.abs(np.log(volume_of(np.exp(current))) - target)
    if not (residual < _VOLUME_TOLERANCE).all():
        raise ValueError(
            f"coordinates: no {name} gives the wanted volume, residual {residual.max():.1e}"
        )
    return np.exp(current)


def _rings(points: Array) -> Array:
    """Flatten lattice points (T, ROWS + 1, COLUMNS, 3) to rings and one apex vertex."""
    rings = points[:, :ROWS].reshape(len(points), ROWS * COLUMNS, 3)
    return np.concatenate([rings, points[:, ROWS, :1]], axis=1)


def ray_surfaces(coordinates: Array) -> dict[str, Array]:
    """Return the ray distances of all surfaces of every frame.

    Args:
        coordinates: shape coordinates ``(T, COORDINATE_COUNT)``.

    Returns:
        ``focal`` (T,), ``mu`` (T, R), ``theta`` (T, R, C), ``endo`` and ``epi`` distances
        (T, R, C) on rows R = ROWS + 1, and on the septal patch ``free`` and ``outer``
        (T, RV_ROWS + 1, SEPTAL + 1); mm and rad, heart frame, before twist and descent.
    """
    basis, endo0, wall0, basis_rv, profile_rv, fade = lattice_fields()
    faces = template_topology().parts
    volumes = np.exp(coordinates[:, COORDINATES["log_volume"]])
    focal = np.exp(coordinates[:, COORDINATES["log_focal"]])[..., None]
    mu = polar_angles(coordinates)[..., None]
    theta = azimuths(coordinates, mu[..., 0])
    shape = theta.shape
    # Cosines and sines once: the volumes below are measured some twenty times.
    towards = np.cos(theta), np.sin(theta)

    def place(distance: Array) -> Array:
        # Turned, for the twist shears the facets and with them the volume, by some 1e-4.
        return turned_points(
            _rings(points_towards(focal, mu, towards, distance)), focal, coordinates
        )

    width = np.exp(endo0 + _field(coordinates, "endo", basis))
    wall = np.exp(wall0 + _field(coordinates, "wall", basis))

    def endo_at(scale: Array) -> Array:
        return distance_at(focal, mu, scale[:, None, None] * width)

    def lv_volume(scale: Array) -> Array:
        return signed_volume_ml(place(endo_at(scale)), faces["lv_endo"])

    endo = endo_at(_solve_scale(lv_volume, volumes[:, 0], np.full(len(mu), 0.3), "cavity width"))

    epi_faces = np.concatenate([faces["lv_free_wall"], faces["septum"]]) - (ROWS * COLUMNS + 1)

    def epi_volume(scale: Array) -> Array:
        return signed_volume_ml(place(endo + scale[:, None, None] * wall), epi_faces)

    total = volumes[:, 0] + volumes[:, 1]
    epi = (
        endo + wall * _solve_scale(epi_volume, total, np.full(len(mu), 7.0), "wall")[:, None, None]
    )

    patch = (slice(None), slice(RV_ROWS + 1), slice(SEPTAL + 1))
    depth = profile_rv * np.exp(_field(coordinates, "rv", basis_rv))
    surfaces = {
        "focal": focal[:, 0, 0],
        "mu": mu[..., 0],
        "theta": theta,
        "endo": endo,
        "epi": epi,
    }
    dome = base_heights(coordinates[:, COORDINATES["rv_dome"]])
    rv_faces = template_topology().surfaces[Surface.RV_ENDO]

    # Only what bounds the cavity is turned and measured, and of that only the free wall moves.
    used, own = np.unique(rv_faces, return_inverse=True)
    own = own.reshape(rv_faces.shape)
    rings = _wall_rings(surfaces)

    def rv_volume(scale: Array) -> Array:
        free = epi[patch] + scale[:, None, None] * depth
        mesh = _assemble(surfaces | {"free": free, "outer": free, "dome": dome}, rings)
        return signed_volume_ml(turned_points(mesh[:, used], focal, coordinates), own)

    scale = _solve_scale(rv_volume, volumes[:, 2], np.full(shape[0], 40.0), "right depth")
    free = epi[patch] + scale[:, None, None] * depth
    return surfaces | {"free": free, "outer": free + _RV_WALL_MM * fade, "dome": dome}


def _wall_rings(surfaces: dict[str, Array]) -> Array:
    """Place the vertices of both left walls, ``(T, LV_CENTER, 3)``."""
    focal, mu, theta = surfaces["focal"][:, None, None], surfaces["mu"], surfaces["theta"]
    towards = np.cos(theta), np.sin(theta)
    rings = [
        _rings(points_towards(focal, mu[..., None], towards, surfaces[name]))
        for name in ("endo", "epi")
    ]
    return np.concatenate(rings, axis=1)


def _assemble(surfaces: dict[str, Array], rings: Array | None = None) -> Array:
    """Place all vertices in the heart frame, without twist and descent, ``(T, V, 3)``.

    Args:
        surfaces: see :func:`ray_surfaces`.
        rings: of :func:`_wall_rings`, where they are known.
    """
    focal, mu, theta = (
        surfaces["focal"][:, None, None],
        surfaces["mu"][..., None],
        surfaces["theta"],
    )
    frames = len(theta)
    vertices = np.zeros((frames, VERTEX_COUNT, 3))
    vertices[:, :LV_CENTER] = _wall_rings(surfaces) if rings is None else rings
    rows, columns = slice(RV_ROWS), slice(1, SEPTAL)
    sheets = [
        ray_points(focal, mu[:, rows], theta[:, rows, columns], surfaces[name][:, rows, columns])
        for name in ("free", "outer")
    ]
    sheets_flat = np.concatenate([s.reshape(frames, -1, 3) for s in sheets], axis=1)
    vertices[:, LV_CENTER + 1 : RV_LID.start] = sheets_flat
    base = base_points(surfaces, surfaces["dome"])
    vertices[:, RV_LID] = base.reshape(frames, -1, 3)
    return vertices


def heart_vertices(coordinates: Array) -> Array:
    """Return the mesh of every frame in the heart frame.

    Args:
        coordinates: shape coordinates ``(T, COORDINATE_COUNT)``.

    Returns:
        Vertices ``(T, V, 3)`` in mm on ``template_topology()``. Volumes of ``LV_ENDO``,
        ``LV_EPI - LV_ENDO`` and ``RV_ENDO`` equal the log volumes given, to 1e-8 relative.

    Raises:
        ValueError: if no heart has these coordinates (non-finite or absurd numbers).
    """
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] != COORDINATE_COUNT:
        raise ValueError(
            f"coordinates must have shape (T, {COORDINATE_COUNT}), got {coordinates.shape}"
        )
    if not np.isfinite(coordinates).all():
        raise ValueError("coordinates must be finite, got NaN or infinity")
    # Absurd numbers overflow here; the residual of the volumes tells.
    with np.errstate(all="ignore"):
        surfaces = ray_surfaces(coordinates)
    vertices = turned_points(_assemble(surfaces), surfaces["focal"], coordinates)
    vertices[..., 2] -= coordinates[:, COORDINATES["descent"]]
    return vertices
