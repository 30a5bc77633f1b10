"""Gauss-Newton for a velocity or displacement per voxel: few steps, each a whitened linear system.

With r the difference of the channels and g its slope, one step solves

    (sum_c w_c g g' + lambda L) d = -(sum_c w_c g r + lambda L v)

by conjugate gradients, preconditioned in the cosine transform, where the regularizer is diagonal,
and takes ``v <- v + d`` (the first-order composition of exponentials). So the data step of
demons and its smoothing are one exact minimization of the linearized energy, with weights in mm.
No gradient passes through the exponential. Pairs do not know of each other.

A symmetric SVF is compared halfway, ``r = m o exp(v/2) - f o exp(-v/2)`` (Avants et al., Med.
Image Anal. 2008), so that swapping the images inverts the result, both are blurred alike, and g,
the mean of both slopes, is right to second order in the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.losses import Weighted
from cardiogen.transforms import SVF, Displacement
from registration.config import StageConfig
from registration.features import Channels, channels_of
from registration.problem import Problem
from registration.solvers.spectrum import Spectrum
from registration.solvers.trace import Trace

# Levenberg's damping, as a share of the mean curvature: directions that the images do not see (a
# shift through slices that look alike) stay where they are instead of following rounding errors.
_DAMPING = 1e-3
# A step that must be shortened below this share of its length leads nowhere.
_SHORTEST = 1 / 16


@dataclass(eq=False)
class _State:
    """A velocity with all that the next step needs of it."""

    velocity: Tensor
    waves: Tensor
    residual: Tensor
    slope: Tensor
    data: Tensor
    smooth: Tensor

    @property
    def total(self) -> Tensor:
        return self.data + self.smooth


def gauss_newton(
    problem: Problem,
    transform: SVF | Displacement,
    terms: dict[str, Weighted],
    *,
    stage: StageConfig,
    iterations: int,
) -> tuple[SVF | Displacement, Trace]:
    """Minimize the energy at one level.

    Args:
        problem: images at this level.
        transform: where to start, on the problem's grid, batch of the problem.
        terms: sums of squares (see ``registration.features``), diffusion and bending.
        stage: settings.
        iterations: most steps.

    Returns:
        The transform, and the energy of every pair after every step.
    """
    with torch.no_grad():
        channels = channels_of(problem, terms)
        system = _System(problem, transform, channels, terms, stage)
        state = system.state(transform.params.detach())
        trace = Trace()
        trace.add(state.total, data=state.data, smooth=state.smooth)
        share = torch.ones_like(state.total)
        going = torch.ones_like(state.total, dtype=torch.bool)
        for _ in range(iterations):
            step = _limited(system.step(state), stage.max_step) * _wide(share * going)
            trial = system.state(state.velocity + step)
            better = going & (trial.total < state.total)
            small = (state.total - trial.total) <= stage.tolerance * state.total
            going = going & ~(better & small) & (better | (share > _SHORTEST))
            share = torch.where(better, (2 * share).clamp(max=1), share / 2)
            state = _chosen(better, trial, state)
            trace.add(state.total, data=state.data, smooth=state.smooth)
            if not going.any():
                break

    return transform.with_parameters(state.velocity), trace


class _System:
    """The linear systems of one level."""

    def __init__(
        self,
        problem: Problem,
        transform: SVF | Displacement,
        channels: Channels,
        terms: dict[str, Weighted],
        stage: StageConfig,
    ) -> None:
        self.axes = (1, 2) if transform.in_plane else (0, 1, 2)
        self.transform, self.channels, self.stage = transform, channels, stage
        self.halfway = stage.symmetric and isinstance(transform, SVF)
        shape = problem.grid.shape
        self.spectrum = Spectrum(
            shape, spacing=problem.grid.spacing, axes=self.axes, terms=terms,
            through_plane_mm=stage.through_plane_mm, device=problem.device,
        )  # fmt: skip
        weights = channels.weights.view(*channels.weights.shape, 1, 1, 1)
        self.weights = weights if problem.mask is None else weights * problem.mask
        self.voxels = torch.Size(shape).numel()
        if problem.mask is not None:
            # The mean runs over the mask, so that its size does not change the balance.
            inside = problem.mask.flatten(1).mean(dim=1).clamp(min=1 / self.voxels)
            self.weights = self.weights / _wide(inside)

    def state(self, velocity: Tensor) -> _State:
        """Return a velocity with its residual, slopes and energies."""
        moved, fixed = self._met(velocity)
        residual = moved - fixed
        slope = self._slopes((moved + fixed) / 2 if self.halfway else moved)
        waves = self.spectrum.forward(velocity)
        data = (self.weights * residual.square()).flatten(1).sum(dim=1) / self.voxels

        return _State(velocity, waves, residual, slope, data, self.spectrum.energy(waves))

    def _met(self, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moving and the fixed channels where they are compared."""
        moving, fixed = self.channels.moving, self.channels.fixed
        if not self.halfway:
            return ops.warp(moving, self._displacement(velocity)), fixed
        there, back = (self._displacement(half) for half in (velocity / 2, velocity / -2))

        return ops.warp(moving, there), ops.warp(fixed, back)

    def _displacement(self, velocity: Tensor) -> Tensor:
        return self.transform.with_parameters(velocity).displacement()

    def step(self, state: _State) -> Tensor:
        """Return the Gauss-Newton step, by conjugate gradients on the waves."""
        spectrum, count = self.spectrum, len(self.axes)
        weighted = self.weights.unsqueeze(2) * state.slope
        pull = (weighted * state.residual.unsqueeze(2)).sum(dim=1)
        normal = {
            (i, j): (weighted[:, :, i] * state.slope[:, :, j]).sum(dim=1)
            for i in range(count)
            for j in range(i, count)
        }

        def product(waves: Tensor) -> Tensor:
            field = spectrum.backward(waves)
            rows = [
                sum(normal[min(i, j), max(i, j)] * field[:, j] for j in range(count))
                for i in range(count)
            ]
            return spectrum.forward(torch.stack(rows, dim=1)) + price * waves

        typical = torch.stack([normal[i, i].flatten(1).mean(dim=1) for i in range(count)], dim=1)
        damping = _DAMPING * typical.mean(dim=1, keepdim=True)
        price = spectrum.price + _wide(damping).clamp(min=1e-12)
        inverse = 1 / (_wide(typical) + price)
        right = -(spectrum.forward(pull) + spectrum.price * state.waves)

        return spectrum.backward(
            _conjugate_gradients(product, right, inverse, self.stage.cg_iterations)
        )

    def _slopes(self, image: Tensor) -> Tensor:
        """Return ``(B, C, n, *S)``, per voxel along the axes that deform."""
        slopes = ops.gradient(image, spacing=(1.0, 1.0, 1.0))

        return slopes[:, :, list(self.axes)] if len(self.axes) < 3 else slopes


def _conjugate_gradients(
    product: object, right: Tensor, inverse: Tensor, iterations: int
) -> Tensor:
    """Solve ``product(x) = right`` for every pair on its own."""
    found = torch.zeros_like(right)
    residual, direction = right, inverse * right
    power = _dot(residual, direction)
    for _ in range(iterations):
        image = product(direction)
        length = power / _dot(direction, image).clamp(min=1e-30)
        found = found + length * direction
        residual = residual - length * image
        better = inverse * residual
        following = _dot(residual, better)
        direction = better + following / power.clamp(min=1e-30) * direction
        power = following

    return found


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return _wide((a * b).flatten(1).sum(dim=1))


def _wide(values: Tensor) -> Tensor:
    """Return ``(B, ...)`` with the axes of a field behind it."""
    return values.reshape(*values.shape, *[1] * (5 - values.ndim))


def _limited(step: Tensor, longest: float) -> Tensor:
    """Shorten the whole step of a pair until no voxel's exceeds ``longest`` voxels."""
    norm = step.square().sum(dim=1).flatten(1).amax(dim=1).sqrt()

    return step * _wide((longest / norm.clamp(min=1e-12)).clamp(max=1))


def _chosen(better: Tensor, trial: _State, state: _State) -> _State:
    if bool(better.all()):
        return trial
    if not bool(better.any()):
        return state
    names = ("velocity", "waves", "residual", "slope", "data", "smooth")

    def pick(name: str) -> Tensor:
        new, old = getattr(trial, name), getattr(state, name)
        return torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)

    return _State(*(pick(name) for name in names))
