"""Adding values to the voxels around positions, in one fixed order.

Every thread owns slabs of the image along its first axis, goes through all lines of positions in
order and adds what falls into its slab. A voxel receives its terms in the order of the lines
whatever the number of slabs, so the sum has the same bits for any number of threads. Lines that
miss a slab are skipped by their range, found beforehand.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.intrinsics import (
    add32,
    add_at,
    arguments,
    floats,
    ints,
    real,
    room_rows,
    room_squares,
)
from cardiogen.ops.kernels.cpu.jit import Kernel, exact_rows, inline, rows
from cardiogen.ops.kernels.cpu.launch import launch
from cardiogen.ops.kernels.cpu.layout import (
    LINE_ROWS,
    line_room,
    lines_of,
    lines_per_chunk,
    locate_line,
    longest_line,
    mark_line,
    sizes,
    slab_count,
)
from cardiogen.ops.kernels.cpu.lines import FREE_LINE, cell, limits, line_span, voxel_strides


def push(
    values: Tensor,
    coords: Tensor,
    shape: tuple[int, ...],
    *,
    fade: bool,
    relative: bool = False,
    images: int | None = None,
) -> Tensor:
    """Return the sum ``(B, C, *shape)`` of values around coords: the adjoint of ``sample``.

    Args:
        values: ``(Bv, C, *out)`` contiguous float32.
        coords: ``(Bc, d, *out)`` contiguous float32, voxels. Of the two batches the smaller
            divides the larger: consecutive samples share values or coords.
        shape: spatial shape of the image.
        fade: adjoint of a sample that fades to 0 outside the grid.
        relative: ``coords`` are displacements of the voxels of their own lattice.
        images: batch of the result, B unless given; a divisor of B sums consecutive samples.
    """
    batch = max(values.shape[0], coords.shape[0])
    images = images or batch
    out = values.new_zeros(images, values.shape[1], *shape)
    lines = lines_of(coords, relative)
    slabs = slab_count(shape[0], images)
    launch(
        _push, images * slabs, values, coords, out, line_ranges(coords, shape, relative), batch,
        batch // images, batch // coords.shape[0], batch // values.shape[0], values.shape[1],
        *sizes(out, coords), fade, relative, lines, slabs,
        room=(LINE_ROWS + 18) * longest_line(coords, relative),
    )  # fmt: skip

    return out


def line_ranges(
    coords: Tensor, shape: tuple[int, ...], relative: bool, scale: float = 1.0
) -> Tensor:
    """Return the lowest and highest lower voxel along the first axis of all lines, int32."""
    lines = lines_of(coords, relative)
    ranges = coords.new_empty(coords.shape[0], lines, 2, dtype=torch.int32)
    per = lines_per_chunk(coords, lines)
    launch(
        _line_ranges, -(-coords.shape[0] * lines // per), coords, ranges, scale, coords.shape[0],
        coords.shape[1], shape[0], coords[0, 0].numel(), coords.shape[-1],
        coords.shape[-2] if len(shape) == 3 else 1, relative, lines, per,
    )  # fmt: skip

    return ranges


@Kernel
def _line_ranges(job, chunk, room):
    (
        coords_at, ranges_at, scale_at, batch, ndim, slices, total, width, rows_per_slice,
        relative, lines, per,
    ) = arguments(job, 12)  # fmt: skip
    fields = floats(coords_at, batch * ndim * total)
    ranges = ints(ranges_at, batch * lines * 2)
    scale = real(scale_at)
    for index in range(chunk * per, min((chunk + 1) * per, batch * lines)):
        field, line = index // lines, index % lines
        start, size = line_span(line, not relative, width, total)
        first = field * ndim * total + start
        base = line // rows_per_slice if relative else 0
        _line_range(fields[first : first + size], scale, base, slices, ranges[2 * index :])


@rows
def _line_range(line, scale, base, size, out):
    last, low = limits(size)
    scale, base = np.float32(scale), np.float32(base)
    lowest, highest = low, np.int32(0)
    for w in range(len(line)):
        lower, _ = cell(scale * line[w] + base, last, low)
        lowest = min(lowest, lower)
        highest = max(highest, lower)
    out[0], out[1] = lowest, highest


@inline
def misses(ranges, index, begin, end):
    """Return whether no cell of a line touches the slices from ``begin`` to before ``end``."""
    return ranges[2 * index] >= end or ranges[2 * index + 1] + 1 < begin


@inline
def stays(ranges, index, begin, end):
    """Return whether all cells of a line lie in the slices from ``begin`` to before ``end``."""
    return ranges[2 * index] >= begin and ranges[2 * index + 1] + 1 < end


@exact_rows
def split3(values, a, b, c, parts):
    """Split values among the eight corners of their cells, rows of ``parts`` with w fastest."""
    one = np.float32(1)
    for w in range(len(values)):
        low, high = values[w] * (one - a[w]), values[w] * a[w]
        low_0, low_1 = low * (one - b[w]), low * b[w]
        high_0, high_1 = high * (one - b[w]), high * b[w]
        parts[0, w], parts[1, w] = low_0 * (one - c[w]), low_0 * c[w]
        parts[2, w], parts[3, w] = low_1 * (one - c[w]), low_1 * c[w]
        parts[4, w], parts[5, w] = high_0 * (one - c[w]), high_0 * c[w]
        parts[6, w], parts[7, w] = high_1 * (one - c[w]), high_1 * c[w]


@exact_rows
def split2(values, b, c, parts):
    """Split values among the four corners of their cells."""
    one = np.float32(1)
    for w in range(len(values)):
        low, high = values[w] * (one - b[w]), values[w] * b[w]
        parts[0, w], parts[1, w] = low * (one - c[w]), low * c[w]
        parts[2, w], parts[3, w] = high * (one - c[w]), high * c[w]


@exact_rows
def add_edges_within(out, begin, end, offset, shift, up_w, parts):
    """Add two parts of a 2D line to the voxel pairs at ``offset + shift``, within limits."""
    for w in range(len(offset)):
        p = add32(offset[w], shift)
        if p >= begin and p < end:
            add_at(out, p, parts[0, w])
            add_at(out, add32(p, up_w), parts[1, w])


@exact_rows
def add_squares(out, offset, shift, up_h, up_w, parts):
    """Add four parts of a line to the squares of voxels at ``offset + shift``.

    One plane of voxels at a time: a store to one plane and a load from the next, often a multiple
    of 4096 bytes further on, look like the same address to the processor and wait for each other.
    """
    for w in range(len(offset)):
        p = add32(offset[w], shift)
        q = add32(p, up_h)
        add_at(out, p, parts[0, w])
        add_at(out, add32(p, up_w), parts[1, w])
        add_at(out, q, parts[2, w])
        add_at(out, add32(q, up_w), parts[3, w])


@exact_rows
def add_squares_within(out, begin, end, offset, shift, up_h, up_w, parts):
    """As ``add_squares``, for the squares that begin at offsets ``begin`` to before ``end``."""
    for w in range(len(offset)):
        p = add32(offset[w], shift)
        if p >= begin and p < end:
            q = add32(p, up_h)
            add_at(out, p, parts[0, w])
            add_at(out, add32(p, up_w), parts[1, w])
            add_at(out, q, parts[2, w])
            add_at(out, add32(q, up_w), parts[3, w])


@inline
def add_line(target, whole, span, ndim, offset, a, b, c, ups, values, parts):
    """Add one line of values to one channel of an image, within the span of a slab."""
    up_d, up_h, up_w = ups
    begin, end, none = span[0], span[1], np.int32(0)
    if ndim == 2:
        split2(values, b, c, parts)
        add_edges_within(target, begin, end, offset, none, up_w, parts)
        add_edges_within(target, begin, end, offset, up_h, up_w, parts[2:])
        return
    split3(values, a, b, c, parts)
    if whole:
        add_squares(target, offset, none, up_h, up_w, parts)
        add_squares(target, offset, up_d, up_h, up_w, parts[4:])
    else:
        add_squares_within(target, begin, end, offset, none, up_h, up_w, parts)
        add_squares_within(target, begin, end, offset, up_d, up_h, up_w, parts[4:])


@exact_rows
def _faded(values, fade_d, fade_h, fade_w, out):
    for w in range(len(out)):
        out[w] = values[w] * (fade_d[w] * fade_h[w] * fade_w[w])


@Kernel
def _push(job, chunk, room):
    (
        values_at, coords_at, out_at, ranges_at, batch, per_image, per_coords, per_values,
        channels, ndim, depth, height, width, total, fading, relative, lines, slabs,
    ) = arguments(job, 18)  # fmt: skip
    voxels = depth * height * width
    all_values = floats(values_at, batch // per_values * channels * total)
    fields = floats(coords_at, batch // per_coords * ndim * total)
    out = floats(out_at, batch // per_image * channels * voxels)
    ranges = ints(ranges_at, batch // per_coords * lines * 2)
    ups = voxel_strides(depth, height, width)
    longest = width if relative else FREE_LINE
    offsets, shares = line_room(room, longest)
    kept_row = room_rows(room, LINE_ROWS, 1, longest)
    parts = room_rows(room, LINE_ROWS + 1, 8, longest)
    marks_all = room_squares(room, LINE_ROWS + 9, longest)
    slices = depth if ndim == 3 else height
    image, slab = chunk // slabs, chunk % slabs
    begin, end = slab * slices // slabs, (slab + 1) * slices // slabs
    span = (begin * (voxels // slices), end * (voxels // slices))
    for sample in range(image * per_image, (image + 1) * per_image):
        field = sample // per_coords
        first = field * ndim * total
        coords = fields[first : first + ndim * total]
        for line in range(lines):
            if misses(ranges, field * lines + line, begin, end):
                continue
            start, size = line_span(line, not relative, width, total)
            offset = offsets[:size]
            marks, kept = marks_all[:, :, :size], kept_row[0, :size]
            shape = (depth, height, width)
            locate_line(
                line, start, 1, total, relative, coords, shape, offset, shares[0, :size],
                shares[1, :size], shares[2, :size],
            )  # fmt: skip
            whole = stays(ranges, field * lines + line, begin, end)
            if fading:
                mark_line(line, start, total, relative, coords, shape, marks)
            for channel in range(channels):
                at = (sample // per_values * channels + channel) * total + start
                values = all_values[at : at + size]
                if fading:
                    _faded(values, marks[0, 1], marks[1, 1], marks[2, 1], kept)
                    values = kept
                at = (image * channels + channel) * voxels
                target = out[at : at + voxels]
                add_line(
                    target, whole, span, ndim, offset, shares[0, :size],
                    shares[1, :size], shares[2, :size], ups, values, parts,
                )  # fmt: skip
