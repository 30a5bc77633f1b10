"""Pose: the rigid motion between a heart's own frame and the patient's world.

Heart frame: origin at the center of the left ventricular base, z from apex to base, x from the
left ventricle to the right one, y = z x x, which points to the anterior wall in every unmirrored
heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Typical directions in RAS: the apex points left, anterior and down; the right ventricle lies to
# the right and in front. Rounded from anatomy texts, checked against data/human_cine in the tests.
_TYPICAL_Z = (0.58, -0.50, 0.64)
_TYPICAL_X = (0.76, 0.60, -0.22)


@dataclass(frozen=True, eq=False)
class Pose:
    """``world = axes @ heart + origin``.

    Attributes:
        axes: unit vectors x, y, z of the heart frame in world RAS, as columns ``(3, 3)``. The
            determinant is +1, or -1 where a header mirrors the heart.
        origin: world position of the center of the left ventricular base, mm ``(3,)``.
    """

    axes: NDArray[np.float64]
    origin: NDArray[np.float64]

    @classmethod
    def from_directions(
        cls, z: ArrayLike, x: ArrayLike, origin: ArrayLike, *, mirrored: bool = False
    ) -> Pose:
        """Return the pose with z along ``z`` and x the part of ``x`` perpendicular to it."""
        z = np.asarray(z, np.float64) / np.linalg.norm(z)
        x = np.asarray(x, np.float64) - np.dot(x, z) * z
        x = x / np.linalg.norm(x)
        y = np.cross(z, x) * (-1.0 if mirrored else 1.0)
        return cls(np.stack([x, y, z], axis=1), np.asarray(origin, np.float64))

    @property
    def mirrored(self) -> bool:
        """Whether the world of this pose shows the heart as in a mirror."""
        return bool(np.linalg.det(self.axes) < 0)

    def to_world(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map heart-frame points ``(..., 3)`` to world mm."""
        # einsum keeps BLAS out: the same bits for any number of threads.
        return np.einsum("...j,ij->...i", np.asarray(points, np.float64), self.axes) + self.origin

    def to_heart(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map world points ``(..., 3)`` in mm to the heart frame."""
        return np.einsum("...j,ji->...i", np.asarray(points, np.float64) - self.origin, self.axes)


def typical_pose(rng: np.random.Generator | None = None) -> Pose:
    """Return the usual pose of a heart in RAS; with ``rng``, tilted by about 6 degrees.

    The origin is the world's origin: a generated heart has no body around it.
    """
    tilt = np.zeros((2, 3)) if rng is None else rng.normal(scale=0.1, size=(2, 3))
    return Pose.from_directions(_TYPICAL_Z + tilt[0], _TYPICAL_X + tilt[1], np.zeros(3))


def rigid_pose(heart: NDArray, world: NDArray, *, mirrored: bool = False) -> Pose:
    """Return the pose that brings heart-frame points ``(V, 3)`` nearest to world points.

    Reference: Kabsch, Acta Cryst. A 1976. ``mirrored`` asks for a determinant of -1.
    """
    middle, center = heart.mean(axis=0), world.mean(axis=0)
    u, _, vt = np.linalg.svd((world - center).T @ (heart - middle))
    sign = np.sign(np.linalg.det(u @ vt)) * (-1.0 if mirrored else 1.0)
    axes = (u * np.array([1.0, 1.0, sign])) @ vt
    return Pose(axes, center - axes @ middle)
