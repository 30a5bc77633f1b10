"""Shape coordinates of a heart: what each number is, and the angles that some of them set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.population.shape_fields import FIELD_SIZE, RV_DEGREES
from cardiogen.population.template import COLUMNS, ROWS, RV_ROWS, SEPTAL

Array = NDArray[np.float64]

# Name -> number of coordinates, in the order of the vector.
_SIZES = {
    "log_volume": 3,  # left cavity, myocardium, right cavity; log mL
    "log_focal": 1,  # focal length; log mm (left ventricular length is a little more)
    "descent": 1,  # shift of the whole heart towards the apex, mm (the base's descent in systole)
    "twist": 2,  # rotation at base and apex about the long axis, rad, seen from the base
    "rv_apex": 1,  # polar angle where the right ventricle ends; log rad
    "rv_center": 2,  # azimuth of the septum's middle: mean, and slope from apex to base; rad
    "rv_width": 2,  # half angle between the insertions: log rad, and its slope
    "rv_dome": 2,  # height of the right base over the plane, mm (below it if < 0); anterior weight
    "endo": FIELD_SIZE,  # log relative width of the left cavity
    "wall": FIELD_SIZE,  # log relative wall thickness
    "rv": len(RV_DEGREES),  # log relative depth of the right ventricle
}
_ENDS = np.cumsum(list(_SIZES.values()))
COORDINATES: dict[str, slice] = {
    name: slice(int(end) - size, int(end))
    for (name, size), end in zip(_SIZES.items(), _ENDS, strict=True)
}
COORDINATE_COUNT = int(_ENDS[-1])


def polar_angles(coordinates: Array) -> Array:
    """Return mu of every row, base first and apex last, ``(T, ROWS + 1)``."""
    rv_apex = np.exp(coordinates[:, COORDINATES["rv_apex"]])
    upper = np.linspace(0, 1, RV_ROWS + 1)
    lower = np.linspace(0, 1, ROWS - RV_ROWS + 1)[1:]
    half = np.pi / 2
    return np.concatenate([half + (rv_apex - half) * upper, rv_apex * (1 - lower)], axis=1)


def insertion_angles(coordinates: Array, mu: Array) -> tuple[Array, Array]:
    """Return azimuths of the septum's middle and its half width at mu, each ``(T, R)``."""
    height = mu / (np.pi / 2)
    center = coordinates[:, COORDINATES["rv_center"]]
    width = coordinates[:, COORDINATES["rv_width"]]
    return (
        center[:, :1] + center[:, 1:] * (height - 0.5),
        np.exp(width[:, :1] + width[:, 1:] * (height - 0.5)),
    )


def azimuths(coordinates: Array, mu: Array) -> Array:
    """Return theta of every lattice point before the twist, ``(T, ROWS + 1, COLUMNS)``."""
    middle, half = (a[..., None] for a in insertion_angles(coordinates, mu))
    septal = np.linspace(-1, 1, SEPTAL + 1)
    free = np.linspace(0, 1, COLUMNS - SEPTAL + 1)[1:-1]
    return np.concatenate(
        [middle + half * septal, middle + half + (2 * np.pi - 2 * half) * free], axis=-1
    )


def twist_angle(coordinates: Array, mu: Array) -> Array:
    """Return the rotation at polar angle mu, rad: linear from apex to base."""
    twist = coordinates[:, COORDINATES["twist"]]
    height = np.clip(mu / (np.pi / 2), 0, 1)
    return twist[:, 1:] + (twist[:, :1] - twist[:, 1:]) * height


def turned_points(points: Array, focal: Array, coordinates: Array) -> Array:
    """Rotate heart-frame points ``(T, N, 3)`` by the twist at their height."""
    height = np.clip(-points[..., 2] / focal.reshape(-1, 1), 0, 1)
    angle = twist_angle(coordinates, np.arccos(height))
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y, z = np.moveaxis(points, -1, 0)
    turned = np.empty_like(points)
    turned[..., 0], turned[..., 1] = cosine * x - sine * y, sine * x + cosine * y
    turned[..., 2] = z
    return turned
