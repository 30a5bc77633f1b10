"""Rotation of the short-axis planes, twist and torsion of the left ventricle.

Convention: a rotation is positive if it runs counterclockwise seen from the apex. In a normal
systole the apex then turns by positive and the base by negative angles, and the twist, apex minus
base, is positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.sequence import Orientation
from cardiogen.measure.frame import LvFrame

Array = NDArray[np.float64]
TorsionUnit = Literal["deg/cm", "rad"]

TORSIONS: dict[str, str] = {
    "deg/cm": "twist over the distance of the two levels at ED",
    "rad": "circumferential-longitudinal shear: twist (rad) x mean radius of the wall at ED over "
    "the distance of the two levels at ED",
}
_FEWEST = 8  # points that make a plane
_PLANE_MM = 4.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Twist:
    """How the planes of one left ventricle turn.

    Attributes:
        levels: height of every plane over the cavity's apex at ED, mm ``(K,)``.
        rotation: of every plane from ED, degrees ``(T, K)``.
        twist: mean rotation of the apical third less that of the basal third, degrees ``(T,)``;
            NaN if a third has no plane.
        torsion: ``(T,)`` in ``torsion_unit``.
        torsion_unit: ``deg/cm`` or ``rad``.
        distance_mm: between the mean levels of both thirds at ED.
    """

    levels: Array
    rotation: Array
    twist: Array
    torsion: Array
    torsion_unit: TorsionUnit
    distance_mm: float

    @property
    def definition(self) -> str:
        """What twist and torsion mean, in words."""
        return (
            "rotation about the long axis from ED, counterclockwise seen from the apex is "
            "positive; twist = mean of the apical third - mean of the basal third, "
            f"{self.distance_mm:.1f} mm apart; torsion = {TORSIONS[self.torsion_unit]}"
        )


def lv_twist(
    points: Array,
    moved: Array,
    frame: LvFrame,
    *,
    orientation: Orientation = "trusted",
    torsion: TorsionUnit = "deg/cm",
) -> Twist:
    """Return rotation, twist and torsion of points of the wall.

    The rotation of a plane is that of the best rigid fit in the plane, which neither the shift
    nor the even narrowing of a ring changes:
    ``angle = atan2(sum p x q, sum p . q)`` of positions p at ED and q now, about their means.

    Args:
        points: of the wall at ED, world mm ``(N, 3)``.
        moved: where they are ``(T, N, 3)``.
        frame: frame of the left ventricle at ED. Planes are the slices of a stack, 4 mm slabs of
            a volume; those beyond the cavity's apex and base are left out.
        orientation: ``mirrored`` if the world mirrors the heart, which turns every angle round.
        torsion: unit, and with it the definition, see ``TORSIONS``.
    """
    if torsion not in TORSIONS:
        raise ValueError(f"torsion must be one of {list(TORSIONS)}, got {torsion!r}")
    height = frame.level(points) - frame.apex
    thickness = frame.step if frame.stack_axis is not None else max(_PLANE_MM, frame.step)
    inside = (height >= 0) & (height <= frame.base - frame.apex)
    plane = np.where(inside, np.rint(height / thickness - 0.5).astype(int), -1)
    planes = [k for k in np.unique(plane[inside]) if (plane == k).sum() >= _FEWEST]
    sign = 1.0 if orientation == "mirrored" else -1.0  # the axis points away from the apex
    rotation = [
        sign * _rotation(points[plane == k], moved[:, plane == k], frame.axis) for k in planes
    ]
    levels = np.array([height[plane == k].mean() for k in planes])
    rotation = np.stack(rotation, axis=1) if planes else np.empty((len(moved), 0))
    third = levels * 3 / (frame.base - frame.apex)
    apical, basal = third < 1, third >= 2
    if not (apical.any() and basal.any()):
        return replace(no_twist(len(moved), torsion), levels=levels, rotation=rotation)
    twist = rotation[:, apical].mean(axis=1) - rotation[:, basal].mean(axis=1)
    distance = float(levels[basal].mean() - levels[apical].mean())
    radius = float(np.linalg.norm(frame.radial(points[inside]), axis=1).mean())
    scale = 10.0 / distance if torsion == "deg/cm" else np.pi / 180 * radius / distance
    return Twist(levels=levels, rotation=rotation, twist=twist, torsion=twist * scale,
                 torsion_unit=torsion, distance_mm=distance)  # fmt: skip


def no_twist(frames: int, torsion: TorsionUnit) -> Twist:
    """Return a twist of which nothing is known."""
    nothing = np.full(frames, np.nan)
    return Twist(levels=np.empty(0), rotation=np.empty((frames, 0)), twist=nothing,
                 torsion=nothing, torsion_unit=torsion, distance_mm=float("nan"))  # fmt: skip


def _rotation(points: Array, moved: Array, axis: Array) -> Array:
    """Angle about ``axis`` of the best rigid fit in the plane, degrees ``(T,)``."""
    start = points - points.mean(axis=0)
    now = moved - moved.mean(axis=1, keepdims=True)
    start = start - (start @ axis)[:, None] * axis
    now = now - (now @ axis)[..., None] * axis
    sine = (np.cross(start, now) @ axis).sum(axis=1)
    cosine = (start * now).sum(axis=(1, 2))
    return np.degrees(np.arctan2(sine, cosine))
