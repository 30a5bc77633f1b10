"""An energy as a function of parameters, pair by pair, for solvers that need its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen.losses import Energy, EnergyValue, Weighted
from cardiogen.transforms import Rigid
from cardiogen.transforms.base import ParametricTransform
from cardiogen.transforms.linear import LinearTransform
from registration.problem import Problem, evaluate


class Objective:
    """The energy of a transform at one level.

    Linear transforms are seen through scaled parameters, such that one unit of any of them moves
    the border of the image by about one mm; without that, a turn outweighs a shift a hundredfold.

    Args:
        problem: images.
        transform: kind and lattice of the transform.
        terms: weighted terms.
    """

    def __init__(
        self, problem: Problem, transform: ParametricTransform, terms: dict[str, Weighted]
    ) -> None:
        self.problem, self.transform = problem, transform
        self.energy = Energy(terms).to(problem.device)
        self.scale = _scale(transform)

    def start(self) -> Tensor:
        """Return the scaled parameters of the transform, ``(B, ...)``."""
        return (transform_params(self.transform) / self.scale).clone()

    def made(self, scaled: Tensor) -> ParametricTransform:
        """Return the transform of scaled parameters."""
        return self.transform.with_parameters(scaled * self.scale)

    def value(self, scaled: Tensor) -> EnergyValue:
        """Return the energy of every pair."""
        return evaluate(self.problem, self.made(scaled), self.energy)

    def gradient(self, scaled: Tensor) -> tuple[EnergyValue, Tensor]:
        """Return the energy of every pair and its gradient, shaped as ``scaled``."""
        with torch.enable_grad():
            leaf = scaled.detach().requires_grad_()
            value = self.value(leaf)
            # Pairs do not mix, so the gradient of the sum holds that of every pair.
            (slope,) = torch.autograd.grad(value.total.sum(), leaf)

        return value, slope


def transform_params(transform: ParametricTransform) -> Tensor:
    """Return the parameters without their history."""
    return transform.params.detach()


def _scale(transform: ParametricTransform) -> Tensor:
    params = transform_params(transform)
    if not isinstance(transform, LinearTransform):
        return torch.ones((), dtype=params.dtype, device=params.device)
    shape, spacing = transform.grid.shape, transform.grid.spacing
    radius = max((n - 1) * s for n, s in zip(shape, spacing, strict=True)) / 2
    scale = torch.ones(params.shape[1:], dtype=params.dtype, device=params.device)
    if isinstance(transform, Rigid):
        scale[:3] = 1 / max(radius, 1.0)
    else:
        scale[:, :3] = 1 / max(radius, 1.0)

    return scale
