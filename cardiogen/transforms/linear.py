"""Rigid and affine transforms through the Lie algebra: world matrices in mm, invertible always.

Convention: ``M = C exp(X) C^-1`` with the generator ``X = [G | t]`` in world RAS mm and C the
translation to a fixed ``center``, by default the middle of the grid, so that small turns do not
swing the heart away. Matrices are float64, homogeneous and ``fixed_to_moving``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms.base import ParametricTransform

Center = tuple[float, float, float]
_NOT_RIGID = 1e-6


class LinearTransform(ParametricTransform):
    """A transform that is one world matrix."""

    def __init__(
        self, grid: Grid, params: Tensor, shape: tuple[int, ...], center: Center | None
    ) -> None:
        super().__init__(grid, params, shape)
        self.center = middle(grid) if center is None else tuple(float(c) for c in center)
        if len(self.center) != 3 or not np.isfinite(self.center).all():
            raise ValueError(f"center must be three finite numbers (mm), got {center}")

    @abstractmethod
    def generator(self) -> Tensor:
        """Return ``[G | t]`` ``(B, 3, 4)`` about the center, float64."""

    def matrix(self) -> Tensor:
        """Return M ``(B, 4, 4)``, world RAS mm of the fixed to those of the moving image."""
        return about(ops.affine_exp(self.generator()), self.center)

    def displacement_at(self, coords: Tensor, grid: Grid) -> Tensor:
        """Return the exact displacement at ``coords``; see ``Transform.displacement_at``."""
        to_grid, to_world = _frames(grid, coords.device)
        change = to_grid @ self.matrix() @ to_world - torch.eye(4).to(to_grid)
        flat = coords.flatten(2).movedim(1, -1)
        moved = ops.transform_points(flat, change.to(coords.dtype))

        return moved.movedim(-1, 1).unflatten(2, tuple(coords.shape[2:]))

    def displacement(self, grid: Grid | None = None) -> Tensor:
        """Return ``fixed_to_moving`` on a grid, ``(B, 3, D, H, W)`` in its voxels."""
        grid = self.grid if grid is None else grid
        dtype = torch.promote_types(self.dtype, torch.float32)

        return ops.affine_to_displacement(self.matrix(), grid, dtype=dtype)

    def jacobian(self, grid: Grid | None = None) -> Tensor:
        """Return the derivative along the grid's axes, mm per mm, ``(B, 3, 3, *S)``, exactly."""
        grid = self.grid if grid is None else grid
        axes = torch.tensor(grid.affine[:3, :3] / grid.spacing, device=self.device)
        local = torch.linalg.inv(axes) @ self.matrix()[:, :3, :3] @ axes

        return local.to(self.dtype)[..., None, None, None].expand(-1, -1, -1, *grid.shape)

    def jacobian_determinant(self, grid: Grid | None = None) -> Tensor:
        """Return the volume ratio, ``(B, 1, *S)``, exactly."""
        grid = self.grid if grid is None else grid
        ratio = torch.linalg.det(self.matrix()[:, :3, :3]).to(self.dtype)

        return ratio.view(-1, 1, 1, 1, 1).expand(-1, 1, *grid.shape)

    def inverse(self) -> Self:
        """Return ``moving_to_fixed``: ``exp(-X)`` about the same center."""
        return self.with_parameters(-self.params)


class Affine(LinearTransform):
    """Twelve parameters: ``params`` ``(B, 3, 4)`` is the generator ``[G | t]`` itself."""

    def __init__(self, grid: Grid, params: Tensor, *, center: Center | None = None) -> None:
        super().__init__(grid, params, (3, 4), center)

    @classmethod
    def identity(
        cls,
        grid: Grid,
        *,
        batch: int = 1,
        center: Center | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Affine:
        """Return trainable transforms that move nothing."""
        params = nn.Parameter(torch.zeros(batch, 3, 4, dtype=dtype, device=device))
        return cls(grid, params, center=center)

    @classmethod
    def from_matrix(cls, grid: Grid, matrix: Tensor, *, center: Center | None = None) -> Affine:
        """Return the transform of world matrices ``(B, 4, 4)``.

        Raises:
            ValueError: for reflections and (nearly) half turns, which have no logarithm.
        """
        center = middle(grid) if center is None else center
        away = tuple(-c for c in center)
        return cls(grid, ops.affine_log(about(matrix, away)), center=center)

    def generator(self) -> Tensor:
        """Return the parameters, float64."""
        return self.params.double()

    def with_parameters(self, params: Tensor) -> Affine:
        """Return an affine transform with other parameters."""
        return Affine(self.grid, params, center=self.center)

    def refined(self, grid: Grid) -> Affine:
        """Return the same matrix on another grid."""
        return Affine(grid, self.params, center=self.center)


class Rigid(LinearTransform):
    """Six parameters: ``params`` ``(B, 6)`` are a rotation vector (radians) and t (mm).

    The rotation vector is axis times angle, right-handed about the world axes x, y, z.
    """

    def __init__(self, grid: Grid, params: Tensor, *, center: Center | None = None) -> None:
        super().__init__(grid, params, (6,), center)

    @classmethod
    def identity(
        cls,
        grid: Grid,
        *,
        batch: int = 1,
        center: Center | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Rigid:
        """Return trainable transforms that move nothing."""
        params = nn.Parameter(torch.zeros(batch, 6, dtype=dtype, device=device))
        return cls(grid, params, center=center)

    @classmethod
    def from_matrix(cls, grid: Grid, matrix: Tensor, *, center: Center | None = None) -> Rigid:
        """Return the transform of rigid world matrices ``(B, 4, 4)``.

        Raises:
            ValueError: if a matrix is not a rotation with a translation, or (nearly) a half turn.
        """
        linear = matrix[:, :3, :3].double()
        error = (linear @ linear.transpose(1, 2) - torch.eye(3).to(linear)).abs().max().item()
        if not error < _NOT_RIGID:
            raise ValueError(
                f"matrix must be rigid to {_NOT_RIGID}, got one that is {error:.3g} off; "
                "use Affine.from_matrix"
            )
        center = middle(grid) if center is None else center
        turn = ops.affine_log(about(matrix, tuple(-c for c in center)))
        vector = torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], dim=1)
        return cls(grid, torch.cat([vector, turn[:, :, 3]], dim=1), center=center)

    def generator(self) -> Tensor:
        """Return ``[w]_x | t`` ``(B, 3, 4)``, float64."""
        x, y, z, *translation = self.params.double().unbind(1)
        zero = torch.zeros_like(x)
        rows = [zero, -z, y, translation[0], z, zero, -x, translation[1], -y, x, zero,
                translation[2]]  # fmt: skip

        return torch.stack(rows, dim=1).unflatten(1, (3, 4))

    def with_parameters(self, params: Tensor) -> Rigid:
        """Return a rigid transform with other parameters."""
        return Rigid(self.grid, params, center=self.center)

    def refined(self, grid: Grid) -> Rigid:
        """Return the same matrix on another grid."""
        return Rigid(grid, self.params, center=self.center)


def middle(grid: Grid) -> Center:
    """Return the world position of the middle of a grid, mm."""
    return tuple(float(c) for c in grid.to_world([(n - 1) / 2 for n in grid.shape]))


def about(matrix: Tensor, center: Center) -> Tensor:
    """Return ``C M C^-1`` with C the translation by ``center``, ``(B, 4, 4)`` float64."""
    matrix = matrix.double()
    linear, point = matrix[:, :3, :3], matrix.new_tensor(center)
    offset = matrix[:, :3, 3] + point - linear @ point
    top = torch.cat([linear, offset.unsqueeze(-1)], dim=2)

    return torch.cat([top, matrix[:, 3:]], dim=1)


def _frames(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    return ops.world_to_grid(grid).to(device), ops.grid_to_world(grid).to(device)
