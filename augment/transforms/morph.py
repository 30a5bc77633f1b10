"""Diffeomorphic deformations: exponentials of smooth velocities that do not fold.

Convention: the velocity is a cubic B-spline on control points ``control_mm`` apart, in mm. Its
component across a border vanishes there, so that the image is mapped onto itself: nothing leaves
the view and the inverse ``exp(-v)`` holds up to the border.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import Geometric, Params, at_strength, check_bound, normal, uniform
from cardiogen.ops import control_shape, expand, exponentiate, resize_field

# Squaring starts from this many voxels at most; finer steps cost more than they gain.
_FIRST_STEP = 1 / 8
# Root mean squares to largest speeds of random splines: enough squarings for nearly all of them.
_PEAK = 4.0
# Voxels between control points on which exponentials are taken.
_PER_CONTROL = 24
# Fewest voxels between control points: fields are interpolated linearly between voxels, and waves
# much shorter than this would cost an inverse more than a twentieth of a voxel.
_FEWEST_VOXELS = 10


@dataclass(frozen=True, kw_only=True)
class Morph(Geometric):
    """Deform images by ``exp(v)`` of a random smooth velocity v.

    Free parameters are the control points, in units of ``rms_mm``. Two things bound them: the
    root mean square of the speed over the image, at most ``rms_mm``, and the folding guard, which
    keeps every slope of the velocity at or below ``steepest``. Then no two points come closer than
    ``exp(-d steepest)`` of their distance, and the sampled field does not fold.

    Attributes:
        rms_mm: root mean square of the length of the velocity over the image.
        control_mm: distance between control points; along an axis with fewer than ten voxels in
            it, such as slices 8 mm apart, they lie ten voxels apart.
        steepest: largest slope of a component of the velocity along an axis, mm per mm.
    """

    rms_mm: float = 3.0
    control_mm: float = 40.0
    steepest: float = 0.4

    def __post_init__(self) -> None:
        check_bound(self.rms_mm, "rms_mm")
        check_bound(self.control_mm, "control_mm", least=1e-3)
        check_bound(self.steepest, "steepest", least=1e-3, most=0.5)

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw independent control points, of a strength that is uniform in [0, 1]."""
        points = control_shape(
            lattice.shape, spacing=lattice.spacing, control_spacing=self._steps(lattice)
        )
        free = normal((lattice.batch, lattice.ndim, *points), generator=generator)
        wanted = uniform((lattice.batch,), generator=generator, low=0.0)
        free = at_strength(free, self._root_mean_square(free, lattice), wanted)

        return self.project(Params(free=free), lattice)

    def project(self, params: Params, lattice: Lattice) -> Params:
        """Return the parameters scaled down until both bounds hold."""
        used = self.strength(params.free, lattice).detach().clamp(min=1.0)

        return params.with_free(at_strength(params.free, used))

    def strength(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return the larger of speed and slope in units of their bounds, ``(B,)``."""
        coarse = self._coarse(lattice)
        velocity = self.velocity_mm(free, coarse)
        speed = _rms(velocity) / max(self.rms_mm, 1e-12)

        return torch.maximum(speed, steepest_slope(velocity, coarse) / self.steepest)

    def unit(self, direction: Tensor, lattice: Lattice) -> Tensor:
        """Return a direction whose velocity has the root mean square ``rms_mm``."""
        return at_strength(direction, self._root_mean_square(direction, lattice))

    def pull_back(self, params: Params, lattice: Lattice, *, inverse: bool = False) -> Tensor:
        """Return ``exp(v)``, or ``exp(-v)``, as a displacement ``(B, d, *S)``, voxels."""
        coarse = self._coarse(lattice)
        velocity = self.velocity_mm(params.free, coarse)
        steps = velocity.new_tensor(coarse.spacing).view(1, -1, *[1] * lattice.ndim)
        velocity = velocity / (-steps if inverse else steps)
        field = exponentiate(velocity, steps=self._squarings(coarse))

        return field if coarse.shape == lattice.shape else resize_field(field, lattice.shape)

    def velocity_mm(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return the velocity at every voxel, ``(B, d, *S)``, mm."""
        velocity = expand(
            free * self.rms_mm, lattice.shape, spacing=lattice.spacing,
            control_spacing=self._steps(lattice),
        )  # fmt: skip

        return calmed(velocity, lattice, self.control_mm)

    def _root_mean_square(self, free: Tensor, lattice: Lattice) -> Tensor:
        return _rms(self.velocity_mm(free, self._coarse(lattice))) / max(self.rms_mm, 1e-12)

    def _coarse(self, lattice: Lattice) -> Lattice:
        """Return a lattice of the same field of view that is as fine as the splines need.

        Two dozen voxels between control points leave a few hundredths of a voxel to interpolation.
        """
        shape, spacing = [], []
        for size, step, extent in zip(
            lattice.shape, lattice.spacing, lattice.extent_mm, strict=True
        ):
            fewer = math.ceil(extent / (self.control_mm / _PER_CONTROL)) + 1
            shape.append(min(size, max(fewer, 2)))
            spacing.append(extent / (shape[-1] - 1) if shape[-1] > 1 else step)

        return replace(lattice, shape=tuple(shape), spacing=tuple(spacing))

    def _steps(self, lattice: Lattice) -> tuple[float, ...]:
        return tuple(max(self.control_mm, _FEWEST_VOXELS * step) for step in lattice.spacing)

    def _squarings(self, lattice: Lattice) -> int:
        """Return a number that depends on no tensor, so that a GPU need not be waited for."""
        fastest = _PEAK * self.rms_mm / min(lattice.spacing)

        return max(0, math.ceil(math.log2(max(fastest, 1e-6) / _FIRST_STEP)))


def calmed(velocity: Tensor, lattice: Lattice, reach_mm: float) -> Tensor:
    """Return a velocity ``(B, d, *S)`` each component of which is 0 at the borders of its axis.

    It rises as ``sin^2`` over ``reach_mm``, or over half the image where that is shorter.
    """
    parts = []
    for axis, (size, step) in enumerate(zip(lattice.shape, lattice.spacing, strict=True)):
        position = torch.arange(size, dtype=torch.float64, device=velocity.device)
        depth = torch.minimum(position, size - 1 - position) * step
        reach = max(min(reach_mm, lattice.extent_mm[axis] / 2), 1e-6)
        rise = torch.sin(math.pi / 2 * (depth / reach).clamp(max=1.0)).square()
        along = [size if other == axis else 1 for other in range(lattice.ndim)]
        parts.append(velocity[:, axis] * rise.to(velocity.dtype).view(1, *along))

    return torch.stack(parts, dim=1)


def _rms(velocity: Tensor) -> Tensor:
    return velocity.square().sum(dim=1).flatten(1).mean(dim=1).sqrt()


def steepest_slope(velocity: Tensor, lattice: Lattice) -> Tensor:
    """Return the largest ``|dv_i / dx_j|`` between neighbors, ``(B,)``."""
    steepest = velocity.new_zeros(len(velocity))
    for axis, (size, step) in enumerate(zip(lattice.shape, lattice.spacing, strict=True)):
        if size > 1:
            slopes = velocity.diff(dim=axis + 2).abs().flatten(1).amax(dim=1)
            steepest = torch.maximum(steepest, slopes / step)

    return steepest
