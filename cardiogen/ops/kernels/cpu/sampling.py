"""Linear sampling at coords or displaced voxels, and its gradient with respect to positions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.arithmetic import add_product
from cardiogen.ops.kernels.cpu.intrinsics import (
    arguments,
    floats,
    prefetch,
    room_rows,
    room_squares,
)
from cardiogen.ops.kernels.cpu.jit import Kernel, inline, rows
from cardiogen.ops.kernels.cpu.launch import launch
from cardiogen.ops.kernels.cpu.layout import (
    LINE_ROWS,
    batches,
    line_room,
    lines_of,
    lines_per_chunk,
    locate_line,
    longest_line,
    mark_line,
    row_base,
    sizes,
)
from cardiogen.ops.kernels.cpu.lines import (
    FREE_LINE,
    gather2,
    gather3,
    line_span,
    slopes2,
    slopes3,
    voxel_strides,
    warp2,
    warp2_slopes,
    within,
)


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
        if ndim == 2 and channels == 1 and per_coords == 1 and not fading:
            image, stop = field // per_image * voxels, start + size
            to = field * ndim * total + start
            warp2_slopes(
                images[image : image + voxels], height, width, coords[start:stop],
                coords[total + start : total + stop], line if relative else 0, relative,
                grads[field * total + start : field * total + stop], out[to : to + size],
                out[to + total : to + total + size],
            )  # fmt: skip
            continue
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
                    add_product(weight, read, value)
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
