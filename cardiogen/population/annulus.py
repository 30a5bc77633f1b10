"""The incompressible twisting annulus: a left ventricle whose strain is known in closed form.

A thick-walled cylinder narrows, shortens and twists without changing the volume of any part
(det F = 1). In its own frame (z from apex to base, x to the right ventricle, y = z x x),

    r^2 = r_i^2 + (R^2 - R_i^2) / l,    z = l Z,    angle = Theta + w Z,

    E_rr = ((R / (r l))^2 - 1) / 2,     E_cc = ((r / R)^2 - 1) / 2,
    E_zz = (l^2 + w^2 r^2 - 1) / 2,     E_cz = w r^2 / (2 R).

Outside the wall the same formulas go on, so that differences across its borders are as exact as
inside. They end where the cavity would close, a little inside the endocardium (2.6 mm at full
contraction): from there to the axis blood follows ``r = R (a + b (R / R_j)^q)``, continuous in
value and slope and one-to-one, but not incompressible.

Reference: incompressible finite deformation of a thick-walled cylinder, Guccione et al., J
Biomech Eng 113:42, 1991. No passive mechanics here, the deformation is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.grid import Grid
from cardiogen.population.pose import Pose

Array = NDArray[np.float64]

# Muscle that closes the apical end, and depth of the right ventricle, mm. Below the cavity the cap
# moves as the blood above it does: what is said of the wall does not hold there.
CAP_MM = 8.0
CRESCENT_MM = 20.0

# Share of the contracted radius squared down to which the formula of the wall holds.
_KEPT = 0.5
# Part of the blood's contraction that is even: keeps det F positive on the axis.
_EVEN = 0.3
_HALVINGS = 60


class RingStrain(NamedTuple):
    """Strain on rings of the annulus, fractions.

    Attributes:
        radius: r after the deformation, mm.
        rr, cc, zz, cz: Green-Lagrange components (radial, circumferential, longitudinal, shear).
        engineering_rr, engineering_cc, engineering_zz: relative changes of length.
    """

    radius: Array
    rr: Array
    cc: Array
    zz: Array
    cz: Array
    engineering_rr: Array
    engineering_cc: Array
    engineering_zz: Array


@dataclass(frozen=True, kw_only=True)
class Annulus:
    """Shape at ED and deformation of the annulus.

    Attributes:
        inner_ed, outer_ed: radii R_i and R_o of the wall at ED, mm.
        length: of the cavity at ED, mm; Z runs from 0 at its apical end to this.
        inner: radius r_i of the endocardium after the deformation, mm.
        stretch: l, longitudinal stretch.
        twist: w, rad of rotation about z per mm of Z; positive makes a positive clinical twist.
    """

    inner_ed: float = 25.0
    outer_ed: float = 35.0
    length: float = 80.0
    inner: float = 17.0
    stretch: float = 0.85
    twist: float = float(np.radians(12.0) / 80.0)

    def __post_init__(self) -> None:
        if not 0 < self.inner_ed < self.outer_ed or min(self.inner, self.stretch) <= 0:
            raise ValueError(f"radii and stretch must be positive and ordered, got {self}")
        if self.stretch * self.inner**2 > self.inner_ed**2 * (1 + 1e-12):
            raise ValueError(
                "the cavity must not grow from ED (blood has no closed form then), got "
                f"{self.stretch * self.inner**2 / self.inner_ed**2:.3f} of its volume at ED"
            )

    def at(self, contraction: float) -> Annulus:
        """Return the annulus at a part of its deformation: 0 at ED, 1 at full contraction.

        r_i, l and w change linearly, so every state is incompressible.
        """
        return replace(
            self,
            inner=self.inner_ed + contraction * (self.inner - self.inner_ed),
            stretch=1.0 + contraction * (self.stretch - 1.0),
            twist=contraction * self.twist,
        )

    @property
    def outer(self) -> float:
        """Radius of the epicardium after the deformation, mm."""
        return float(np.sqrt(self._square(np.array(self.outer_ed))))

    @property
    def ejection_fraction(self) -> float:
        """Share of the cavity's volume that the deformation empties."""
        return 1.0 - self.stretch * self.inner**2 / self.inner_ed**2

    def strain(self, radius_ed: ArrayLike) -> RingStrain:
        """Return the strain on rings of radius R at ED (mm), where the wall's formula holds."""
        big = np.asarray(radius_ed, dtype=np.float64)
        if (big < self._inmost).any():
            raise ValueError(
                f"radius_ed must be {self._inmost:.2f} mm or more for a closed form, "
                f"got {big.min():.2f}"
            )
        r, length, w = np.sqrt(self._square(big)), self.stretch, self.twist
        radial, around, along = big / (r * length), r / big, np.sqrt(length**2 + (w * r) ** 2)
        return RingStrain(
            r, (radial**2 - 1) / 2, (around**2 - 1) / 2, (along**2 - 1) / 2, w * r**2 / (2 * big),
            radial - 1, around - 1, along - 1,
        )  # fmt: skip

    def deform(self, points: ArrayLike) -> Array:
        """Return where points ``(..., 3)`` of the annulus' frame at ED go, mm."""
        points = np.asarray(points, dtype=np.float64)
        x, y, z = np.moveaxis(points, -1, 0)
        return self._placed(x, y, self._narrowed(np.hypot(x, y)), z * self.stretch, self.twist * z)

    def undeform(self, points: ArrayLike) -> Array:
        """Return where points ``(..., 3)`` were at ED, the inverse of ``deform``."""
        points = np.asarray(points, dtype=np.float64)
        x, y, z = np.moveaxis(points, -1, 0)
        before = z / self.stretch
        return self._placed(x, y, self._widened(np.hypot(x, y)), before, -self.twist * before)

    @staticmethod
    def _placed(x: Array, y: Array, radius: Array, z: Array, turn: Array) -> Array:
        """Points at another radius, turned; the axis stays where it is."""
        now = np.hypot(x, y)
        scale = np.where(now > 0, radius / np.where(now > 0, now, 1.0), 0.0)
        cosine, sine = np.cos(turn), np.sin(turn)
        return np.stack([scale * (cosine * x - sine * y), scale * (sine * x + cosine * y), z], -1)

    def _square(self, radius_ed: Array) -> Array:
        return self.inner**2 + (radius_ed**2 - self.inner_ed**2) / self.stretch

    @property
    def _inmost(self) -> float:
        """Radius R_j at ED down to which the formula of the wall holds, mm."""
        return float(np.sqrt(self.inner_ed**2 - (1 - _KEPT) * self.stretch * self.inner**2))

    def _blood(self) -> tuple[float, float, float, float]:
        """Return R_j and a, b, q of the blood's contraction."""
        edge = self._inmost
        ratio = float(np.sqrt(self._square(np.array(edge)))) / edge
        slope = 1.0 / (ratio * self.stretch)
        rest = (1.0 - _EVEN) * ratio
        return edge, _EVEN * ratio, rest, max(slope - ratio, 0.0) / rest

    def _narrowed(self, radius_ed: Array) -> Array:
        edge, even, rest, power = self._blood()
        inside = np.minimum(radius_ed / edge, 1.0)
        blood = radius_ed * (even + rest * inside**power)
        return np.where(radius_ed < edge, blood, np.sqrt(np.maximum(self._square(radius_ed), 0)))

    def _widened(self, radius: Array) -> Array:
        """Return R of r: closed in the wall and beyond, by halving intervals in the blood."""
        edge = self._inmost
        square = self.inner_ed**2 + self.stretch * (radius**2 - self.inner**2)
        wall = np.sqrt(np.maximum(square, 0.0))
        inside = radius < float(self._narrowed(np.array(edge)))
        blood = radius[inside]
        low, high = np.zeros_like(blood), np.full_like(blood, edge)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = self._narrowed(middle) < blood
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        wall[inside] = (low + high) / 2
        return wall


def annulus_displacement(annulus: Annulus, grid: Grid, pose: Pose) -> Array:
    """Return the exact displacement from ED on a grid, ``ed_to_frame (3, D, H, W)`` in voxels.

    Args:
        annulus: the deformation.
        grid: any lattice, oblique and anisotropic alike.
        pose: from the annulus' frame to the world; its origin is the center of the apical end.
    """
    voxels = _voxels(grid)
    moved = pose.to_world(annulus.deform(pose.to_heart(grid.to_world(voxels))))
    return (grid.to_voxel(moved) - voxels).T.reshape(3, *grid.shape)


def annulus_grid(
    annulus: Annulus, pose: Pose, spacing: tuple[float, float, float], *, margin_mm: float = 12.0
) -> Grid:
    """Return a short-axis grid around an annulus with cap and right ventricle at ED.

    D runs to the apex, H down, W away from the right ventricle, as in ``short_axis_grid``.
    """
    axes = -pose.axes[:, [2, 1, 0]]
    step = np.asarray(spacing, dtype=np.float64)
    left = annulus.outer_ed + margin_mm
    right = left + CRESCENT_MM
    low = np.array([-annulus.length - margin_mm, -right, -right])
    high = np.array([CAP_MM + margin_mm, right, left])
    # Half a step from the origin keeps the flat ends off the voxel centers.
    first, last = np.floor(low / step - 0.5) + 0.5, np.ceil(high / step - 0.5) + 0.5
    shape = tuple(int(n) for n in last - first + 1)
    return Grid.regular(shape, step, pose.origin + axes @ (first * step), axes)


def _voxels(grid: Grid) -> Array:
    indices = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    return np.stack(indices, axis=-1).reshape(-1, 3).astype(np.float64)
