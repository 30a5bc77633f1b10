"""What every spatial transform answers: displacement, points, inverse, Jacobian.

Convention: a transform maps points of the fixed image to points of the moving one
(``fixed_to_moving``), in world RAS mm. It lives on a ``Grid``; displacements are in voxels of the
grid they are asked for, so ``ops.warp(moving, transform.displacement())`` is the moved image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from cardiogen import ops
from cardiogen.data.grid import Grid


class Transform(nn.Module, ABC):
    """A map T of points, ``fixed_to_moving``, with the grid on which it is seen by default."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    @abstractmethod
    def displacement_at(self, coords: Tensor, grid: Grid) -> Tensor:
        """Return ``u(x) = A^-1 T(A x) - x`` at any positions x.

        Args:
            coords: positions ``(B, 3, *out)`` in voxels of ``grid``, float32 or wider.
            grid: lattice whose voxels (affine A) are the unit of positions and result.

        Returns:
            ``(B, 3, *out)``, voxels of ``grid``.
        """

    @abstractmethod
    def inverse(self) -> Transform:
        """Return ``moving_to_fixed``; gradients flow to the same parameters."""

    @abstractmethod
    def refined(self, grid: Grid) -> Transform:
        """Return the same map on another lattice, for the next level of a pyramid.

        Its parameters are computed from those of this one; ``trainable`` makes them leaves.
        """

    @abstractmethod
    def detached(self) -> Self:
        """Return the same map, cut off from whatever made its parameters."""

    @abstractmethod
    def trainable(self) -> Self:
        """Return the same map with copies of its parameters as leaves to optimize."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters, and of displacements from float32 up."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the parameters lie."""

    def forward(self, moving: Tensor) -> Tensor:
        """Return the moved image of a moving one ``(B, C, *S)``, both on ``self.grid``."""
        return ops.warp(moving, self.displacement())

    def displacement(self, grid: Grid | None = None) -> Tensor:
        """Return ``fixed_to_moving`` on a grid, ``(B, 3, D, H, W)`` in its voxels.

        Args:
            grid: any lattice in the same world; by default the transform's own.
        """
        grid = self.grid if grid is None else grid
        dtype = torch.promote_types(self.dtype, torch.float32)
        coords = ops.identity_coords(grid.shape, dtype=dtype, device=self.device)

        return self.displacement_at(coords, grid)

    def points(self, points_mm: Tensor) -> Tensor:
        """Map points ``(B, V, 3)`` of the fixed image to the moving one, world RAS mm.

        Positions are computed in float64 and returned in the dtype of ``points_mm``.
        """
        ops.check_shape(points_mm, "B V 3", "points_mm")
        voxels = ops.transform_points(points_mm.double(), ops.world_to_grid(self.grid))
        coords = voxels.movedim(-1, 1)
        moved = coords + self.displacement_at(coords, self.grid)
        world = ops.transform_points(moved.movedim(1, -1), ops.grid_to_world(self.grid))

        return world.to(points_mm.dtype)

    def jacobian(self, grid: Grid | None = None) -> Tensor:
        """Return the derivative along the grid's axes, mm per mm, ``(B, 3, 3, *S)``.

        Row i is the component, column j the axis; see ``ops.jacobian``.
        """
        grid = self.grid if grid is None else grid

        return ops.jacobian(self.displacement(grid), spacing=grid.spacing)

    def jacobian_determinant(self, grid: Grid | None = None) -> Tensor:
        """Return the local volume ratio, ``(B, 1, *S)``; see ``ops.jacobian_determinant``."""
        return ops.jacobian_determinant(self.displacement(grid))


class ParametricTransform(Transform):
    """A transform with one tensor of parameters, ``params``.

    An ``nn.Parameter`` is trained by any optimizer of ``transform.parameters()``; any other tensor
    is used as it is, so that gradients reach whatever made it (a network, another transform).
    """

    params: Tensor

    def __init__(self, grid: Grid, params: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__(grid)
        hold_params(self, params, shape)

    @abstractmethod
    def with_parameters(self, params: Tensor) -> Self:
        """Return the same kind of transform on the same lattice with other parameters."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters."""
        return self.params.dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.params.device

    def detached(self) -> Self:
        """Return the same map, cut off from whatever made its parameters."""
        return self.with_parameters(self.params.detach())

    def trainable(self) -> Self:
        """Return the same map with a copy of its parameters as a leaf to optimize."""
        return self.with_parameters(nn.Parameter(self.params.detach().clone()))


def hold_params(module: nn.Module, params: Tensor, shape: tuple[int, ...]) -> None:
    """Keep ``params`` ``(B, *shape)`` in a module: leaves as parameters, the rest as buffers."""
    if not params.is_floating_point() or tuple(params.shape[1:]) != shape or not params.ndim:
        wanted = ", ".join(map(str, shape))
        raise ValueError(
            f"params must be floating point of shape (B, {wanted}), got {params.dtype} of shape "
            f"{tuple(params.shape)}"
        )
    if isinstance(params, nn.Parameter):
        module.params = params
    else:
        module.register_buffer("params", params)
