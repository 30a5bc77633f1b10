"""Groupwise tracking: one Fourier-periodic velocity from all frames at once.

Minimizes over the coefficients c of ``v_t = sum_r W_tr c_r`` (see ``basis``)

    mean_t mean_x (I_t(x + u_t(x)) - I_ED(x))^2 + lambda sum_r (1 + tau q_r) mean_x |grad c_r|^2,

``u_t = exp(v_t)``, by Gauss-Newton steps: with r_t the difference and g_t its slope in frame t,

    (W' g g' W / T + lambda L) d = -(W' g r / T + lambda L c),

solved by conjugate gradients in the cosine transform, where L is diagonal. Frames share their
evidence, the cycle closes exactly, and nothing accumulates: every frame is compared with ED.
Further views of the same heart add terms of their own (``view_term``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid
from cardiogen.losses import Weighted, make_term
from cardiogen.transforms import SVF, TemporalSVF
from registration.solvers.spectrum import Spectrum
from registration.tracking.basis import TimeBasis, time_basis
from registration.tracking.config import GroupwiseConfig
from registration.tracking.unfold import unfolded
from registration.tracking.view_term import SeenView, ViewLevels, ViewTerm

_DAMPING = 1e-3
_SHORTEST = 1 / 8


@dataclass(eq=False)
class _State:
    """Coefficients with what the next step needs of them."""

    coefficients: Tensor
    waves: Tensor
    residual: Tensor
    slope: Tensor
    views: list[SeenView]
    data: float
    smooth: float

    @property
    def total(self) -> float:
        return self.data + self.smooth


def groupwise(
    images: Tensor,
    grid: Grid,
    phases: Tensor,
    *,
    ed: int,
    in_plane: bool,
    config: GroupwiseConfig,
    views: Sequence[ViewLevels] = (),
) -> tuple[TemporalSVF, list[dict[str, object]]]:
    """Return the motion of a cine and the energy after every step.

    Args:
        images: ``(T, 1, D, H, W)``, intensities about 0 to 1.
        grid: their lattice.
        phases: fraction of the cycle since ED of every frame ``(T,)`` float64, 0 at ``ed``.
        ed: reference frame.
        in_plane: nothing moves through the slices.
        config: settings.
        views: further planes that constrain the same motion.
    """
    basis = time_basis(phases, config.harmonics)
    steps = _levels(images, grid, config)
    moving = [t for t in range(len(images)) if t != ed]
    start, rows = None, []
    with torch.no_grad():
        for level, (pixels, lattice, iterations) in enumerate(steps, start=1):
            terms = [v.at(lattice, basis, config.view_weight) for v in views]
            system = _System(pixels, lattice, basis, ed, moving, in_plane, config, terms)
            coefficients = system.start(start)
            coefficients, trace = _descend(system, coefficients, iterations, config)
            start = SVF(lattice, coefficients, in_plane=in_plane)
            rows += [{"level": level, "step": k, **row} for k, row in enumerate(trace)]
        params = torch.einsum("kr,rn...->kn...", basis.to_fourier.to(start.params), start.params)
        motion = TemporalSVF(start.grid, params.unsqueeze(0), in_plane=in_plane)
        motion = motion if start.grid is grid else motion.refined(grid)

    return unfolded(motion, phases), rows


def _levels(images: Tensor, grid: Grid, config: GroupwiseConfig) -> list[tuple[Tensor, Grid, int]]:
    """Return images, grid and iterations, coarse to fine; too fine ones are passed over."""
    count = len(config.iterations)
    found = ops.pyramid(images, count + 2, affine=grid.affine)
    grids = [Grid(tuple(x.shape[2:]), affine) for x, affine in found]
    fine = [min(g.spacing) >= config.finest_mm for g in grids]
    first = fine.index(True) if any(fine) else len(grids) - 1
    first = min(first, 2)
    # The lattice of the images themselves keeps its identity, so that callers can tell it.
    grids[0] = grid
    chosen = range(first, first + count)

    return [
        (found[k][0], grids[k], most)
        for k, most in zip(reversed(chosen), config.iterations, strict=True)
    ]


def _descend(
    system: _System, coefficients: Tensor, iterations: int, config: GroupwiseConfig
) -> tuple[Tensor, list[dict[str, float]]]:
    """Take Gauss-Newton steps at one level; a step that fails is shortened."""
    state, share = system.state(coefficients), 1.0
    trace = [{"energy": state.total, "data": state.data, "smooth": state.smooth}]
    for _ in range(iterations):
        step = system.step(state)
        trial = system.state(state.coefficients + share * step)
        while trial.total >= state.total and share > _SHORTEST:
            share /= 2
            trial = system.state(state.coefficients + share * step)
        if trial.total >= state.total:
            break
        small = state.total - trial.total <= config.tolerance * state.total
        state, share = trial, min(1.0, 2 * share)
        trace.append({"energy": state.total, "data": state.data, "smooth": state.smooth})
        if small:
            break

    return state.coefficients, trace


class _System:
    """The linear systems of one level."""

    def __init__(
        self,
        images: Tensor,
        grid: Grid,
        basis: TimeBasis,
        ed: int,
        moving: list[int],
        in_plane: bool,
        config: GroupwiseConfig,
        views: list[ViewTerm],
    ) -> None:
        self.grid, self.in_plane, self.config, self.views = grid, in_plane, config, views
        self.axes = (1, 2) if in_plane else (0, 1, 2)
        self.fixed, self.moving = images[ed : ed + 1], images[moving]
        self.frames = len(images)
        self.mix = basis.frames[moving].to(images)
        smooth = Weighted(term=make_term("diffusion", {}), weight=config.smoothness)
        self.spectrum = Spectrum(
            grid.shape, spacing=_coupled(grid.spacing, config), axes=self.axes,
            terms={"smoothness": smooth}, through_plane_mm=config.through_plane_mm,
            device=images.device,
        )  # fmt: skip
        rising = 1 + config.temporal * basis.price.to(images)
        self.price = rising.view(-1, 1, 1, 1, 1) * self.spectrum.price
        self.voxels = self.fixed.numel()

    def start(self, coarser: SVF | None) -> Tensor:
        """Return where the level begins: the coarser result, or no motion."""
        if coarser is not None:
            coefficients = coarser.refined(self.grid).params.detach()
            displacement = self.displacement(coefficients, self.mix)
            self.fixed = self._reference(displacement)
            for view in self.views:
                view.steady(self._seen_by(view, coefficients, displacement), self.config)
            return coefficients
        shape = (self.mix.shape[1], len(self.axes), *self.grid.shape)

        return self.fixed.new_zeros(shape)

    def _reference(self, displacement: Tensor) -> Tensor:
        """Return what frames are compared with: ED, steadied by all frames as they lie on it now.

        The noise of one frame would else move all others alike.
        """
        others = ops.warp(self.moving, displacement).mean(dim=0, keepdim=True)
        share = self.config.reference_ed

        return share * self.fixed + (1 - share) * others

    def velocities(self, coefficients: Tensor, mix: Tensor) -> Tensor:
        """Return ``(T', n, *S)`` of the frames that move, whose functions of time are ``mix``."""
        flat = mix @ coefficients.flatten(1)

        return flat.view(-1, *coefficients.shape[1:])

    def displacement(self, coefficients: Tensor, mix: Tensor) -> Tensor:
        """Return ``ed_to_frame`` of the frames that move, ``(T', 3, *S)``."""
        velocities = self.velocities(coefficients, mix)

        return SVF(self.grid, velocities, in_plane=self.in_plane).displacement()

    def _seen_by(self, view: ViewTerm, coefficients: Tensor, displacement: Tensor) -> Tensor:
        """Return the displacement at the phases of a view."""
        if torch.equal(view.mix, self.mix):
            return displacement
        return self.displacement(coefficients, view.mix)

    def gathered(self, values: Tensor) -> Tensor:
        """Return ``W' x / T`` of values ``(T', n, *S)``, the adjoint of ``velocities``."""
        flat = self.mix.T @ values.flatten(1) / self.frames

        return flat.view(-1, *values.shape[1:])

    def state(self, coefficients: Tensor) -> _State:
        """Return coefficients with residuals, slopes and energies."""
        displacement = self.displacement(coefficients, self.mix)
        moved = ops.warp(self.moving, displacement)
        residual = moved - self.fixed
        # The mean of both slopes is right to second order in what is left of the motion.
        slope = ops.gradient((moved + self.fixed) / 2, spacing=(1.0, 1.0, 1.0))[:, 0]
        slope = slope[:, 1:] if self.in_plane else slope
        waves = self.spectrum.forward(coefficients)
        views = [v.seen(self._seen_by(v, coefficients, displacement)) for v in self.views]
        data = float(residual.square().sum()) / self.voxels / self.frames
        data += sum(seen.energy for seen in views)
        smooth = float((self.price * waves.square()).sum()) / self.voxels

        return _State(coefficients, waves, residual, slope, views, data, smooth)

    def step(self, state: _State) -> Tensor:
        """Return the Gauss-Newton step, at most ``max_step`` voxels in any frame."""
        slope, count = state.slope, len(self.axes)
        pull = self.gathered(slope * state.residual)
        seen = list(zip(self.views, state.views, strict=True))
        for view, now in seen:
            pull = pull + view.pull(now)
        normal = {(i, j): slope[:, i] * slope[:, j] for i in range(count) for j in range(i, count)}

        def product(waves: Tensor) -> Tensor:
            coefficients = self.spectrum.backward(waves)
            field = self.velocities(coefficients, self.mix)
            rows = [
                sum(normal[min(i, j), max(i, j)] * field[:, j] for j in range(count))
                for i in range(count)
            ]
            back = self.gathered(torch.stack(rows, dim=1))
            for view, now in seen:
                back = back + view.curvature(now, coefficients)

            return self.spectrum.forward(back) + price * waves

        typical = torch.stack([normal[i, i].mean() for i in range(count)])
        for view, now in seen:
            typical = typical + view.typical(now)
        price = self.price + _DAMPING * typical.mean().clamp(min=1e-12)
        inverse = 1 / (typical.view(-1, 1, 1, 1) + price)
        right = -(self.spectrum.forward(pull) + self.price * state.waves)
        step = self.spectrum.backward(
            _conjugate_gradients(product, right, inverse, self.config.cg_iterations)
        )
        longest = float(self.velocities(step, self.mix).square().sum(dim=1).amax().sqrt())

        return step * min(1.0, self.config.max_step / max(longest, 1e-12))


def _coupled(spacing: tuple[float, ...], config: GroupwiseConfig) -> tuple[float, ...]:
    """Return the spacing in which smoothness is measured: slices count as no farther apart."""
    return (min(spacing[0], max(config.slice_coupling_mm, *spacing[1:])), *spacing[1:])


def _conjugate_gradients(
    product: object, right: Tensor, inverse: Tensor, iterations: int
) -> Tensor:
    """Solve ``product(x) = right``."""
    found = torch.zeros_like(right)
    residual, direction = right, inverse * right
    power = (residual * direction).sum()
    for _ in range(iterations):
        image = product(direction)
        length = power / (direction * image).sum().clamp(min=1e-30)
        found = found + length * direction
        residual = residual - length * image
        better = inverse * residual
        following = (residual * better).sum()
        direction = better + following / power.clamp(min=1e-30) * direction
        power = following

    return found
