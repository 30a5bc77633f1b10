"""The base of the right ventricle: a dome over the base plane that sinks in during systole.

In diastole the base bulges over the plane, most of all in front, where the outflow tract lies. In
systole the tricuspid side descends further than the mitral one, so the middle of the base goes
below the plane. It sinks along the rays of the heart, always between septum and free wall.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.population.rays import ray_points
from cardiogen.population.template import LID_LAYERS, RV_ROWS, SEPTAL

Array = NDArray[np.float64]

_DEEPEST = 0.5  # share of the rows of the right ventricle that the base may sink through
# Width over which the base changes from bulging to sinking: a sharp change would be a jump of its
# velocity in the middle of systole.
_BLEND_MM = 3.0


def base_heights(dome: Array) -> Array:
    """Return the height over the base plane of the inner points of the base, mm.

    Args:
        dome: height of the middle and anterior weight ``(T, 2)``. A sinking base sinks most at the
            inferior, tricuspid side.

    Returns:
        ``(T, LID_LAYERS - 1, SEPTAL - 1)``, from septum to free wall and from the inferior
        insertion to the anterior one.
    """
    height, anterior = np.moveaxis(dome, -1, 0)[..., None, None]
    across = np.linspace(-1, 1, SEPTAL + 1)[1:-1]
    depth = np.linspace(0, 1, LID_LAYERS + 1)[1:-1, None]
    bump = (4 * depth * (1 - depth)) ** 0.7 * (1 - across**2) ** 0.7
    side = height / np.hypot(height, _BLEND_MM)  # 1 over the plane, -1 below it
    return height * np.exp(side * anterior * across) * bump


def base_points(surfaces: dict[str, Array], heights: Array) -> Array:
    """Place the inner points of the right base, ``(T, LID_LAYERS - 1, SEPTAL - 1, 3)`` mm.

    Args:
        surfaces: see ``anatomy.ray_surfaces``.
        heights: see :func:`base_heights`.
    """
    focal = surfaces["focal"][:, None, None]
    mu = surfaces["mu"][:, : RV_ROWS + 1]
    row_mm = surfaces["focal"] * (mu[:, 0] - mu[:, -1]) / RV_ROWS
    raised = (heights + np.hypot(heights, _BLEND_MM)) / 2
    sunk = (raised - heights) / row_mm[:, None, None]
    # Towards its deepest level the base saturates smoothly instead of stopping.
    limit = _DEEPEST * RV_ROWS
    row = limit * np.tanh(sunk / limit)
    columns = slice(1, SEPTAL)
    epi = _at_row(surfaces["epi"][:, : RV_ROWS + 1, columns], row)
    free = _at_row(surfaces["free"][:, :, columns], row)
    theta = _at_row(surfaces["theta"][:, : RV_ROWS + 1, columns], row)
    level = _at_row(np.broadcast_to(mu[..., None], surfaces["free"].shape)[:, :, columns], row)
    share = np.linspace(0, 1, LID_LAYERS + 1)[1:-1, None]
    points = ray_points(focal, level, theta, epi + share * (free - epi))
    points[..., 2] += raised
    return points


def _at_row(values: Array, row: Array) -> Array:
    """Interpolate values (T, R, C) linearly at fractional rows (T, L, C)."""
    top = np.minimum(row.astype(int), values.shape[1] - 2)
    upper = np.take_along_axis(values, top, axis=1)
    lower = np.take_along_axis(values, top + 1, axis=1)
    return upper + (row - top) * (lower - upper)
