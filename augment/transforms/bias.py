"""Bias fields: smooth factors on the intensities, as receive coils leave them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import (
    Params,
    Photometric,
    at_strength,
    check_bound,
    in_ball,
    normal,
    uniform,
)
from cardiogen.ops import control_shape, expand


@dataclass(frozen=True, kw_only=True)
class BiasField(Photometric):
    """Multiply by ``exp(b)``, b a cubic B-spline on control points ``control_mm`` apart.

    Free parameters are the control points in units of ``log(factor)``. The bound is on the field
    itself, ``max |b| <= log(factor)``, and so the same at any size and spacing; a bound on control
    points would not be reached, as the spline averages them.

    Attributes:
        factor: largest factor; its inverse is the smallest.
        control_mm: distance between control points.
    """

    factor: float = 1.5
    control_mm: float = 60.0

    def __post_init__(self) -> None:
        check_bound(self.factor, "factor", least=1.0, most=100.0)
        check_bound(self.control_mm, "control_mm", least=1e-3)

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw independent control points, of a range that is uniform in [0, bound]."""
        points = control_shape(
            lattice.shape, spacing=lattice.spacing, control_spacing=self._steps(lattice)
        )
        free = normal((lattice.batch, 1, *points), generator=generator)
        wanted = uniform((lattice.batch,), generator=generator, low=0.0)

        return Params(free=at_strength(free, self.strength(free, lattice), wanted))

    def project(self, params: Params, lattice: Lattice) -> Params:
        """Return the parameters scaled down until the field is within its range."""
        return in_ball(params, self.strength(params.free, lattice))

    def strength(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return ``max |b| / log(factor)`` over the image, ``(B,)``."""
        return self._field(free, lattice).abs().flatten(1).amax(dim=1)

    def unit(self, direction: Tensor, lattice: Lattice) -> Tensor:
        """Return a direction whose field just reaches its range."""
        return at_strength(direction, self.strength(direction, lattice))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return ``image * exp(b)``."""
        field = self._field(params.free, lattice).to(image.device) * math.log(self.factor)

        return image * torch.exp(field).to(image.dtype)

    def _field(self, free: Tensor, lattice: Lattice) -> Tensor:
        return expand(
            free, lattice.shape, spacing=lattice.spacing, control_spacing=self._steps(lattice)
        )

    def _steps(self, lattice: Lattice) -> tuple[float, ...]:
        return tuple(max(self.control_mm, step) for step in lattice.spacing)
