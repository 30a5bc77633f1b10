"""Transforms one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor, nn

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms.base import Transform


class Composition(Transform):
    """``T(p) = T_n(... T_2(T_1(p)))``: points meet the first transform first.

    ``Composition([a_to_b, b_to_c])`` is ``a_to_c``; its displacement is what ``ops.compose`` gives
    where both share one grid, but nothing is clamped at that grid's border: every transform is
    read where the point has come to. A usual pair is ``[affine, svf]`` with the SVF on the moving
    side, or ``[svf, affine]`` with it on the fixed side.

    Args:
        transforms: at least one, in the order in which points meet them; batches agree or are 1.
        grid: default lattice; by default that of the first.
    """

    def __init__(self, transforms: Iterable[Transform], *, grid: Grid | None = None) -> None:
        parts = list(transforms)
        if not parts or not all(isinstance(part, Transform) for part in parts):
            found = [type(part).__name__ for part in parts]
            raise ValueError(f"transforms must be at least one Transform, got {found}")
        super().__init__(parts[0].grid if grid is None else grid)
        self.transforms = nn.ModuleList(parts)

    @property
    def dtype(self) -> torch.dtype:
        """Widest floating type of the parts."""
        dtype = self.transforms[0].dtype
        for part in self.transforms:
            dtype = torch.promote_types(dtype, part.dtype)
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.transforms[0].device

    def displacement_at(self, coords: Tensor, grid: Grid) -> Tensor:
        """Return the displacement at any positions; see ``Transform.displacement_at``."""
        return self._followed(torch.zeros_like(coords), coords, grid, self.transforms)

    def displacement(self, grid: Grid | None = None) -> Tensor:
        """Return ``fixed_to_moving`` on a grid, ``(B, 3, D, H, W)`` in its voxels."""
        grid = self.grid if grid is None else grid
        # The first is read at the voxels, where it need not be interpolated.
        first = self.transforms[0].displacement(grid)
        coords = ops.identity_coords(grid.shape, dtype=first.dtype, device=first.device)

        return self._followed(first, coords, grid, self.transforms[1:])

    @staticmethod
    def _followed(moved: Tensor, coords: Tensor, grid: Grid, parts: Iterable[Transform]) -> Tensor:
        """Add the displacements of further parts to that of points moved already."""
        for part in parts:
            moved = moved + part.displacement_at(coords + moved, grid)

        return moved

    def inverse(self) -> Composition:
        """Return ``moving_to_fixed``: the inverses in reverse order."""
        return Composition([part.inverse() for part in reversed(self.transforms)], grid=self.grid)

    def refined(self, grid: Grid) -> Composition:
        """Return the composition of the refined parts."""
        return Composition([part.refined(grid) for part in self.transforms], grid=grid)

    def detached(self) -> Self:
        """Return the same map, cut off from whatever made its parameters."""
        return Composition([part.detached() for part in self.transforms], grid=self.grid)

    def trainable(self) -> Self:
        """Return the same map with copies of all parameters as leaves."""
        return Composition([part.trainable() for part in self.transforms], grid=self.grid)
