"""Bring a moving image onto the grid of the fixed one through their common world."""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError, Note
from cardiogen.data import Grid

_FWHM_TO_SIGMA = 0.42466090014400953
_LITTLE = 0.25


def onto_grid(image: Tensor, from_grid: Grid, to_grid: Grid) -> Tensor:
    """Return an image on another grid, smoothed first along axes that become coarser.

    Args:
        image: ``(B, C, *S)`` floating point on ``from_grid``.
        from_grid: its lattice.
        to_grid: wanted lattice.
    """
    if from_grid.matches(to_grid):
        return image
    sigma = [_FWHM_TO_SIGMA * max(f**2 - 1, 0.0) ** 0.5 for f in _coarsening(from_grid, to_grid)]

    return ops.resample(ops.gaussian(image, tuple(sigma)), from_grid, to_grid)


def labels_onto_grid(labels: Tensor, from_grid: Grid, to_grid: Grid) -> Tensor:
    """Return whole-number labels ``(B, 1, *S)`` on another grid: one-hot, linear, argmax."""
    if from_grid.matches(to_grid):
        return labels
    one_hot = ops.one_hot(labels.long(), max(int(labels.max()) + 1, 2), dtype=torch.float32)
    shares = ops.resample(one_hot[:, 1:], from_grid, to_grid, padding="zeros")
    background = 1 - shares.sum(dim=1, keepdim=True)

    return ops.argmax_labels(torch.cat([background, shares], dim=1))


def overlap(fixed_grid: Grid, moving_grid: Grid) -> Tensor:
    """Return which voxels of the fixed grid lie inside the moving one, ``(1, 1, *S)`` float.

    A grid reaches half a voxel beyond its outer voxels.
    """
    coords = ops.identity_coords(fixed_grid.shape, dtype=torch.float64)
    matrix = ops.world_to_grid(moving_grid) @ ops.grid_to_world(fixed_grid)
    points = ops.transform_points(coords.movedim(1, -1).flatten(1, -2), matrix)
    ends = torch.tensor(moving_grid.shape, dtype=torch.float64) - 0.5
    inside = ((points > -0.5) & (points < ends)).all(dim=-1)

    return inside.view(1, 1, *fixed_grid.shape).float()


def check_overlap(fixed_grid: Grid, moving_grid: Grid, where: str) -> tuple[Tensor, list[Note]]:
    """Return the overlap of two grids; little of it is noted, none refused.

    Raises:
        CardiogenError: N55 if the grids do not overlap.
    """
    inside = overlap(fixed_grid, moving_grid)
    share = float(inside.mean())
    if share == 0.0:
        centers = [grid.to_world([(n - 1) / 2 for n in grid.shape]).round().tolist()
                   for grid in (fixed_grid, moving_grid)]  # fmt: skip
        raise CardiogenError(
            "N55", where, found=f"grids that do not overlap: their middles are at {centers[0]} "
            f"and {centers[1]} mm", expected="images of one place in one world",
            remedy="checking the headers, or aligning the images first",
        )  # fmt: skip
    notes = []
    if share < _LITTLE:
        text = (
            f"the moving image covers {share:.0%} of the fixed one; only there they are compared"
        )
        notes.append(Note("N56", where, text))

    return inside, notes


def _coarsening(from_grid: Grid, to_grid: Grid) -> list[float]:
    """Return how many voxels of ``from_grid`` one step of ``to_grid`` spans, per axis."""
    steps = torch.tensor(from_grid.inverse[:3, :3] @ to_grid.affine[:3, :3]).abs()

    return steps.amax(dim=1).tolist()
