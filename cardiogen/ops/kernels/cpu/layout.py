"""How positions are laid out in lines, and the lines of one sample located.

A line is a row of a lattice that is displaced, or a block of positions that are free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.intrinsics import ints, room_rows
from cardiogen.ops.kernels.cpu.jit import inline
from cardiogen.ops.kernels.cpu.lines import FREE_LINE, locate, outside

# A chunk holds about this many positions: enough to hide the launch, few enough to balance.
_CHUNK = 32768
# Slabs of fewer slices would read most lines twice.
_THINNEST = 3


def batches(image: Tensor, coords: Tensor) -> tuple[int, int]:
    """Return how many consecutive samples share an image, and coords."""
    batch = max(image.shape[0], coords.shape[0])

    return batch // image.shape[0], batch // coords.shape[0]


def sizes(image: Tensor, coords: Tensor) -> tuple[int, ...]:
    """Return dimension, image size as (d, h, w) and number of positions of a sample."""
    shape = tuple(image.shape[2:])

    return (len(shape), *padded(shape), math.prod(coords.shape[2:]))


def padded(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a 2D or 3D shape as (d, h, w)."""
    return (*(1,) * (3 - len(shape)), *shape)


def slab_count(slices: int, images: int) -> int:
    """Return into how many slabs an image is split, so that every thread finds work."""
    wanted = -(-2 * torch.get_num_threads() // images) if torch.get_num_threads() > 1 else 1

    return max(1, min(wanted, slices // _THINNEST))


def lines_of(coords: Tensor, relative: bool) -> int:
    """Return the lines of a sample: rows of its lattice or blocks of free positions."""
    total = math.prod(coords.shape[2:])

    return total // coords.shape[-1] if relative else -(-total // FREE_LINE)


def longest_line(coords: Tensor, relative: bool) -> int:
    """Return the positions of the longest line."""
    return coords.shape[-1] if relative else FREE_LINE


def lines_per_chunk(coords: Tensor, lines: int) -> int:
    """Return how many lines a chunk takes."""
    return max(1, _CHUNK * lines // math.prod(coords.shape[2:]))


# Rows of a room that ``line_room`` takes.
LINE_ROWS = 4


@inline
def line_room(room, longest):
    """Return offsets and shares ``(3, longest)`` in the first rows of a room."""
    return ints(room, longest), room_rows(room, 1, 3, longest)


@inline
def locate_line(line, start, scale, total, relative, coords, shape, offset, a, b, c):
    """Locate one line of a sample; the base of a row are its (d, h), of free coords nothing."""
    depth, height, width = shape
    base_d = row_base(line, 0, height, relative)
    base_h = row_base(line, 1, height, relative)
    step = 1 if relative else 0
    size, plane = len(c), height * width
    if len(coords) == 3 * total:
        along = coords[start : start + size]
        locate(along, scale, base_d, 0, depth, plane, True, offset, a)
    rest = len(coords) - 2 * total
    along = coords[rest + start : rest + start + size]
    locate(along, scale, base_h, 0, height, width, rest == 0, offset, b)
    along = coords[rest + total + start : rest + total + start + size]
    locate(along, scale, 0, step, width, 1, False, offset, c)


@inline
def row_base(line, axis, height, relative):
    """Return where a row lies along an axis: (d, h, 0); nothing is added to free coords."""
    if not relative or axis == 2:
        return 0
    return line // height if axis == 0 else line % height


@inline
def mark_line(line, start, total, relative, coords, shape, marks):
    """Fill the rows of ``marks`` ``(d h w, 3, size)``: inside, fade and its derivative."""
    depth, height, width = shape
    base_d = row_base(line, 0, height, relative)
    base_h = row_base(line, 1, height, relative)
    step = 1 if relative else 0
    size = marks.shape[2]
    rest = len(coords) - 2 * total
    if rest > 0:
        along = coords[start : start + size]
        outside(along, base_d, 0, depth, marks[0, 0], marks[0, 1], marks[0, 2])
    else:
        marks[0, 0], marks[0, 1], marks[0, 2] = 1, 1, 0
    along = coords[rest + start : rest + start + size]
    outside(along, base_h, 0, height, marks[1, 0], marks[1, 1], marks[1, 2])
    along = coords[rest + total + start : rest + total + start + size]
    outside(along, 0, step, width, marks[2, 0], marks[2, 1], marks[2, 2])
