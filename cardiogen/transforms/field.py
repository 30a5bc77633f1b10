"""Deformations given by one field: displacement, FFD, SVF and SVFFD.

Convention: the map is ``T(A x) = A (x + u(x))`` with u on the transform's own grid (affine A),
linear between its voxels and constant beyond its border, as ``ops.warp_points`` reads it. Images,
points and meshes so follow one and the same map, whatever made u. Parameters are in voxels.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms.base import ParametricTransform
from cardiogen.transforms.lattice import (
    ControlSpacing,
    Lattice,
    Steps,
    carry,
    check_steps,
    same_grid,
    turn,
)
from cardiogen.transforms.refine import refine


class FieldTransform(ParametricTransform):
    """A transform that is one displacement field on its grid."""

    def __init__(self, params: Tensor, lattice: Lattice) -> None:
        super().__init__(lattice.grid, params, lattice.shape)
        self.lattice = lattice

    @abstractmethod
    def field(self) -> Tensor:
        """Return ``fixed_to_moving`` on the transform's own grid, ``(B, 3, *S)``, voxels."""

    @property
    def in_plane(self) -> bool:
        """Whether nothing moves through the slices."""
        return self.lattice.in_plane

    @property
    def control_spacing(self) -> tuple[float, ...] | None:
        """Distance of control points along the axes that deform, mm; None without any."""
        return self.lattice.control_spacing

    def displacement(self, grid: Grid | None = None) -> Tensor:
        """Return ``fixed_to_moving`` on a grid, ``(B, 3, D, H, W)`` in its voxels."""
        return carry(self.field(), self.grid, self.grid if grid is None else grid)

    def displacement_at(self, coords: Tensor, grid: Grid) -> Tensor:
        """Return the displacement at any positions; see ``Transform.displacement_at``."""
        field = self.field()
        field = field.to(torch.promote_types(field.dtype, coords.dtype))
        if same_grid(grid, self.grid):
            return ops.sample(field, coords)
        to_own = ops.world_to_grid(self.grid) @ ops.grid_to_world(grid)
        flat = coords.flatten(2).movedim(1, -1)
        own = ops.transform_points(flat, to_own.to(coords.dtype)).movedim(-1, 1)
        moved = ops.sample(field, own.unflatten(2, tuple(coords.shape[2:])))

        return turn(moved, torch.linalg.inv(to_own))


class Displacement(FieldTransform):
    """A displacement per voxel.

    Args:
        grid: lattice of the field.
        params: ``fixed_to_moving`` ``(B, 3, D, H, W)``, voxels; in plane ``(B, 2, D, H, W)``.
        in_plane: nothing moves through the slices.
    """

    def __init__(self, grid: Grid, params: Tensor, *, in_plane: bool = False) -> None:
        super().__init__(params, Lattice.of(grid, in_plane=in_plane))

    @classmethod
    def identity(
        cls,
        grid: Grid,
        *,
        batch: int = 1,
        in_plane: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Displacement:
        """Return trainable transforms that move nothing."""
        lattice = Lattice.of(grid, in_plane=in_plane)
        return cls(grid, zeros(lattice, (batch,), dtype, device), in_plane=in_plane)

    def field(self) -> Tensor:
        """Return the parameters with three components, ``(B, 3, *S)``, voxels."""
        return self.lattice.embedded(self.params)

    def inverse(self) -> Displacement:
        """Return ``moving_to_fixed`` (``ops.invert``), to .001 voxel at the voxels.

        Raises:
            ValueError: where the field cannot be inverted, mostly because it folds.
        """
        return self.with_parameters(self.lattice.invert(self.params))

    def with_parameters(self, params: Tensor) -> Displacement:
        """Return a displacement with other vectors."""
        return Displacement(self.grid, params, in_plane=self.in_plane)

    def refined(self, grid: Grid) -> Displacement:
        """Return the field on another grid, by linear interpolation."""
        params, lattice = refine(self.params, self.lattice, grid)
        return Displacement(grid, params, in_plane=lattice.in_plane)


class FFD(FieldTransform):
    """Free-form deformation: a displacement as cubic B-splines (Rueckert et al., IEEE TMI 1999).

    Args:
        grid: voxels on which the spline is made.
        params: coefficients ``(B, 3, *ops.control_shape)``, voxels of ``grid``; in plane one
            independent spline per slice, ``(B, 2, D, *control_shape of a slice)``.
        control_spacing: mm between control points; one number is raised to the voxel spacing
            along coarser axes, a tuple (d, h, w), in plane (h, w), is taken as it is.
        in_plane: nothing moves through the slices, and slices do not couple.
    """

    def __init__(
        self,
        grid: Grid,
        params: Tensor,
        *,
        control_spacing: ControlSpacing,
        in_plane: bool = False,
    ) -> None:
        super().__init__(
            params, Lattice.of(grid, control_spacing=control_spacing, in_plane=in_plane)
        )

    @classmethod
    def identity(
        cls,
        grid: Grid,
        *,
        control_spacing: ControlSpacing,
        batch: int = 1,
        in_plane: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> FFD:
        """Return trainable transforms that move nothing."""
        lattice = Lattice.of(grid, control_spacing=control_spacing, in_plane=in_plane)
        params = zeros(lattice, (batch,), dtype, device)
        return cls(grid, params, control_spacing=lattice.control_spacing, in_plane=in_plane)

    def field(self) -> Tensor:
        """Return the spline at every voxel, ``(B, 3, *S)``, voxels."""
        return self.lattice.embedded(self.lattice.field(self.params))

    def inverse(self) -> Displacement:
        """Return ``moving_to_fixed`` as a displacement: the inverse of a spline is none.

        Raises:
            ValueError: where the field cannot be inverted, mostly because it folds.
        """
        inverse = self.lattice.invert(self.lattice.field(self.params))
        return Displacement(self.grid, inverse, in_plane=self.in_plane)

    def with_parameters(self, params: Tensor) -> FFD:
        """Return an FFD with other coefficients."""
        return FFD(self.grid, params, control_spacing=self.control_spacing, in_plane=self.in_plane)

    def refined(self, grid: Grid, *, control_spacing: ControlSpacing | None = None) -> FFD:
        """Return the spline on another grid, with other control points if told: ``refine``."""
        params, lattice = refine(self.params, self.lattice, grid, control_spacing=control_spacing)
        return FFD(
            grid, params, control_spacing=lattice.control_spacing, in_plane=lattice.in_plane
        )


class SVF(FieldTransform):
    """Stationary velocity field: ``T = exp(v)`` by scaling and squaring; the inverse is exp(-v).

    Args:
        grid: lattice of the velocity and of its displacement.
        params: velocity ``(B, 3, D, H, W)``, voxels; in plane ``(B, 2, D, H, W)``.
        steps: squarings, or ``"auto"`` (``ops.exponentiate``).
        in_plane: nothing moves through the slices.
    """

    def __init__(
        self, grid: Grid, params: Tensor, *, steps: Steps = "auto", in_plane: bool = False
    ) -> None:
        super().__init__(params, Lattice.of(grid, in_plane=in_plane))
        self.steps = check_steps(steps)

    @classmethod
    def identity(
        cls,
        grid: Grid,
        *,
        batch: int = 1,
        steps: Steps = "auto",
        in_plane: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SVF:
        """Return trainable transforms that move nothing."""
        lattice = Lattice.of(grid, in_plane=in_plane)
        params = zeros(lattice, (batch,), dtype, device)
        return cls(grid, params, steps=steps, in_plane=in_plane)

    def velocity(self) -> Tensor:
        """Return the velocity with three components, ``(B, 3, *S)``, voxels."""
        return self.lattice.embedded(self.params)

    def field(self) -> Tensor:
        """Return ``exp(v)``, ``(B, 3, *S)``, voxels."""
        return self.lattice.embedded(self.lattice.exponentiate(self.params, steps=self.steps))

    def inverse(self) -> SVF:
        """Return ``moving_to_fixed = exp(-v)``."""
        return self.with_parameters(-self.params)

    def with_parameters(self, params: Tensor) -> SVF:
        """Return an SVF with another velocity."""
        return SVF(self.grid, params, steps=self.steps, in_plane=self.in_plane)

    def refined(self, grid: Grid) -> SVF:
        """Return the velocity on another grid, by linear interpolation."""
        params, lattice = refine(self.params, self.lattice, grid)
        return SVF(grid, params, steps=self.steps, in_plane=lattice.in_plane)


class SVFFD(FieldTransform):
    """Stationary velocity as cubic B-splines: expanded, then exponentiated on ``grid``.

    Args:
        grid: voxels on which velocity and displacement are made.
        params: velocity coefficients, shaped as in ``FFD``, voxels.
        control_spacing: mm between control points, as in ``FFD``.
        steps: squarings, or ``"auto"``.
        in_plane: nothing moves through the slices, and slices do not couple.
    """

    def __init__(
        self,
        grid: Grid,
        params: Tensor,
        *,
        control_spacing: ControlSpacing,
        steps: Steps = "auto",
        in_plane: bool = False,
    ) -> None:
        super().__init__(
            params, Lattice.of(grid, control_spacing=control_spacing, in_plane=in_plane)
        )
        self.steps = check_steps(steps)

    @classmethod
    def identity(
        cls,
        grid: Grid,
        *,
        control_spacing: ControlSpacing,
        batch: int = 1,
        steps: Steps = "auto",
        in_plane: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> SVFFD:
        """Return trainable transforms that move nothing."""
        lattice = Lattice.of(grid, control_spacing=control_spacing, in_plane=in_plane)
        params = zeros(lattice, (batch,), dtype, device)
        spacing = lattice.control_spacing
        return cls(grid, params, control_spacing=spacing, steps=steps, in_plane=in_plane)

    def velocity(self) -> Tensor:
        """Return the velocity at every voxel, ``(B, 3, *S)``, voxels."""
        return self.lattice.embedded(self.lattice.field(self.params))

    def field(self) -> Tensor:
        """Return ``exp(v)``, ``(B, 3, *S)``, voxels."""
        velocity = self.lattice.field(self.params)
        return self.lattice.embedded(self.lattice.exponentiate(velocity, steps=self.steps))

    def inverse(self) -> SVFFD:
        """Return ``moving_to_fixed = exp(-v)``."""
        return self.with_parameters(-self.params)

    def with_parameters(self, params: Tensor) -> SVFFD:
        """Return an SVFFD with other coefficients."""
        return SVFFD(
            self.grid,
            params,
            control_spacing=self.control_spacing,
            steps=self.steps,
            in_plane=self.in_plane,
        )

    def refined(self, grid: Grid, *, control_spacing: ControlSpacing | None = None) -> SVFFD:
        """Return the velocity on another grid, with other control points if told: ``refine``."""
        params, lattice = refine(self.params, self.lattice, grid, control_spacing=control_spacing)
        return SVFFD(
            grid,
            params,
            control_spacing=lattice.control_spacing,
            steps=self.steps,
            in_plane=lattice.in_plane,
        )


def zeros(
    lattice: Lattice, leading: tuple[int, ...], dtype: torch.dtype, device: torch.device | str
) -> nn.Parameter:
    """Return trainable zeros ``(*leading, *lattice.shape)``."""
    return nn.Parameter(torch.zeros(*leading, *lattice.shape, dtype=dtype, device=device))
