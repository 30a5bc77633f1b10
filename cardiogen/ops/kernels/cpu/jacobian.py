"""Jacobian determinants of displacements by central differences, and their gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.arithmetic import add_scaled
from cardiogen.ops.kernels.cpu.intrinsics import arguments, floats, room_rows, room_squares
from cardiogen.ops.kernels.cpu.jit import Kernel, inline, rows
from cardiogen.ops.kernels.cpu.launch import launch
from cardiogen.ops.kernels.cpu.layout import padded, slab_count

_CHUNK = 16384


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Return ``det(I + du/dx)`` ``(B, 1, *S)`` of ``(B, d, *S)`` contiguous float32, voxels."""
    batch, ndim, *shape = displacement.shape
    out = displacement.new_empty(batch, 1, *shape)
    depth, height, width = padded(shape)
    per = max(1, _CHUNK // width)
    launch(
        _determinant, -(-batch * depth * height // per), displacement, out, batch, ndim, depth,
        height, width, per, room=9 * width,
    )  # fmt: skip

    return out


def jacobian_determinant_backward(grad: Tensor, displacement: Tensor) -> Tensor:
    """Return the gradient ``(B, d, *S)`` of ``<grad, jacobian_determinant(displacement)>``."""
    batch, ndim, *shape = displacement.shape
    out = torch.zeros_like(displacement)
    depth, height, width = padded(shape)
    slabs = slab_count(shape[0], batch)
    launch(
        _determinant_gradient, batch * slabs, grad, displacement, out, batch, ndim, depth, height,
        width, slabs, room=10 * width,
    )  # fmt: skip

    return out


@inline
def neighbors(index, size):
    """Return the voxels whose difference is the slope at ``index``, and its factor."""
    low, high = max(index - 1, 0), min(index + 1, size - 1)
    factor = np.float32(0) if size == 1 else np.float32(1) / np.float32(high - low)

    return low, high, factor


@rows
def _slope_across(low, high, factor, out):
    for w in range(len(out)):
        out[w] = (high[w] - low[w]) * factor


@rows
def _slope_along(line, out):
    last = len(line) - 1
    half = np.float32(0.5)
    for w in range(1, last):
        out[w] = (line[w + 1] - line[w - 1]) * half
    if last == 0:
        out[0] = 0
    else:
        out[0] = line[1] - line[0]
        out[last] = line[last] - line[last - 1]


@inline
def slope_rows(field, total, sample_row, ndim, depth, height, width, slopes):
    """Write the rows of ``du_i/dx_j`` at (d, h) to ``slopes[i, j]``, of d, h, w alike."""
    d, h = sample_row // height, sample_row % height
    d_low, d_high, d_factor = neighbors(d, depth)
    h_low, h_high, h_factor = neighbors(h, height)
    for component in range(ndim):
        i = component + 3 - ndim
        start = component * total
        if ndim == 3:
            low = start + (d_low * height + h) * width
            high = start + (d_high * height + h) * width
            _slope_across(
                field[low : low + width], field[high : high + width], d_factor, slopes[i, 0]
            )
        low = start + (d * height + h_low) * width
        high = start + (d * height + h_high) * width
        _slope_across(field[low : low + width], field[high : high + width], h_factor, slopes[i, 1])
        at = start + sample_row * width
        _slope_along(field[at : at + width], slopes[i, 2])


@rows
def _det3(s00, s01, s02, s10, s11, s12, s20, s21, s22, out):
    one = np.float32(1)
    for w in range(len(out)):
        a, e, k = one + s00[w], one + s11[w], one + s22[w]
        out[w] = (
            a * (e * k - s12[w] * s21[w])
            - s01[w] * (s10[w] * k - s12[w] * s20[w])
            + s02[w] * (s10[w] * s21[w] - e * s20[w])
        )


@rows
def _det2(s11, s12, s21, s22, out):
    one = np.float32(1)
    for w in range(len(out)):
        out[w] = (one + s11[w]) * (one + s22[w]) - s12[w] * s21[w]


@Kernel
def _determinant(job, chunk, room):
    field_at, out_at, batch, ndim, depth, height, width, per = arguments(job, 8)
    lines = depth * height
    total = lines * width
    fields, out = floats(field_at, batch * ndim * total), floats(out_at, batch * total)
    slopes = room_squares(room, 0, width)
    for index in range(chunk * per, min((chunk + 1) * per, batch * lines)):
        sample, line = index // lines, index % lines
        field = fields[sample * ndim * total : (sample + 1) * ndim * total]
        slope_rows(field, total, line, ndim, depth, height, width, slopes)
        target = out[index * width : (index + 1) * width]
        if ndim == 3:
            _det3(
                slopes[0, 0], slopes[0, 1], slopes[0, 2], slopes[1, 0], slopes[1, 1],
                slopes[1, 2], slopes[2, 0], slopes[2, 1], slopes[2, 2], target,
            )  # fmt: skip
        else:
            _det2(slopes[1, 1], slopes[1, 2], slopes[2, 1], slopes[2, 2], target)


@rows
def _cofactor(a, d, b, c, grad, sign, out):
    """Write ``sign grad (a d - b c)``."""
    for w in range(len(out)):
        out[w] = sign * grad[w] * (a[w] * d[w] - b[w] * c[w])


@rows
def _add_slope_adjoint(values, out):
    """Add the adjoint of ``_slope_along``."""
    last = len(out) - 1
    half = np.float32(0.5)
    for w in range(2, last + 1):
        out[w] += half * values[w - 1]
    for w in range(last - 1):
        out[w] -= half * values[w + 1]
    if last > 0:
        out[1] += values[0]
        out[0] -= values[0]
        out[last] += values[last]
        out[last - 1] -= values[last]


@Kernel
def _determinant_gradient(job, chunk, room):
    grad_at, field_at, out_at, batch, ndim, depth, height, width, slabs = arguments(job, 9)
    lines = depth * height
    total = lines * width
    sample, slab = chunk // slabs, chunk % slabs
    first = sample * ndim * total
    field = floats(field_at, batch * ndim * total)[first : first + ndim * total]
    out = floats(out_at, batch * ndim * total)[first : first + ndim * total]
    grads = floats(grad_at, batch * total)[sample * total : (sample + 1) * total]
    slopes = room_squares(room, 0, width)
    part = room_rows(room, 9, 1, width)[0]
    # A slab owns these rows of the gradient; rows of its neighbors reach one slice into it.
    slices, per_slice = (depth, height) if ndim == 3 else (height, 1)
    begin, end = slab * slices // slabs, (slab + 1) * slices // slabs
    for line in range(max(begin - 1, 0) * per_slice, min(end + 1, slices) * per_slice):
        slope_rows(field, total, line, ndim, depth, height, width, slopes)
        for i in range(3 - ndim, 3):
            slopes[i, i] += 1
        grad = grads[line * width : (line + 1) * width]
        for i in range(3 - ndim, 3):
            target = out[(i + ndim - 3) * total : (i + ndim - 2) * total]
            for j in range(3 - ndim, 3):
                _cofactor_row(slopes, i, j, ndim, grad, part)
                _add_difference_adjoint(
                    part, j, line, depth, height, width, begin * per_slice, end * per_slice, target
                )


@inline
def _cofactor_row(slopes, i, j, ndim, grad, part):
    one = np.float32(1)
    if ndim == 2:
        _cofactor_2(slopes[3 - i, 3 - j], grad, one if i == j else -one, part)
        return
    i_1, i_2, j_1, j_2 = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
    _cofactor(
        slopes[i_1, j_1], slopes[i_2, j_2], slopes[i_1, j_2], slopes[i_2, j_1], grad, one, part
    )


@rows
def _cofactor_2(other, grad, sign, out):
    for w in range(len(out)):
        out[w] = sign * grad[w] * other[w]


@inline
def _add_difference_adjoint(part, axis, line, depth, height, width, begin, end, target):
    """Add the adjoint of the slope along an axis, to rows from ``begin`` to before ``end``."""
    if axis == 2:
        if line >= begin and line < end:
            _add_slope_adjoint(part, target[line * width : (line + 1) * width])
        return
    index, size, step = (
        (line // height, depth, height) if axis == 0 else (line % height, height, 1)
    )
    low, high, factor = neighbors(index, size)
    for neighbor, sign in ((high, factor), (low, -factor)):
        row = line + (neighbor - index) * step
        if row >= begin and row < end:
            add_scaled(part, sign, target[row * width : (row + 1) * width])
