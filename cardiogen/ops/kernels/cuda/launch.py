"""Launch a kernel over tiles of a lattice, and share batches without copies.

Convention: a launch covers ``rows`` (samples, or channels of samples) times the voxels of one 3D
lattice; 2D is 3D with a single slice. A program of 8 warps handles ``BLOCK`` voxels of one slice,
as lines of 32 below one another: a warp reads one line and neighboring warps share what they read
in the nearest cache. Within a row offsets are 32-bit, those of rows 64-bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_WARPS, _WIDTH = 8, 32
_MOST_POINTS = 2**31 - 2**16  # 32-bit, with what a last tile sticks out
_MOST_ROWS = 65535  # of the second and third axes of a CUDA grid


def launch(
    kernel: object,
    rows: int,
    lattice: tuple[int, int, int],
    arguments: tuple[Tensor | int | float, ...],
    constants: dict[str, int | bool],
    *,
    block: int = 256,
) -> None:
    """Run ``kernel(*arguments, OH, OW, M, across, **constants)`` for every tile.

    OH and OW are the last two sizes of the lattice, M its number of voxels, across the number of
    tiles along its last axis.

    Args:
        kernel: Triton function.
        rows: number of rows.
        lattice: sizes of a row.
        arguments: what comes first in the kernel's signature, a tensor at the beginning.
        constants: compile-time arguments, beside ``BLOCK`` and the ``WIDTH`` of a tile.
        block: voxels per program. 256 are one per thread; more share what a program does once, for
            kernels whose threads have registers left.
    """
    tiles, across, width = tiling(lattice, block)
    points = volume(lattice, "lattice")
    if rows * points == 0:
        return
    if max(rows, lattice[0]) > _MOST_ROWS:
        raise ValueError(
            f"samples (times channels) and slices must be at most {_MOST_ROWS}, got {rows} and "
            f"{lattice[0]}"
        )
    with torch.cuda.device_of(arguments[0]):
        # Triton 3.10 turns the fusion of products and sums off, and 3.9 warns of that, if unsaid.
        kernel[(tiles, lattice[0], rows)](
            *arguments, *lattice[1:], points, across, **constants, BLOCK=block, WIDTH=width,
            num_warps=_WARPS, enable_fp_fusion=True,
        )  # fmt: skip


def tiling(lattice: tuple[int, int, int], block: int = 256) -> tuple[int, int, int]:
    """Return tiles per slice, tiles along the last axis, and the width of a tile."""
    width = block if lattice[1] == 1 else _WIDTH
    across = -(-lattice[2] // width)

    return across * -(-lattice[1] // (block // width)), across, width


def as_lattice(shape: Sequence[int], fixed: bool) -> tuple[int, int, int]:
    """Return the lattice of points of any shape; one long line if tiles suit it and may be."""
    depth, height, width = padded(shape)
    if fixed or (len(shape) <= 3 and width >= _WIDTH and depth <= _MOST_ROWS):
        return depth, height, width

    return 1, 1, torch.Size(shape).numel()


def volume(shape: Sequence[int], name: str) -> int:
    """Return the number of points of a shape, which must fit the kernels' 32-bit offsets."""
    points = torch.Size(shape).numel()
    if points > _MOST_POINTS:
        raise ValueError(
            f"{name} must have at most {_MOST_POINTS} points per channel, got {tuple(shape)}"
        )

    return points


def padded(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return the last three sizes of a shape, with ones in front if it has fewer."""
    depth, height, width = (1, 1, 1, *shape)[-3:]

    return depth, height, width


def shared_batch(first: Tensor, second: Tensor) -> int:
    """Return the batch of a result: the larger one, which the smaller one must divide."""
    sizes = (first.shape[0], second.shape[0])
    if max(sizes) and (min(sizes) == 0 or max(sizes) % min(sizes)):
        raise ValueError(f"batches must divide one another, got {sizes[0]} and {sizes[1]}")

    return max(sizes)
