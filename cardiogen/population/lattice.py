"""Where rays meet the surfaces: predicted and observed distances of points along their rays."""

from __future__ import annotations

from collections.abc import Sequence as Listing

import numpy as np
from numpy.typing import NDArray

from cardiogen.population.anatomy import ray_surfaces
from cardiogen.population.coordinates import COORDINATES, insertion_angles, twist_angle
from cardiogen.population.rays import ray_coordinates
from cardiogen.population.template import COLUMNS, ROWS, RV_ROWS, SEPTAL

Array = NDArray[np.float64]

# Numbers in one temporary array, 8 MB: it takes some twenty of them to place points.
_MOST_AT_ONCE = 1_000_000


def lattice_position(coordinates: Array, mu: Array, theta: Array) -> tuple[Array, Array]:
    """Return fractional row (0 base) and column of rays, before the twist, each ``(T, N)``.

    Args:
        coordinates: shape coordinates ``(T, P)``.
        mu: polar angles ``(T, N)``, rad.
        theta: azimuths ``(T, N)``, rad.
    """
    rv_apex = np.exp(coordinates[:, COORDINATES["rv_apex"]])
    half_turn = np.pi / 2
    upper = (half_turn - mu) / (half_turn - rv_apex) * RV_ROWS
    lower = RV_ROWS + (1 - mu / rv_apex) * (ROWS - RV_ROWS)
    row = np.where(mu >= rv_apex, upper, lower)
    middle, half = insertion_angles(coordinates, mu)
    away = np.mod(theta - middle + np.pi, 2 * np.pi) - np.pi
    septal = (away / half + 1) / 2 * SEPTAL
    past = np.mod(away - half, 2 * np.pi)
    free = SEPTAL + past / (2 * np.pi - 2 * half) * (COLUMNS - SEPTAL)
    return row, np.where(np.abs(away) <= half, septal, free)


def lattice_angles(coordinates: Array, row: Array, column: Array) -> tuple[Array, Array]:
    """Return polar angle and azimuth of lattice positions ``(T, N)``, before the twist.

    The inverse of :func:`lattice_position`.
    """
    rv_apex = np.exp(coordinates[:, COORDINATES["rv_apex"]])
    half_turn = np.pi / 2
    upper = half_turn + (rv_apex - half_turn) * row / RV_ROWS
    lower = rv_apex * (ROWS - row) / (ROWS - RV_ROWS)
    mu = np.where(row <= RV_ROWS, upper, lower)
    middle, half = insertion_angles(coordinates, mu)
    septal = middle + half * (2 * column / SEPTAL - 1)
    share = (column - SEPTAL) / (COLUMNS - SEPTAL)
    free = middle + half + (2 * np.pi - 2 * half) * share
    return mu, np.where(column <= SEPTAL, septal, free)


def ray_lattices(surfaces: dict[str, Array]) -> dict[str, Array]:
    """Return endo, epi and free-wall distances on the whole lattice, ``(T, R, C)``.

    The free wall hangs on the septum; elsewhere it is the epicardium.
    """
    free = surfaces["epi"].copy()
    free[:, : RV_ROWS + 1, : SEPTAL + 1] = surfaces["free"]
    return {"endo": surfaces["endo"], "epi": surfaces["epi"], "free": free}


def bilinear(values: Array, row: Array, column: Array) -> Array:
    """Interpolate lattice values (T, R, C), periodic in columns, at (T, N) positions."""
    frames = np.arange(len(values))[:, None]
    row = np.clip(row, 0, values.shape[1] - 1)
    top = np.minimum(row.astype(int), values.shape[1] - 2)
    left = np.floor(column).astype(int)
    down, right = row - top, column - left
    a, b = values[frames, top, left % COLUMNS], values[frames, top, (left + 1) % COLUMNS]
    c, d = values[frames, top + 1, left % COLUMNS], values[frames, top + 1, (left + 1) % COLUMNS]
    return (a * (1 - right) + b * right) * (1 - down) + (c * (1 - right) + d * right) * down


def surface_distances(
    coordinates: Array, points: Array, which: NDArray[np.int64], names: Listing[str]
) -> tuple[Array, Array, Array]:
    """Return where points lie along their rays, and where the surfaces do.

    Args:
        coordinates: shape coordinates ``(T, P)`` of T hearts.
        points: heart-frame positions ``(N, 3)``, mm, the same for all T.
        which: index into ``names`` of the surface that each point belongs to, ``(N,)``.
        names: of ``endo``, ``epi``, ``free``; the last is the epicardium off the septum.

    Returns:
        Distances of the points and of the surfaces along their rays, and heights of the points
        over the base plane, each ``(T, N)`` mm.
    """
    surfaces = ray_surfaces(coordinates)
    chunk = max(1, _MOST_AT_ONCE // len(coordinates))
    if len(points) <= chunk:
        return _distances(coordinates, surfaces, points, which, names)
    # Every point is placed by itself.
    parts = [slice(first, first + chunk) for first in range(0, len(points), chunk)]
    found = [_distances(coordinates, surfaces, points[p], which[p], names) for p in parts]
    observed, predicted, height = (
        np.concatenate(rows, axis=1) for rows in zip(*found, strict=True)
    )
    return observed, predicted, height


def _distances(
    coordinates: Array,
    surfaces: dict[str, Array],
    points: Array,
    which: NDArray[np.int64],
    names: Listing[str],
) -> tuple[Array, Array, Array]:
    focal = surfaces["focal"][:, None]
    raised = np.repeat(points[None], len(coordinates), axis=0)
    raised[..., 2] += coordinates[:, COORDINATES["descent"]]
    mu, theta, observed = ray_coordinates(raised, focal)
    height = np.clip(-raised[..., 2] / focal, 0, 1)
    theta = theta - twist_angle(coordinates, np.arccos(height))
    row, column = lattice_position(coordinates, mu, theta)
    lattices = ray_lattices(surfaces)
    predicted = np.empty_like(observed)
    for index, name in enumerate(names):
        mine = which == index
        predicted[:, mine] = bilinear(lattices[name], row[:, mine], column[:, mine])
    return observed, predicted, raised[..., 2]
