"""Ray coordinates of the heart: prolate spheroidal coordinates with a radial distance in mm.

A heart frame has its origin at the center of the left ventricular base, z from apex to base, x
from the left ventricle to the right one and y = z x x to the anterior wall. With focal length f
(mm), polar angle mu (0 at the apex, pi/2 at the base) and azimuth theta (0 at the septum, pi/2
anterior),

    r = f sinh(lambda) sin(mu),    z = -f cosh(lambda) cos(mu),

and the radial coordinate is the straight distance from the foot of the ray (lambda = 0),

    D^2 / f^2 = (q - cos^2 mu)^2 - sin^4 mu,    q = cosh(lambda),

which has the closed inverse q = cos^2 mu + sqrt(D^2 / f^2 + sin^4 mu). Rays never cross, so
surfaces D_endo < D_epi < D_free are nested by construction: no fold, hole or self-intersection.

Reference: prolate spheroidal heart models, Nielsen et al., Am J Physiol 260:H1365, 1991.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def ray_points(focal: Array, mu: Array, theta: Array, distance: Array) -> Array:
    """Return heart-frame points ``(..., 3)`` in mm of rays at a distance.

    Args:
        focal: focal length f, mm.
        mu: polar angle, rad.
        theta: azimuth, rad.
        distance: D, mm; at least 0. All four broadcast.
    """
    return points_towards(focal, mu, (np.cos(theta), np.sin(theta)), distance)


def points_towards(
    focal: Array, mu: Array, direction: tuple[Array, Array], distance: Array
) -> Array:
    """Return ``ray_points`` of rays whose cosine and sine of theta are known."""
    cosine, sine = np.cos(mu), np.sin(mu)
    q = cosine**2 + np.sqrt((distance / focal) ** 2 + sine**4)
    radius = focal * np.sqrt(np.maximum(q**2 - 1.0, 0.0)) * sine
    height = -focal * q * cosine
    east, north = direction
    points = np.empty((*np.broadcast_shapes(radius.shape, east.shape, height.shape), 3))
    points[..., 0], points[..., 1], points[..., 2] = radius * east, radius * north, height
    return points


def ray_coordinates(points: Array, focal: Array) -> tuple[Array, Array, Array]:
    """Return (mu, theta, distance) of heart-frame points, the inverse of ``ray_points``.

    Points above the base plane get mu > pi/2 (up to pi).

    Args:
        points: heart-frame positions ``(..., 3)``, mm.
        focal: focal length f, mm, broadcast against the leading axes.
    """
    x, y, z = np.moveaxis(points, -1, 0)
    radius = np.hypot(x, y)
    # Sum and difference of the distances to the foci are 2 f cosh(lambda) and 2 f cos(mu).
    near, far = np.hypot(radius, z + focal), np.hypot(radius, z - focal)
    cosine = np.clip((far - near) / (2 * focal), -1.0, 1.0)
    mu = np.arccos(cosine)
    foot = focal * cosine
    return mu, np.arctan2(y, x), np.hypot(radius, z + foot)


def distance_at(focal: Array, mu: Array, sinh_lambda: Array) -> Array:
    """Return the ray distance D (mm) where ``sinh(lambda)`` has the given value."""
    q = np.sqrt(1.0 + sinh_lambda**2)
    return focal * np.sqrt(np.maximum((q - np.cos(mu) ** 2) ** 2 - np.sin(mu) ** 4, 0.0))
