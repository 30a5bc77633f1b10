"""Motion over the cycle: a velocity as a truncated Fourier series in time.

Convention: phase is the fraction of the cycle since end diastole; the velocity is

    v(x, t) = sum_k a_k(x) (cos 2 pi k t - 1) + b_k(x) sin 2 pi k t,    k = 1..K,

and ``ed_to_frame(t) = exp(v(., t))``, the exponential of each phase's own field. It is the
identity at phase 0 and has period 1 by construction, whatever the coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms.base import hold_params
from cardiogen.transforms.field import SVF, SVFFD, zeros
from cardiogen.transforms.lattice import ControlSpacing, Lattice, Steps, carry, check_steps
from cardiogen.transforms.refine import refine

Phases = Tensor | Sequence[float]


class TemporalSVF(nn.Module):
    """Periodic motion of one or more hearts, ``ed_to_frame`` at any phases.

    Args:
        grid: lattice of velocity and displacement, at end diastole.
        params: coefficients ``(B, 2 K, 3, *S)``, voxels, in the order a_1, b_1, a_2, b_2, ...; in
            plane 2 components; with control points their lattice instead of S (see ``FFD``).
        control_spacing: mm between control points, as in ``FFD``; None for one vector per voxel.
        steps: squarings, or ``"auto"``, then chosen for every frame alone.
        in_plane: nothing moves through the slices, and slices do not couple.
    """

    params: Tensor

    def __init__(
        self,
        grid: Grid,
        params: Tensor,
        *,
        control_spacing: ControlSpacing | None = None,
        steps: Steps = "auto",
        in_plane: bool = False,
    ) -> None:
        super().__init__()
        if params.ndim < 2 or params.shape[1] < 2 or params.shape[1] % 2:
            raise ValueError(
                f"params must have shape (B, 2 K, ...) with K from 1, got {tuple(params.shape)}"
            )
        self.grid, self.steps = grid, check_steps(steps)
        self.lattice = Lattice.of(grid, control_spacing=control_spacing, in_plane=in_plane)
        hold_params(self, params, (params.shape[1], *self.lattice.shape))

    @classmethod
    def identity(
        cls,
        grid: Grid,
        *,
        harmonics: int,
        control_spacing: ControlSpacing | None = None,
        batch: int = 1,
        steps: Steps = "auto",
        in_plane: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> TemporalSVF:
        """Return trainable motion that does not move, with ``harmonics`` K."""
        lattice = Lattice.of(grid, control_spacing=control_spacing, in_plane=in_plane)
        params = zeros(lattice, (batch, 2 * harmonics), dtype, device)
        spacing = lattice.control_spacing
        return cls(grid, params, control_spacing=spacing, steps=steps, in_plane=in_plane)

    @property
    def harmonics(self) -> int:
        """Number K of harmonics."""
        return self.params.shape[1] // 2

    @property
    def in_plane(self) -> bool:
        """Whether nothing moves through the slices."""
        return self.lattice.in_plane

    @property
    def control_spacing(self) -> tuple[float, ...] | None:
        """Distance of control points along the axes that deform, mm; None without any."""
        return self.lattice.control_spacing

    def coefficients(self) -> Tensor:
        """Return a_1, b_1, a_2, ... at every voxel, ``(B, 2 K, 3, *S)``, voxels."""
        batch = self.params.shape[0]
        fields = self.lattice.embedded(self.lattice.field(self.params.flatten(0, 1)))

        return fields.unflatten(0, (batch, -1))

    def velocity(self, phases: Phases) -> Tensor:
        """Return the velocity at phases ``(T,)``, ``(B, T, 3, *S)``, voxels."""
        return self._unfolded(self.lattice.embedded(self._velocities(phases)))

    def displacement(self, phases: Phases, grid: Grid | None = None) -> Tensor:
        """Return ``ed_to_frame`` at phases ``(T,)``.

        Args:
            phases: fractions of the cycle, any number of any values.
            grid: any lattice in the same world; by default the transform's own.

        Returns:
            ``(B, T, 3, *S)``, voxels of that grid; exactly 0 at whole phases.
        """
        moved = self.lattice.exponentiate(self._velocities(phases), steps=self.steps)
        field = self.lattice.embedded(moved)

        return self._unfolded(carry(field, self.grid, self.grid if grid is None else grid))

    def points(self, points_mm: Tensor, phases: Phases) -> Tensor:
        """Move points of end diastole ``(B, V, 3)`` to every phase, ``(B, T, V, 3)``, RAS mm."""
        ops.check_shape(points_mm, "B V 3", "points_mm")
        fields = self.displacement(phases)
        batch, frames = max(fields.shape[0], points_mm.shape[0]), fields.shape[1]
        fields = fields.expand(batch, *fields.shape[1:]).flatten(0, 1)
        points = points_mm.expand(batch, -1, -1).repeat_interleave(frames, dim=0)

        return ops.warp_points(points, fields, self.grid).unflatten(0, (batch, frames))

    def jacobian(self, phases: Phases, grid: Grid | None = None) -> Tensor:
        """Return the derivative along the grid's axes, mm per mm, ``(B, T, 3, 3, *S)``."""
        grid = self.grid if grid is None else grid
        fields = self.displacement(phases, grid).flatten(0, 1)

        return self._unfolded(ops.jacobian(fields, spacing=grid.spacing))

    def jacobian_determinant(self, phases: Phases, grid: Grid | None = None) -> Tensor:
        """Return the local volume ratio to end diastole, ``(B, T, 1, *S)``."""
        fields = self.displacement(phases, grid).flatten(0, 1)

        return self._unfolded(ops.jacobian_determinant(fields))

    def at(self, phase: float) -> SVF | SVFFD:
        """Return ``ed_to_frame`` at one phase as a transform of its own; gradients flow."""
        params = self._mixed([phase])[:, 0]
        if self.control_spacing is None:
            return SVF(self.grid, params, steps=self.steps, in_plane=self.in_plane)
        return SVFFD(
            self.grid,
            params,
            control_spacing=self.control_spacing,
            steps=self.steps,
            in_plane=self.in_plane,
        )

    def inverse(self) -> TemporalSVF:
        """Return ``frame_to_ed``: the negative velocity."""
        return self.with_parameters(-self.params)

    def with_parameters(self, params: Tensor) -> TemporalSVF:
        """Return motion with other coefficients, of any number of harmonics."""
        return TemporalSVF(
            self.grid,
            params,
            control_spacing=self.control_spacing,
            steps=self.steps,
            in_plane=self.in_plane,
        )

    def with_harmonics(self, harmonics: int) -> TemporalSVF:
        """Return the same motion with zeros for new harmonics, or without the highest ones."""
        if harmonics < 1:
            raise ValueError(f"harmonics must be at least 1, got {harmonics}")
        batch, _, *rest = self.params.shape
        more = self.params.new_zeros(batch, max(0, 2 * (harmonics - self.harmonics)), *rest)

        return self.with_parameters(torch.cat([self.params[:, : 2 * harmonics], more], dim=1))

    def refined(self, grid: Grid, *, control_spacing: ControlSpacing | None = None) -> TemporalSVF:
        """Return the motion on another grid, with other control points if told: ``refine``."""
        params, lattice = refine(
            self.params.flatten(0, 1), self.lattice, grid, control_spacing=control_spacing
        )
        return TemporalSVF(
            grid,
            params.unflatten(0, self.params.shape[:2]),
            control_spacing=lattice.control_spacing,
            steps=self.steps,
            in_plane=lattice.in_plane,
        )

    def detached(self) -> Self:
        """Return the same motion, cut off from whatever made its parameters."""
        return self.with_parameters(self.params.detach())

    def trainable(self) -> Self:
        """Return the same motion with a copy of its parameters as a leaf to optimize."""
        return self.with_parameters(nn.Parameter(self.params.detach().clone()))

    def _mixed(self, phases: Phases) -> Tensor:
        """Return the velocity's parameters at phases, ``(B, T, *lattice.shape)``."""
        return mix(self.params, fourier_basis(phases, self.harmonics))

    def _velocities(self, phases: Phases) -> Tensor:
        """Return velocities as the lattice has them, ``(B T, 2 or 3, *S)``."""
        basis = fourier_basis(phases, self.harmonics)
        if self.control_spacing is None or basis.shape[0] <= basis.shape[1]:
            return self.lattice.field(mix(self.params, basis).flatten(0, 1))
        # Fewer harmonics than frames: splines are expanded before they are mixed.
        fields = self.lattice.field(self.params.flatten(0, 1))

        return mix(fields.unflatten(0, self.params.shape[:2]), basis).flatten(0, 1)

    def _unfolded(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.params.shape[0], -1))


def mix(coefficients: Tensor, basis: Tensor) -> Tensor:
    """Return the series at every phase: ``(B, 2 K, ...)`` and ``(T, 2 K)`` to ``(B, T, ...)``."""
    # Half precision would misplace voxels, so autocast has no say here.
    with torch.autocast(coefficients.device.type, enabled=False):
        flat = basis.to(coefficients) @ coefficients.flatten(2)

    return flat.unflatten(2, tuple(coefficients.shape[2:]))


def fourier_basis(phases: Phases, harmonics: int) -> Tensor:
    """Return ``cos 2 pi k t - 1, sin 2 pi k t`` for k = 1..K, ``(T, 2 K)`` float64.

    Phases are taken modulo 1 first, so that whole cycles give exact zeros.
    """
    phases = torch.as_tensor(phases, dtype=torch.float64)
    if phases.ndim != 1 or not torch.isfinite(phases).all():
        raise ValueError(f"phases must be finite numbers (T,), got shape {tuple(phases.shape)}")
    orders = torch.arange(1, harmonics + 1, dtype=torch.float64, device=phases.device)
    angle = 2 * math.pi * torch.remainder(phases, 1.0)[:, None] * orders

    return torch.stack([torch.cos(angle) - 1, torch.sin(angle)], dim=2).flatten(1)
