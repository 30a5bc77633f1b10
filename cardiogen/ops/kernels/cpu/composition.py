"""Composition of displacements, and the adjoint of a displacement composed with itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.intrinsics import arguments, floats, ints, real, room_rows
from cardiogen.ops.kernels.cpu.jit import Kernel, inline, rows
from cardiogen.ops.kernels.cpu.launch import launch
from cardiogen.ops.kernels.cpu.layout import (
    LINE_ROWS,
    batches,
    line_room,
    lines_of,
    lines_per_chunk,
    locate_line,
    row_base,
    sizes,
    slab_count,
)
from cardiogen.ops.kernels.cpu.lines import (
    gather2,
    gather3,
    slopes2,
    slopes3,
    voxel_strides,
    within,
)
from cardiogen.ops.kernels.cpu.scatter import add_line, line_ranges, misses, stays


def compose(
    a_to_b: Tensor, b_to_c: Tensor, *, scale: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """Return ``s a(x) + s b(x + s a(x))``, ``(B, d, *S)``.

    Args:
        a_to_b: ``(Ba, d, *S)`` contiguous float32, voxels.
        b_to_c: ``(Bb, d, *S)`` contiguous float32, voxels; the smaller batch divides the larger.
        scale: s, for the first step of scaling and squaring.
        out: where to write; neither of the inputs.
    """
    batch = max(a_to_b.shape[0], b_to_c.shape[0])
    out = a_to_b.new_empty(batch, *a_to_b.shape[1:]) if out is None else out
    lines, per = lines_of(a_to_b, True), lines_per_chunk(a_to_b, lines_of(a_to_b, True))
    launch(
        _compose, -(-batch * lines // per), a_to_b, b_to_c, out, float(scale), batch,
        *batches(b_to_c, a_to_b), *sizes(b_to_c, a_to_b), lines, per,
        room=LINE_ROWS * a_to_b.shape[-1],
    )  # fmt: skip

    return out


def compose_backward_self(
    grad: Tensor, field: Tensor, *, scale: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """Return the gradient of ``<grad, w + w(x + w)>`` with respect to ``w = s field``.

    That is ``g + Dw(x + w)^T g`` plus ``g`` pushed to ``x + w``.

    Args:
        grad: ``(B, d, *S)`` contiguous float32.
        field: ``(B, d, *S)`` contiguous float32, voxels.
        scale: s.
        out: where to write; neither of the inputs.
    """
    out = torch.empty_like(field) if out is None else out
    shape = tuple(field.shape[2:])
    lines, slabs = lines_of(field, True), slab_count(shape[0], field.shape[0])
    launch(
        _compose_backward_self, field.shape[0] * slabs, grad, field, out,
        line_ranges(field, shape, True, float(scale)), float(scale), field.shape[0],
        *sizes(field, field), lines, slabs, room=(LINE_ROWS + 12) * field.shape[-1],
    )  # fmt: skip

    return out


@rows
def _add_scaled(out, line, scale):
    scale = np.float32(scale)
    for w in range(len(out)):
        out[w] = scale * (line[w] + out[w])


@Kernel
def _compose(job, chunk, room):
    (
        first_at, second_at, out_at, scale_at, batch, per_second, per_first, ndim, depth, height,
        width, total, lines, per,
    ) = arguments(job, 14)  # fmt: skip
    firsts = floats(first_at, batch // per_first * ndim * total)
    seconds = floats(second_at, batch // per_second * ndim * total)
    out = floats(out_at, batch * ndim * total)
    scale = real(scale_at)
    up_d, up_h, up_w = voxel_strides(depth, height, width)
    offset, shares = line_room(room, width)
    a, b, c = shares[0], shares[1], shares[2]
    for index in range(chunk * per, min((chunk + 1) * per, batch * lines)):
        sample, line = index // lines, index % lines
        first = sample // per_first * ndim * total
        coords = firsts[first : first + ndim * total]
        start = line * width
        shape = (depth, height, width)
        locate_line(line, start, scale, total, True, coords, shape, offset, a, b, c)
        for component in range(ndim):
            at = (sample // per_second * ndim + component) * total
            values = seconds[at : at + total]
            to = (sample * ndim + component) * total + start
            target = out[to : to + width]
            if ndim == 3:
                gather3(values, offset, a, b, c, up_d, up_h, up_w, target)
            else:
                gather2(values, offset, b, c, up_h, up_w, target)
            at = component * total + start
            _add_scaled(target, coords[at : at + width], scale)


@rows
def _add_slope(grad, slope, inside, scale, out):
    scale = np.float32(scale)
    for w in range(len(out)):
        out[w] = grad[w] + (scale * slope[w] if inside[w] == np.float32(1) else np.float32(0))


@Kernel
def _compose_backward_self(job, chunk, room):
    (
        grad_at, field_at, out_at, ranges_at, scale_at, batch, ndim, depth, height, width, total,
        lines, slabs,
    ) = arguments(job, 13)  # fmt: skip
    scale = real(scale_at)
    sample, slab = chunk // slabs, chunk % slabs
    size = ndim * total
    grads = floats(grad_at, batch * size)[sample * size : (sample + 1) * size]
    field = floats(field_at, batch * size)[sample * size : (sample + 1) * size]
    out = floats(out_at, batch * size)[sample * size : (sample + 1) * size]
    ranges = ints(ranges_at, batch * lines * 2)
    shape = (depth, height, width)
    slices = depth if ndim == 3 else height
    begin, end = slab * slices // slabs, (slab + 1) * slices // slabs
    per_slice = lines // slices
    offset, shares = line_room(room, width)
    slopes = room_rows(room, LINE_ROWS, 4, width)
    parts = room_rows(room, LINE_ROWS + 4, 8, width)
    for line in range(begin * per_slice, end * per_slice):
        _local_part(line, scale, total, grads, field, out, shape, offset, shares, slopes)
    for line in range(lines):
        index = sample * lines + line
        if not misses(ranges, index, begin, end):
            span = (begin * per_slice * width, end * per_slice * width)
            _pushed_part(
                line, scale, total, grads, field, out, shape, offset, shares, parts,
                stays(ranges, index, begin, end), span,
            )  # fmt: skip


@inline
def _local_part(line, scale, total, grads, field, out, shape, offset, shares, slopes):
    """Write ``g + Dw(x + w)^T g`` of one line."""
    depth, height, width = shape
    up_d, up_h, up_w = voxel_strides(depth, height, width)
    ndim, start = len(field) // total, line * width
    a, b, c = shares[0], shares[1], shares[2]
    locate_line(line, start, scale, total, True, field, shape, offset, a, b, c)
    slopes[:3] = 0
    for component in range(ndim):
        values = field[component * total : (component + 1) * total]
        at = component * total + start
        weight = grads[at : at + width]
        if ndim == 3:
            slopes3(
                values, offset, a, b, c, up_d, up_h, up_w, weight, slopes[0], slopes[1], slopes[2]
            )
        else:
            slopes2(values, offset, b, c, up_h, up_w, weight, slopes[1], slopes[2])
    for component in range(ndim):
        at = component * total + start
        axis = component + 3 - ndim
        base = row_base(line, axis, height, True)
        inside = slopes[3]
        within(field[at : at + width], scale, base, axis == 2, shape[axis], inside)
        _add_slope(grads[at : at + width], slopes[axis], inside, scale, out[at : at + width])


@inline
def _pushed_part(line, scale, total, grads, field, out, shape, offset, shares, parts, whole, span):
    """Add ``g`` to the voxels around ``x + w``."""
    depth, height, width = shape
    ndim, start = len(field) // total, line * width
    a, b, c = shares[0], shares[1], shares[2]
    locate_line(line, start, scale, total, True, field, shape, offset, a, b, c)
    ups = voxel_strides(depth, height, width)
    for component in range(ndim):
        at = component * total
        values = grads[at + start : at + start + width]
        target = out[at : at + total]
        add_line(target, whole, span, ndim, offset, a, b, c, ups, values, parts)
