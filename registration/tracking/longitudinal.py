"""Motion through the slices, inferred where it cannot be seen: one shortening for the ventricle.

Slices far apart show the heart in their planes only. With the apex at rest, muscle at height z
goes to ``l z``, and the ventricle shortens as its cavity narrows,

    l(t) = 1 - s c(t),    c(t) = 1 - C(t) / C(ED) over its maximum,

with C the cavity's area in the slices between apex and base, which in-plane tracking sees well.
For s there are two witnesses:

* The wall. Muscle is all but incompressible, so what the wall of a slice gains in area it loses in
  height: ``l A_t(l z) = A_ED(z)``. Tracking errors of a tenth of the wall's thickness are errors
  of a tenth in A and so in l (measured on the population: -.05 to -.2, as thickening is smoothed
  away), therefore ``s_wall ~ N(s, .1^2 + spread^2 / n)`` from n slices.
* Physiology. The mitral ring descends by 12 to 15 mm of some 90 mm where the cavity narrows by 55
  to 60 %, and both fall together in failing hearts: ``s ~ N(c_max / 4, (.08 c_max)^2)``.

s is their most probable value, bounded by 0 and .2. Nothing is inferred where slices differ by
more than that whole range, where the cavity hardly narrows, or where the witnesses contradict
each other by more than two standard deviations.

Muscle that moves along the wall follows its shape: with the center c and the radius rho of the
wall at ED, ``(z, x)`` goes to ``(l z, c(l z) + rho(l z) / rho(z) (x - c(z)))``. This is a model,
not a measurement: outside the left ventricle it says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid, Structure
from cardiogen.measure import LvFrame

Array = NDArray[np.float64]

_LOW, _HIGH = 0.2, 0.72
_TRIALS = np.linspace(0.7, 1.15, 451)
_LEAST_RADIUS = 0.5
_FEWEST = 2
# Shortening over the narrowing of the cavity, and what remains unknown of it.
_EXPECTED, _EXPECTED_SD = 0.25, 0.08
_WALL_SD = 0.1
_MOST = 0.2
_LEAST_NARROWING = 0.05
_CONTRADICTION_SD = 2.0


@dataclass(frozen=True, eq=False)
class WallShape:
    """The left ventricle at ED, slice by slice.

    Attributes:
        apex: position of the wall's apical end along axis 0, voxels.
        centers: in-plane center of the cavity's axis ``(D, 2)``, voxels.
        radii: radius of a disk as large as cavity and wall ``(D,)``, voxels, bounded from below.
        areas: of the wall ``(D,)``, voxels.
        usable: slices that tell of the longitudinal stretch ``(D,)``.
    """

    apex: float
    centers: Array
    radii: Array
    areas: Array
    usable: NDArray[np.bool_]


def wall_shape(labels: NDArray, grid: Grid, frame: LvFrame) -> WallShape:
    """Return the shape of the left ventricle in labels ``(D, H, W)`` of slices along axis 0."""
    depth = len(labels)
    wall = (labels == Structure.MYO).sum(axis=(1, 2)).astype(np.float64)
    disk = wall + (labels == Structure.LV).sum(axis=(1, 2))
    levels = np.flatnonzero(disk > 0)
    upward = (grid.affine[:3, 0] @ frame.axis) > 0
    apex = levels[0] - 0.5 if upward else levels[-1] + 0.5
    line = frame.center + np.outer(_levels_mm(grid, frame, depth), frame.axis + frame.drift)
    radii = np.sqrt(disk / np.pi)
    radii = np.interp(np.arange(depth), levels, radii[levels])
    fraction = frame.fraction(line)

    return WallShape(
        apex=float(apex),
        centers=grid.to_voxel(line)[:, 1:],
        radii=np.maximum(radii, _LEAST_RADIUS * radii.max()),
        areas=wall,
        usable=(fraction > _LOW) & (fraction < _HIGH) & (wall > 0),
    )


def _levels_mm(grid: Grid, frame: LvFrame, depth: int) -> Array:
    middle = [(n - 1) / 2 for n in grid.shape[1:]]
    slices = np.array([[d, *middle] for d in range(depth)])

    return frame.level(grid.to_world(slices))


@dataclass(frozen=True, eq=False, kw_only=True)
class Shortening:
    """How far the ventricle shortens, by either witness.

    Attributes:
        course: c, narrowing of the cavity in every frame over its maximum ``(T,)``; 0 at ED.
        narrowing: c_max, the largest narrowing.
        wall: s that every slice's wall tells of ``(n,)``.
    """

    course: Array
    narrowing: float
    wall: Array

    @property
    def spread(self) -> float:
        """Standard deviation between slices."""
        return float(self.wall.std(ddof=1))

    @property
    def value(self) -> float:
        """The most probable s, 0 to .2."""
        expected, prior = _EXPECTED * self.narrowing, (_EXPECTED_SD * self.narrowing) ** 2
        share = prior / (prior + self._wall_variance)
        found = expected + share * (float(np.median(self.wall)) - expected)

        return min(max(found, 0.0), _MOST)

    @property
    def doubt(self) -> str:
        """Why nothing should be inferred, or nothing."""
        if self.narrowing < _LEAST_NARROWING:
            return f"the cavity narrows by {self.narrowing:.1%} only"
        if self.spread > _MOST:
            return f"the slices contradict each other: shortening differs by {self.spread:.0%}"
        found, expected = float(np.median(self.wall)), _EXPECTED * self.narrowing
        prior = (_EXPECTED_SD * self.narrowing) ** 2
        if abs(found - expected) > _CONTRADICTION_SD * np.sqrt(prior + self._wall_variance):
            verb = "lengthen" if found < 0 else "shorten"
            return (
                f"by its wall's volume the ventricle would {verb} by {abs(found):.0%} while its "
                f"cavity narrows by {self.narrowing:.0%}, which is not plausible"
            )
        return ""

    @property
    def _wall_variance(self) -> float:
        return _WALL_SD**2 + self.spread**2 / len(self.wall)


def shortening(in_plane: Tensor, labels: NDArray, shape: WallShape, *, ed: int) -> Shortening:
    """Return what cavity and wall tell of the ventricle's shortening.

    Args:
        in_plane: ``ed_to_frame`` in the planes ``(T, 3, D, H, W)``, voxels.
        labels: structures at ED ``(D, H, W)``.
        shape: of the left ventricle, with two usable slices at least.
        ed: frame of end diastole.
    """
    ratio = ops.jacobian_determinant(in_plane)[:, 0]
    here = np.flatnonzero(shape.usable)
    cavity = _areas(ratio, labels == Structure.LV)[:, here].sum(axis=1)
    narrowing = 1.0 - cavity / cavity[ed]
    most = float(narrowing.max())
    course = narrowing / max(most, _LEAST_NARROWING)
    areas = _areas(ratio, labels == Structure.MYO)[:, here]
    # The ED slice from which muscle has come, for every trial, and its area; no muscle comes from
    # beyond the wall's ends, where an area that falls to 0 would feign shortening.
    levels = np.flatnonzero(shape.areas > 0)
    source = shape.apex + (here - shape.apex) / _TRIALS[:, None]
    before = np.interp(source, levels, shape.areas[levels])
    misfit = (_TRIALS[:, None, None] * areas - before[:, None]) ** 2
    stretch = _TRIALS[misfit.argmin(axis=0)]
    wall = course @ (1.0 - stretch) / max(float(course @ course), 1e-9)

    return Shortening(course=course, narrowing=most, wall=wall)


def _areas(ratio: Tensor, inside: NDArray[np.bool_]) -> Array:
    """Return the area of a structure in every frame and slice, ``(T, D)`` voxels."""
    return (ratio * torch.from_numpy(inside).to(ratio)).sum(dim=(2, 3)).double().cpu().numpy()


def longitudinal_stretch(
    in_plane: Tensor, labels: NDArray, shape: WallShape, *, ed: int
) -> tuple[Array | None, str]:
    """Return l of every frame ``(T,)``, 1 at ED, or None and why nothing is inferred.

    Args:
        in_plane, labels, shape, ed: see ``shortening``.
    """
    if shape.usable.sum() < _FEWEST:
        return None, "too few slices between apex and base"
    found = shortening(in_plane, labels, shape, ed=ed)
    if found.doubt:
        return None, found.doubt

    return 1.0 - found.value * found.course, ""


def sliding(stretch: Array, shape: WallShape, grid: Grid, *, device: torch.device) -> Tensor:
    """Return the motion along the wall of every stretch ``(T,)`` as ``(T, 3, *S)``, voxels.

    Exactly 0 for a stretch of 1. The motion of ``1 / l`` is the inverse of that of l.
    """
    depth = np.arange(grid.shape[0], dtype=np.float64)
    after = shape.apex + np.asarray(stretch)[:, None] * (depth - shape.apex)
    scale = np.interp(after, depth, shape.radii) / shape.radii
    shift = _along(after, depth, shape.centers)
    field = torch.zeros(len(after), 3, *grid.shape, device=device)
    field[:, 0] = _tensor(after - depth, device)[:, :, None, None]
    for axis in (0, 1):
        view = [1, 1, 1, 1]
        view[2 + axis] = -1
        place = torch.arange(grid.shape[1 + axis], device=device).float().view(view)
        center = _tensor(shape.centers[:, axis], device).view(1, -1, 1, 1)
        moved = _tensor(shift[..., axis], device)[:, :, None, None]
        grown = _tensor(scale - 1, device)[:, :, None, None]
        field[:, 1 + axis] = moved - center + grown * (place - center)

    return field


def _along(after: Array, depth: Array, centers: Array) -> Array:
    """Return the centers at positions ``(T, D)`` along axis 0, also beyond its ends."""
    slope = (centers[-1] - centers[0]) / max(len(depth) - 1, 1)

    return centers[0] + after[..., None] * slope


def _tensor(values: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float().to(device)
