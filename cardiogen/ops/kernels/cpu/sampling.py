"""Linear sampling at coords or displaced voxels, and its gradient with respect to positions."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.jit import (
    Kernel,
    arguments,
    floats,
    inline,
    ints,
    prefetch,
    room_rows,
    room_squares,
    rows,
)
from cardiogen.ops.kernels.cpu.launch import launch
from cardiogen.ops.kernels.cpu.lines import (
    FREE_LINE,
    gather2,
    gather3,
    line_span,
    locate,
    outside,
    slopes2,
    slopes3,
    voxel_strides,
    warp2,
    within,
)

# A chunk holds about this many positions: enough to hide the launch, few enough to balance.
_CHUNK = 32768


def sample(image: Tensor, coords: Tensor, *, fade: bool, relative: bool) -> Tensor:
    """Return the linear interpolant ``(B, C, *out)`` of ``image`` at ``coords``.

    Args:
        image: ``(Bi, C, *S)`` contiguous float32. Of the two batches the smaller divides the
            larger, B: consecutive samples share an image or coords.
        coords: ``(Bc, d, *out)`` contiguous float32, voxels.
        fade: let values fade to 0 outside the grid instead of repeating the border.
        relative: ``coords`` are displacements of the voxels of their own lattice.
    """
    batch = max(image.shape[0], coords.shape[0])
    out = image.new_empty(batch, image.shape[1], *coords.shape[2:])
    lines = lines_of(coords, relative)
    per = lines_per_chunk(coords, lines)
    launch(
        _sample, -(-batch * lines // per), image, coords, out, batch, *batches(image, coords),
        image.shape[1], *sizes(image, coords), fade, relative, lines, per,
        room=(LINE_ROWS + 9) * longest_line(coords, relative),
    )  # fmt: skip

    return out


def coords_gradient(
    grad: Tensor, image: Tensor, coords: Tensor, *, fade: bool, relative: bool
) -> Tensor:
    """Return the gradient ``(Bc, d, *out)`` of ``<grad, sample(image, coords)>``."""
    out = torch.empty_like(coords)
    lines = lines_of(coords, relative)
    per = lines_per_chunk(coords, lines)
    launch(
        _coords_gradient, -(-coords.shape[0] * lines // per), grad, image, coords, out,
        grad.shape[0], *batches(image, coords), image.shape[1], *sizes(image, coords), fade,
        relative, lines, per, room=(LINE_ROWS + 14) * longest_line(coords, relative),
    )  # fmt: skip

    return out


def batches(image: Tensor, coords: Tensor) -> tuple[int, int]:
    """Return how many consecutive samples share an image, and coords."""
    batch = max(image.shape[0], coords.shape[0])

    return batch // image.shape[0], batch // coords.shape[0]


def sizes(image: Tensor, coords: Tensor) -> tuple[int, ...]:
    """Return dimension, image size as (d, h, w) and number of positions of a sample."""
    shape = tuple(image.shape[2:])

    return (len(shape), *(1,) * (3 - len(shape)), *shape, math.prod(coords.shape[2:]))


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


@rows
def _fade(values, fade_d, fade_h, fade_w):
    for w in range(len(values)):
        values[w] *= fade_d[w] * fade_h[w] * fade_w[w]


@inline
def _fetch_ahead(coords, image, out, total, start, first, size):
    """Ask for the memory of a 2D row to come: reads at computed places are not foreseen."""
    for w in range(0, size, 16):
        prefetch(coords, start + w)
        prefetch(coords, total + start + w)
        prefetch(out, first + start + w)
        # Free coords and images of another size may begin anywhere.
        prefetch(image, min(start + 2 * size + w, len(image) - 1))


@Kernel
def _sample(job, chunk, room):
    (
        image_at, coords_at, out_at, batch, per_image, per_coords, channels, ndim,
        depth, height, width, total, fading, relative, lines, per,
    ) = arguments(job, 16)  # fmt: skip
    voxels = depth * height * width
    images = floats(image_at, batch // per_image * channels * voxels)
    fields = floats(coords_at, batch // per_coords * ndim * total)
    out = floats(out_at, batch * channels * total)
    up_d, up_h, up_w = voxel_strides(depth, height, width)
    longest = width if relative else FREE_LINE
    offsets, shares = line_room(room, longest)
    marks_all = room_squares(room, LINE_ROWS, longest)
    for index in range(chunk * per, min((chunk + 1) * per, batch * lines)):
        sample, line = index // lines, index % lines
        start, size = line_span(line, not relative, width, total)
        first = sample // per_coords * ndim * total
        coords = fields[first : first + ndim * total]
        if ndim == 2 and channels == 1 and not fading:
            values = images[sample // per_image * voxels : (sample // per_image + 1) * voxels]
            to, stop = sample * total + start, start + size
            base = line if relative else 0
            if stop + 4 * size <= total:
                _fetch_ahead(coords, values, out, total, stop + size, sample * total, size)
            warp2(
                values, height, width, coords[start:stop], coords[total + start : total + stop],
                base, relative, out[to : to + size],
            )  # fmt: skip
            continue
        offset, a, b, c = offsets[:size], shares[0, :size], shares[1, :size], shares[2, :size]
        marks = marks_all[:, :, :size]
        locate_line(
            line, start, 1, total, relative, coords, (depth, height, width), offset, a, b, c
        )
        if fading:
            mark_line(line, start, total, relative, coords, (depth, height, width), marks)
        for channel in range(channels):
            first = (sample // per_image * channels + channel) * voxels
            values = images[first : first + voxels]
            to = (sample * channels + channel) * total + start
            if ndim == 3:
                gather3(values, offset, a, b, c, up_d, up_h, up_w, out[to : to + size])
            else:
                gather2(values, offset, b, c, up_h, up_w, out[to : to + size])
            if fading:
                _fade(out[to : to + size], marks[0, 1], marks[1, 1], marks[2, 1])


@rows
def _mask(slope, inside):
    """Beyond the border the image is constant; written so that a NaN there stays behind."""
    for w in range(len(slope)):
        slope[w] = slope[w] if inside[w] == np.float32(1) else np.float32(0)


@rows
def _fade_slope(slope, value, inside, falls, other, another):
    """Differentiate value times fade along one axis: on the grid value changes, beyond it fade.

    Where neither does the slope is 0, written so that a NaN there stays behind.
    """
    zero = np.float32(0)
    for w in range(len(slope)):
        both = other[w] * another[w]
        beyond = value[w] * (falls[w] * both) if falls[w] != zero else zero
        slope[w] = slope[w] * both if inside[w] == np.float32(1) else beyond


@rows
def _add_product(weight, values, out):
    for w in range(len(out)):
        out[w] += weight[w] * values[w]


@Kernel
def _coords_gradient(job, chunk, room):
    (
        grad_at, image_at, coords_at, out_at, batch, per_image, per_coords, channels, ndim,
        depth, height, width, total, fading, relative, lines, per,
    ) = arguments(job, 17)  # fmt: skip
    voxels = depth * height * width
    fields_count = batch // per_coords
    grads = floats(grad_at, batch * channels * total)
    images = floats(image_at, batch // per_image * channels * voxels)
    fields = floats(coords_at, fields_count * ndim * total)
    out = floats(out_at, fields_count * ndim * total)
    up_d, up_h, up_w = voxel_strides(depth, height, width)
    shape = (depth, height, width)
    longest = width if relative else FREE_LINE
    offsets, shares = line_room(room, longest)
    marks_all = room_squares(room, LINE_ROWS, longest)
    slopes = room_rows(room, LINE_ROWS + 9, 3, longest)
    values_read = room_rows(room, LINE_ROWS + 12, 2, longest)
    for index in range(chunk * per, min((chunk + 1) * per, fields_count * lines)):
        field, line = index // lines, index % lines
        start, size = line_span(line, not relative, width, total)
        first = field * ndim * total
        coords = fields[first : first + ndim * total]
        offset, a, b, c = offsets[:size], shares[0, :size], shares[1, :size], shares[2, :size]
        at_d, at_h, at_w = slopes[0, :size], slopes[1, :size], slopes[2, :size]
        read, value = values_read[0, :size], values_read[1, :size]
        marks = marks_all[:, :, :size]
        locate_line(line, start, 1, total, relative, coords, shape, offset, a, b, c)
        slopes[:] = 0
        value[:] = 0
        for sample in range(field * per_coords, (field + 1) * per_coords):
            for channel in range(channels):
                first = (sample // per_image * channels + channel) * voxels
                values = images[first : first + voxels]
                at = (sample * channels + channel) * total + start
                weight = grads[at : at + size]
                if ndim == 3:
                    slopes3(values, offset, a, b, c, up_d, up_h, up_w, weight, at_d, at_h, at_w)
                else:
                    slopes2(values, offset, b, c, up_h, up_w, weight, at_h, at_w)
                if fading:
                    if ndim == 3:
                        gather3(values, offset, a, b, c, up_d, up_h, up_w, read)
                    else:
                        gather2(values, offset, b, c, up_h, up_w, read)
                    _add_product(weight, read, value)
        if fading:
            mark_line(line, start, total, relative, coords, shape, marks)
        for axis in range(3 - ndim, 3):
            slope, component = slopes[axis, :size], axis - (3 - ndim)
            at = (field * ndim + component) * total + start
            if not fading:
                base, step = row_base(line, axis, height, relative), axis == 2 and relative
                within(fields[at : at + size], 1, base, step, shape[axis], marks[axis, 0])
                _mask(slope, marks[axis, 0])
            else:
                i, k = (axis + 1) % 3, (axis + 2) % 3
                _fade_slope(slope, value, marks[axis, 0], marks[axis, 2], marks[i, 1], marks[k, 1])
            out[at : at + size] = slope
