"""Smooth fields over the surfaces of a heart, and the template's profiles that they vary."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from cardiogen.population.template import COLUMNS, ROWS, RV_ROWS, SEPTAL

Array = NDArray[np.float64]

# (azimuthal order m, polynomial degrees) of the smooth fields on the left ventricle. The constant
# is left out: the solved scales stand for it.
_FIELD_MODES = ((0, (1, 2, 3, 4)), (1, (0, 1, 2)), (2, (0, 1, 2)), (3, (0, 1)))
RV_DEGREES = tuple((i, j) for i in range(4) for j in range(4) if (i, j) != (0, 0))
FIELD_SIZE = sum(len(degrees) * (2 if m else 1) for m, degrees in _FIELD_MODES)


def _height() -> Array:
    """Lattice height of every row, 1 at the base and 0 at the apex, ``(ROWS + 1,)``."""
    return np.linspace(1.0, 0.0, ROWS + 1)


def _column_angle() -> Array:
    """Lattice azimuth of every column, 0 in the middle of the septum, ``(COLUMNS,)``."""
    return 2 * np.pi * (np.arange(COLUMNS) - SEPTAL / 2) / COLUMNS


def field_basis(height: Array, angle: Array) -> Array:
    """Return the smooth left ventricular modes at lattice positions, ``(20, ...)``.

    Mode (m, n) is ``s^m P_n(2 h - 1) cos|sin(m angle)``, s = sin(pi h / 2): single valued at the
    apex (h = 0) and smooth there.
    """
    height, angle = np.broadcast_arrays(height, angle)
    ring = np.sin(np.pi * height / 2)
    modes = []
    for m, degrees in _FIELD_MODES:
        for n in degrees:
            radial = ring**m * legendre.legval(2 * height - 1, np.eye(n + 1)[n])
            modes.append(radial * np.cos(m * angle))
            if m:
                modes.append(radial * np.sin(m * angle))
    return np.stack(modes)


def rv_basis(across: Array, down: Array) -> Array:
    """Return the right ventricular modes ``P_i(across) P_j(2 down - 1)``, ``(15, ...)``."""
    across, down = np.broadcast_arrays(across, down)
    return np.stack(
        [
            legendre.legval(across, np.eye(i + 1)[i])
            * legendre.legval(2 * down - 1, np.eye(j + 1)[j])
            for i, j in RV_DEGREES
        ]
    )


def wall_profile(height: Array, angle: Array) -> Array:
    """Log of the template's relative wall thickness: thick septum, thin apex."""
    apical = np.exp(-((height / 0.16) ** 2))
    return 0.07 * np.sin(np.pi * height / 2) * np.cos(angle) - 0.55 * apical - 0.12 * height**3


def endo_profile(height: Array, angle: Array) -> Array:
    """Log of the template's relative cavity width: drawn in at the base, pointed at the apex."""
    return -0.24 * height**6 - 0.16 * (1 - height) ** 2 + 0.0 * angle


def rv_profile(across: Array, down: Array) -> Array:
    """Relative depth of the right ventricle: blunt at the insertions, tapering to its apex."""
    return np.maximum(1 - across**2, 0.0) ** 0.58 * np.maximum(1 - down**1.3, 0.0) ** 1.1


@cache
def lattice_fields() -> tuple[Array, Array, Array, Array, Array, Array]:
    """Return profiles and bases on the template's own rows and columns.

    Left modes, cavity and wall profiles; right modes and profile; the fade of the right wall
    towards its borders.
    """
    height, angle = _height()[:, None], _column_angle()[None, :]
    across = np.linspace(-1, 1, SEPTAL + 1)[None, :]
    down = np.linspace(0, 1, RV_ROWS + 1)[:, None]
    return (
        field_basis(height, angle),
        endo_profile(height, angle),
        wall_profile(height, angle),
        rv_basis(across, down),
        rv_profile(across, down),
        np.clip(4 * (1 - across**2), 0, 1) ** 0.5 * np.clip(5 * (1 - down), 0, 1) ** 0.5,
    )
