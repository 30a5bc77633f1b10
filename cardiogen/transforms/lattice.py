"""The lattice on which parameters of a vector field live, and how fields pass between grids.

Convention: parameters are vectors in voxels of the lattice's grid, either one per voxel or
coefficients of cubic B-splines ``control_spacing`` mm apart (see ``ops.spline``). In plane they
have two components, along h and w, and slices know nothing of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data.grid import Grid

Steps = int | Literal["auto"]
ControlSpacing = float | tuple[float, ...]

# Corners that agree to this are one place: far below any error of interpolation.
SAME_MM = 1e-6


@dataclass(frozen=True, eq=False)
class Lattice:
    """Where the parameters of a field sit.

    Attributes:
        grid: voxels on which the field is made.
        control_spacing: mm between control points along every axis that deforms ((d, h, w), or
            (h, w) in plane), or None for one vector per voxel.
        in_plane: vectors lie in the slices, and slices do not couple.
    """

    grid: Grid
    control_spacing: tuple[float, ...] | None = None
    in_plane: bool = False

    @classmethod
    def of(
        cls, grid: Grid, *, control_spacing: ControlSpacing | None = None, in_plane: bool = False
    ) -> Lattice:
        """Return a lattice; one number as ``control_spacing`` serves every axis.

        Along axes with coarser voxels than that number, such as slices, it is raised to the voxel
        spacing; a tuple is taken as it is.
        """
        bare = cls(grid, None, in_plane)
        if isinstance(control_spacing, int | float):
            control_spacing = tuple(max(float(control_spacing), s) for s in bare.spacing)
        elif control_spacing is not None:
            control_spacing = tuple(float(c) for c in control_spacing)
        return cls(grid, control_spacing, in_plane)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel spacing along the axes that deform, mm."""
        return self.grid.spacing[1:] if self.in_plane else self.grid.spacing

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels along the axes that deform."""
        return self.grid.shape[1:] if self.in_plane else self.grid.shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the parameters of one field: components, then the lattice."""
        slices = self.grid.shape[:1] if self.in_plane else ()
        places = self.sizes
        if self.control_spacing is not None:
            places = ops.control_shape(
                self.sizes, spacing=self.spacing, control_spacing=self.control_spacing
            )
        return (len(self.sizes), *slices, *places)

    def field(self, params: Tensor) -> Tensor:
        """Return parameters ``(N, *shape)`` as vectors at every voxel, ``(N, 2 or 3, *S)``."""
        if self.control_spacing is None:
            return params
        fields = ops.expand(
            self.by_slice(params),
            self.sizes,
            spacing=self.spacing,
            control_spacing=self.control_spacing,
        )

        return self.stacked(fields)

    def exponentiate(self, velocity: Tensor, *, steps: Steps) -> Tensor:
        """Return the displacement of a velocity ``(N, 2 or 3, *S)``; in plane slice by slice."""
        return self.stacked(ops.exponentiate(self.by_slice(velocity), steps=steps))

    def invert(self, field: Tensor) -> Tensor:
        """Return the inverse of a displacement ``(N, 2 or 3, *S)``; in plane slice by slice."""
        return self.stacked(ops.invert(self.by_slice(field)).displacement)

    def embedded(self, field: Tensor) -> Tensor:
        """Return the field with three components: in plane none moves along the slices' normal."""
        if not self.in_plane:
            return field
        return torch.cat([torch.zeros_like(field[:, :1]), field], dim=1)

    def flattened(self, field: Tensor) -> Tensor:
        """Return the components that the lattice has: the inverse of ``embedded``."""
        return field[:, 1:] if self.in_plane else field

    def by_slice(self, values: Tensor) -> Tensor:
        """Return in-plane values ``(N, 2, D, ...)`` as a batch of slices ``(N D, 2, ...)``."""
        return values.movedim(2, 1).flatten(0, 1) if self.in_plane else values

    def stacked(self, values: Tensor) -> Tensor:
        """Return a batch of slices as a stack again: the inverse of ``by_slice``."""
        if not self.in_plane:
            return values
        return values.unflatten(0, (-1, self.grid.shape[0])).movedim(1, 2)


def check_steps(steps: Steps) -> Steps:
    """Return the number of squarings, or say at once what it may be."""
    whole = isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0
    if steps != "auto" and not whole:
        raise ValueError(f"steps must be 'auto' or a whole number from 0, got {steps!r}")
    return steps


def aligned(one: Grid, other: Grid) -> bool:
    """Whether two grids have the same corner voxels, so that only their shapes may differ."""
    return other.matches(one.resized(other.shape), tolerance_mm=SAME_MM)


def same_grid(one: Grid, other: Grid) -> bool:
    """Whether two grids are one lattice."""
    return one is other or one.matches(other, tolerance_mm=SAME_MM)


def carry(field: Tensor, from_grid: Grid, to_grid: Grid) -> Tensor:
    """Return a vector field as seen on another grid: ``u'(y) = A'^-1 A u(A^-1 A' y)``.

    World vectors stay what they are; between voxels they are linear, outside they keep the value
    of the border.

    Args:
        field: ``(B, 3, *S)`` on ``from_grid`` (affine A), in its voxels.
        from_grid: lattice of ``field``.
        to_grid: wanted lattice (affine A').

    Returns:
        ``(B, 3, *S')``, voxels of ``to_grid``.
    """
    if same_grid(from_grid, to_grid):
        return field
    if aligned(from_grid, to_grid):
        return ops.resize_field(field, to_grid.shape)
    seen = ops.resample(field, from_grid, to_grid)

    return turn(seen, ops.world_to_grid(to_grid) @ ops.grid_to_world(from_grid))


def turn(field: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the vectors of a field ``(B, 3, *out)`` by the linear part of a 4 x 4 matrix."""
    linear = matrix[:3, :3].to(field)
    rows = [sum(linear[row, column] * field[:, column] for column in range(3)) for row in range(3)]

    return torch.stack(rows, dim=1)
