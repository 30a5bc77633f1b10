"""The determinants of a cell's tetrahedra or triangles, all in one pass."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cardiogen.ops.kernels.cpu.intrinsics import arguments, floats
from cardiogen.ops.kernels.cpu.jit import Kernel, inline, rows
from cardiogen.ops.kernels.cpu.launch import launch
from cardiogen.ops.kernels.cpu.layout import padded

_CHUNK = 8192


def folding_determinants(displacement: Tensor) -> Tensor:
    """Return ``(B, 10, *cells)``, in 2D ``(B, 4, *cells)``, of ``(B, d, *S)`` float32, voxels.

    The corner tetrahedra come first, in binary order of (d, h, w), then the two in the middle; an
    axis of one voxel gives one cell that is not deformed along it.
    """
    batch, ndim, *shape = displacement.shape
    cells = [max(1, n - 1) for n in shape]
    out = displacement.new_empty(batch, 10 if ndim == 3 else 4, *cells)
    depth, height, width = padded(shape)
    lines = out[0, 0].numel() // cells[-1]
    per = max(1, _CHUNK // cells[-1])
    launch(
        _folding, -(-batch * lines // per), displacement, out, batch, ndim, depth, height, width,
        lines, per,
    )  # fmt: skip

    return out


@inline
def _triple(a, b, c):
    return (
        a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )


@inline
def _column(low, high, w, rest):
    """Return the deformed edge ``rest + u(high) - u(low)``."""
    return (
        rest[0] + (high[0][w] - low[0][w]),
        rest[1] + (high[1][w] - low[1][w]),
        rest[2] + (high[2][w] - low[2][w]),
    )


@rows
def _corner_row(low_d, high_d, low_h, high_h, low_w, high_w, out):
    """Write the determinants of corners from the ends of their three edges."""
    one, zero = np.float32(1), np.float32(0)
    for w in range(len(out)):
        a = _column(low_d, high_d, w, (one, zero, zero))
        b = _column(low_h, high_h, w, (zero, one, zero))
        c = _column(low_w, high_w, w, (zero, zero, one))
        out[w] = _triple(a, b, c)


@rows
def _middle_row(low_d, high_d, low_h, high_h, low_w, high_w, out):
    """Write half the determinants of the diagonals of the faces that meet in an apex."""
    one, zero, half = np.float32(1), np.float32(0), np.float32(0.5)
    for w in range(len(out)):
        a = _column(low_d, high_d, w, (zero, one, one))
        b = _column(low_h, high_h, w, (one, zero, one))
        c = _column(low_w, high_w, w, (one, one, zero))
        out[w] = _triple(a, b, c) * half


@rows
def _corner_row_2(low_h, high_h, low_w, high_w, out):
    one = np.float32(1)
    for w in range(len(out)):
        a = one + (high_h[0][w] - low_h[0][w])
        c = high_h[1][w] - low_h[1][w]
        b = high_w[0][w] - low_w[0][w]
        d = one + (high_w[1][w] - low_w[1][w])
        out[w] = a * d - b * c


@inline
def _voxels(field, total, start, size):
    """Return the components of ``size`` voxels from ``start``."""
    return (
        field[start : start + size],
        field[total + start : total + start + size],
        field[2 * total + start : 2 * total + start + size],
    )


@inline
def _voxels_2(field, total, start, size):
    return field[start : start + size], field[total + start : total + start + size]


@inline
def _write_3(field, total, p, ups, size, kind, out):
    up_d, up_h, up_w = ups
    if kind < 8:
        at_d, at_h, at_w = up_d * (kind // 4), up_h * (kind // 2 % 2), up_w * (kind % 2)
        d, h, w = p + at_h + at_w, p + at_d + at_w, p + at_d + at_h
        _corner_row(
            _voxels(field, total, d, size), _voxels(field, total, d + up_d, size),
            _voxels(field, total, h, size), _voxels(field, total, h + up_h, size),
            _voxels(field, total, w, size), _voxels(field, total, w + up_w, size), out,
        )  # fmt: skip
        return
    # From the first corner to the far ends of the faces, or from these to the last corner.
    if kind == 8:
        low_d, low_h, low_w = p, p, p
        high_d, high_h, high_w = p + up_h + up_w, p + up_d + up_w, p + up_d + up_h
    else:
        high_d = high_h = high_w = p + up_d + up_h + up_w
        low_d, low_h, low_w = p + up_d, p + up_h, p + up_w
    _middle_row(
        _voxels(field, total, low_d, size), _voxels(field, total, high_d, size),
        _voxels(field, total, low_h, size), _voxels(field, total, high_h, size),
        _voxels(field, total, low_w, size), _voxels(field, total, high_w, size), out,
    )  # fmt: skip


@inline
def _write_2(field, total, p, ups, size, kind, out):
    _, up_h, up_w = ups
    h, w = p + up_w * (kind % 2), p + up_h * (kind // 2)
    _corner_row_2(
        _voxels_2(field, total, h, size), _voxels_2(field, total, h + up_h, size),
        _voxels_2(field, total, w, size), _voxels_2(field, total, w + up_w, size), out,
    )  # fmt: skip


@Kernel
def _folding(job, chunk, room):
    field_at, out_at, batch, ndim, depth, height, width, lines, per = arguments(job, 9)
    total = depth * height * width
    cells_h, cells_w = max(1, height - 1), max(1, width - 1)
    kinds = 10 if ndim == 3 else 4
    fields = floats(field_at, batch * ndim * total)
    out = floats(out_at, batch * kinds * lines * cells_w)
    ups = (
        height * width if depth > 1 else 0, width if height > 1 else 0, 1 if width > 1 else 0,
    )  # fmt: skip
    for index in range(chunk * per, min((chunk + 1) * per, batch * lines)):
        sample, line = index // lines, index % lines
        field = fields[sample * ndim * total : (sample + 1) * ndim * total]
        p = (line // cells_h * height + line % cells_h) * width
        for kind in range(kinds):
            to = ((sample * kinds + kind) * lines + line) * cells_w
            target = out[to : to + cells_w]
            if ndim == 3:
                _write_3(field, total, p, ups, cells_w, kind, target)
            else:
                _write_2(field, total, p, ups, cells_w, kind, target)
