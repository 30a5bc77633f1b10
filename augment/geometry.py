"""All geometry of a chain as one displacement, its inverse, and what either of them can see.

Convention: the displacement is a pull-back on the lattice of the image: the result reads the image
at ``x + u(x)``. The inverse w is a pull-back too: a prediction on the result is read at
``y + w(y)`` to be compared with one on the image, and what lies at y in the image is at
``y + w(y)`` in the result, which is how points move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import as_displacement
from cardiogen.ops import (
    GridLike,
    Padding,
    compose,
    displaced_coords,
    grid_to_world,
    transform_points,
    voxel_affine_to_displacement,
    warp,
    warp_labels,
    warp_points,
    world_to_grid,
)

# Voxels by which a position may miss the image: rounding of float32 coordinates.
_SLACK = 1e-3

PullBack = Callable[[bool], Tensor]


class Geometry:
    """Composed geometry; both fields are made when first asked for, and kept.

    Args:
        maps: functions that return the pull-back of each transform, or its inverse if given True,
            in the order in which the transforms act on the image.
        lattice: of the image.
        slices: more of them, which act after all others and move slices in their planes.
    """

    def __init__(
        self, maps: Sequence[PullBack], lattice: Lattice, *, slices: Sequence[PullBack] = ()
    ) -> None:
        self.lattice = lattice
        self._smooth, self._slices = tuple(maps), tuple(slices)
        self._maps = self._smooth + self._slices

    @property
    def moves(self) -> bool:
        """Whether there is any geometry at all."""
        return bool(self._maps)

    @cached_property
    def pull_back(self) -> Tensor:
        """Where the result reads the image: matrix ``(B, d+1, d+1)`` or field ``(B, d, *S)``."""
        # The last transform of the image is the first to see a voxel of the result.
        return composed([make(False) for make in self._maps], self.lattice)

    @cached_property
    def inverse_pull_back(self) -> Tensor:
        """Where a prediction brought back reads the result: matrix or field."""
        return composed([make(True) for make in reversed(self._maps)], self.lattice)

    @cached_property
    def displacement(self) -> Tensor:
        """The field that moves images, ``(B, d, *S)``, voxels."""
        return as_displacement(self.pull_back, self.lattice)

    @cached_property
    def inverse(self) -> Tensor:
        """The field that brings predictions back, ``(B, d, *S)``, voxels."""
        return as_displacement(self.inverse_pull_back, self.lattice)

    @cached_property
    def _inverse_steps(self) -> list[Tensor]:
        """What undoes slices, then all else: shifts of slices cannot be read between them."""
        return [
            as_displacement(
                composed([make(True) for make in reversed(maps)], self.lattice), self.lattice
            )
            for maps in (self._slices, self._smooth)
            if maps
        ]

    @cached_property
    def in_view(self) -> Tensor:
        """Voxels of the result that show something of the image, bool ``(B, 1, *S)``."""
        return inside(self.displacement)

    @cached_property
    def inverse_in_view(self) -> Tensor:
        """Voxels of the image that the result shows, bool ``(B, 1, *S)``."""
        return inside(self.inverse)

    def image(self, image: Tensor, *, padding: Padding = "border") -> Tensor:
        """Return the moved image ``(B, C, *S)``, resampled once."""
        return warp(image, self.displacement, padding=padding) if self.moves else image

    def labels(self, labels: Tensor, *, exclusive: bool = True) -> Tensor:
        """Return moved one-hot labels or probabilities ``(B, K, *S)``; see ``back``."""
        return _moved(labels, self.displacement, exclusive) if self.moves else labels

    def back(self, probs: Tensor, *, exclusive: bool = True) -> Tensor:
        """Return probabilities on the result as probabilities on the image.

        Args:
            probs: ``(B, K, *S)``.
            exclusive: channels sum to one and channel 0 is background, which fills what is out of
                view; otherwise every channel is a region of its own and fades to 0 there.
        """
        if not self._slices:
            return _moved(probs, self.inverse, exclusive) if self.moves else probs
        for inverse in self._inverse_steps:
            probs = _moved(probs, inverse, exclusive)

        return probs

    def points(self, points: Tensor, grid: GridLike) -> Tensor:
        """Return where points of the image lie in the result, ``(B, V, d)`` world mm.

        Affine geometry is exact everywhere. Otherwise points outside the image move as its border,
        and those between slices that were shifted by as much as lies between their shifts.

        Args:
            points: world mm ``(B, V, d)``: landmarks, or vertices of meshes.
            grid: of the image; its shape is that of the lattice.
        """
        if not self.moves:
            return points
        found = self.inverse_pull_back.detach()
        if found.ndim > 3:
            return warp_points(points, found.to(points.device), grid)
        to_world, to_grid = grid_to_world(grid), world_to_grid(grid)
        matrix = to_world @ found.double().cpu() @ to_grid

        return transform_points(points, matrix.to(points.device)).to(points.dtype)


def composed(maps: Sequence[Tensor], lattice: Lattice) -> Tensor:
    """Return ``x -> maps[0](maps[1](... x))``, matrices and displacements mixed.

    Matrices multiply; a matrix after a displacement is applied exactly, so that only a
    displacement after something else is interpolated.
    """
    total = maps[-1]
    for outer in reversed(maps[:-1]):
        if total.ndim == 3 and outer.ndim == 3:
            total = (outer.unsqueeze(3) * total.unsqueeze(1)).sum(dim=2)
        elif outer.ndim == 3:
            total = _matrix_after(outer, total, lattice)
        else:
            total = compose(as_displacement(total, lattice), outer)

    return total


def inside(displacement: Tensor) -> Tensor:
    """Return which voxels a displacement sends into the image, bool ``(B, 1, *S)``.

    From positions, not from warped ones: whatever images hold or are padded with plays no part.
    """
    coords = displaced_coords(displacement.detach())
    found = torch.ones_like(coords[:, :1], dtype=torch.bool)
    for axis, size in enumerate(displacement.shape[2:]):
        # A single slice shows half a voxel to either side; else centers bound what is known.
        slack = 0.5 if size == 1 else _SLACK
        position = coords[:, axis : axis + 1]
        found &= (position >= -slack) & (position <= size - 1 + slack)

    return found


def _matrix_after(matrix: Tensor, displacement: Tensor, lattice: Lattice) -> Tensor:
    """Return ``M (x + u(x)) - x = (M x - x) + L u(x)``."""
    ndim = lattice.ndim
    linear = matrix[:, :ndim, :ndim].view(-1, ndim, ndim, *[1] * ndim)
    turned = (linear * displacement.unsqueeze(1)).sum(dim=2)

    return voxel_affine_to_displacement(matrix, lattice.shape) + turned


def _moved(labels: Tensor, displacement: Tensor, exclusive: bool) -> Tensor:
    if exclusive and labels.shape[1] > 1:
        return warp_labels(labels, displacement)
    return warp(labels, displacement, padding="zeros")
