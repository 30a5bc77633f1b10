"""Diffusion and bending energies of a displacement, and their gradients, in one pass.

Everything is written in differences, as the reference is: products with the assembled matrix would
lose a small roughness in the rounding of a large displacement. A row takes from its neighbors the
differences that it shares with them; beyond the grid there are none.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.arithmetic import add_scaled
from cardiogen.ops.kernels.cpu.intrinsics import arguments, doubles, floats, real, room_rows
from cardiogen.ops.kernels.cpu.jit import Kernel, inline, rows, sums
from cardiogen.ops.kernels.cpu.launch import launch
from cardiogen.ops.kernels.cpu.layout import padded

_CHUNK = 16384


def stiffness(
    displacement: Tensor, *, order: int, spacing: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Return the energy ``(B,)`` and its gradient ``(B, d, *S)``.

    Order 1 sums ``(s_i / s_j)^2 (D_j u_i)^2`` over components, axes and edges; order 2 sums
    ``s_i^2 [(B_j u_i)^2 / s_j^4 + 2 (D_j D_k u_i)^2 / (s_j s_k)^2]`` with second differences
    ``B_j`` at inner voxels and mixed ones in cells.

    Args:
        displacement: ``(B, d, *S)`` contiguous float32, voxels.
        order: 1 diffusion, 2 bending.
        spacing: mm per axis.
    """
    batch, ndim, *shape = displacement.shape
    depth, height, width = padded(shape)
    out = torch.empty_like(displacement)
    lines = depth * height
    energies = displacement.new_empty(batch * ndim * lines, dtype=torch.float64)
    inverse = [1.0 / s**2 for s in (*(1.0,) * (3 - ndim), *spacing)]
    scales = torch.tensor([s**2 for s in spacing], dtype=torch.float64)
    per = max(1, _CHUNK // width)
    launch(
        _stiffness, -(-batch * ndim * lines // per), displacement, out, energies, scales, batch,
        ndim, depth, height, width, order, *inverse, per, room=6 * (width + 1),
    )  # fmt: skip

    return energies.view(batch, -1).sum(dim=1).float(), out


@rows
def _laplacian(low, line, high, has_low, has_high, out):
    """Write ``[low edge] (x - low) - [high edge] (high - x)``: D^T D across rows."""
    has_low, has_high = np.float32(has_low), np.float32(has_high)
    for w in range(len(out)):
        out[w] = has_low * (line[w] - low[w]) - has_high * (high[w] - line[w])


@rows
def _edges(low, high, out):
    for w in range(len(out)):
        out[w] = high[w] - low[w]


@rows
def _bends(below, low, line, high, above, has_low, has_mid, has_high, out, squares):
    """Write B^T B across rows, and the squared second differences of the middle row."""
    has_low, has_mid = np.float32(has_low), np.float32(has_mid)
    has_high = np.float32(has_high)
    for w in range(len(out)):
        first = has_low * ((line[w] - low[w]) - (low[w] - below[w]))
        middle = has_mid * ((high[w] - line[w]) - (line[w] - low[w]))
        last = has_high * ((above[w] - high[w]) - (high[w] - line[w]))
        out[w] = (first - middle) + (last - middle)
        squares[w] = middle * middle


@rows
def _along_edges(line, edges):
    """Write the differences along a row, with none (0) before its first and after its last."""
    last = len(line) - 1
    edges[0] = 0
    edges[last + 1] = 0
    for w in range(last):
        edges[w + 1] = line[w + 1] - line[w]


@rows
def _add_along(edges, factor, out):
    """Add ``factor D^T`` of differences along a row."""
    for w in range(len(out)):
        out[w] += factor * (edges[w] - edges[w + 1])


@rows
def _add_squares(values, factor, out):
    for w in range(len(values)):
        out[w] += factor * values[w] * values[w]


@sums
def _sum(values):
    total = np.float32(0)
    for w in range(len(values)):
        total += values[w]
    return total


@Kernel
def _stiffness(job, chunk, room):
    (
        field_at, out_at, energies_at, scales_at, batch, ndim, depth, height, width, order,
        inverse_d, inverse_h, inverse_w, per,
    ) = arguments(job, 14)  # fmt: skip
    lines = depth * height
    count = batch * ndim * lines
    fields, out = floats(field_at, count * width), floats(out_at, count * width)
    energies, scales = doubles(energies_at, count), doubles(scales_at, ndim)
    inverse = (
        np.float32(real(inverse_d)), np.float32(real(inverse_h)), np.float32(real(inverse_w)),
    )  # fmt: skip
    work = room_rows(room, 0, 6, width + 1)
    for index in range(chunk * per, min((chunk + 1) * per, count)):
        component, line = index // lines, index % lines
        field = fields[component * lines * width : (component + 1) * lines * width]
        target = out[index * width : (index + 1) * width]
        target[:] = 0
        squares = work[0, :width]
        squares[:] = 0
        d, h = line // height, line % height
        if order == 1:
            _diffusion_row(field, d, h, depth, height, width, inverse, work, target, squares)
        else:
            _bending_row(field, d, h, depth, height, width, inverse, work, target, squares)
        scale = scales[component % ndim]
        energies[index] = scale * _sum(squares)
        _scale(target, np.float32(2 * scale))


@rows
def _scale(values, factor):
    for w in range(len(values)):
        values[w] *= factor


@inline
def _row(field, d, h, height, width):
    start = (d * height + h) * width
    return field[start : start + width]


@inline
def _diffusion_row(field, d, h, depth, height, width, inverse, work, target, squares):
    line = _row(field, d, h, height, width)
    part, edges = work[1, :width], work[2]
    if depth > 1:
        low, high = max(d - 1, 0), min(d + 1, depth - 1)
        above = _row(field, high, h, height, width)
        _laplacian(_row(field, low, h, height, width), line, above, d > 0, d < depth - 1, part)
        add_scaled(part, inverse[0], target)
        _edges(line, above, part)
        _add_squares(part, inverse[0], squares)
    if height > 1:
        low, high = max(h - 1, 0), min(h + 1, height - 1)
        above = _row(field, d, high, height, width)
        _laplacian(_row(field, d, low, height, width), line, above, h > 0, h < height - 1, part)
        add_scaled(part, inverse[1], target)
        _edges(line, above, part)
        _add_squares(part, inverse[1], squares)
    _along_edges(line, edges)
    _add_along(edges, inverse[2], target)
    _add_squares(edges[:width], inverse[2], squares)


@inline
def _bending_row(field, d, h, depth, height, width, inverse, work, target, squares):
    line = _row(field, d, h, height, width)
    part, more, edges, bends = work[1, :width], work[2, :width], work[3], work[4, :width]
    if depth > 2:
        _bends(
            _row(field, max(d - 2, 0), h, height, width),
            _row(field, max(d - 1, 0), h, height, width), line,
            _row(field, min(d + 1, depth - 1), h, height, width),
            _row(field, min(d + 2, depth - 1), h, height, width),
            d > 1, 0 < d < depth - 1, d < depth - 2, part, more,
        )  # fmt: skip
        add_scaled(part, inverse[0] * inverse[0], target)
        add_scaled(more, inverse[0] * inverse[0], squares)
    if height > 2:
        _bends(
            _row(field, d, max(h - 2, 0), height, width),
            _row(field, d, max(h - 1, 0), height, width), line,
            _row(field, d, min(h + 1, height - 1), height, width),
            _row(field, d, min(h + 2, height - 1), height, width),
            h > 1, 0 < h < height - 1, h < height - 2, part, more,
        )  # fmt: skip
        add_scaled(part, inverse[1] * inverse[1], target)
        add_scaled(more, inverse[1] * inverse[1], squares)
    if width > 2:
        _along_bends(line, bends)
        _add_along_bends(bends, inverse[2] * inverse[2], target)
        _add_squares(bends, inverse[2] * inverse[2], squares)
    if depth > 1 and height > 1:
        factor = 2 * inverse[0] * inverse[1]
        _mixed_across(field, d, h, depth, height, width, factor, work, target, squares)
    if depth > 1 and width > 1:
        low, high = max(d - 1, 0), min(d + 1, depth - 1)
        below, above = _row(field, low, h, height, width), _row(field, high, h, height, width)
        factor = 2 * inverse[0] * inverse[2]
        _mixed_along(
            below, line, above, d > 0, d < depth - 1, factor, part, edges, target, squares
        )
    if height > 1 and width > 1:
        low, high = max(h - 1, 0), min(h + 1, height - 1)
        below, above = _row(field, d, low, height, width), _row(field, d, high, height, width)
        factor = 2 * inverse[1] * inverse[2]
        _mixed_along(
            below, line, above, h > 0, h < height - 1, factor, part, edges, target, squares
        )


@rows
def _along_bends(line, bends):
    """Write second differences along a row, 0 at its ends."""
    last = len(line) - 1
    bends[0] = 0
    bends[last] = 0
    for w in range(1, last):
        bends[w] = (line[w + 1] - line[w]) - (line[w] - line[w - 1])


@rows
def _add_along_bends(bends, factor, out):
    last = len(out) - 1
    two = np.float32(2)
    for w in range(1, last):
        out[w] += factor * ((bends[w - 1] - bends[w]) + (bends[w + 1] - bends[w]))
    out[0] += factor * (bends[1] - two * bends[0])
    out[last] += factor * (bends[last - 1] - two * bends[last])


@inline
def _mixed_along(below, line, above, has_low, has_high, factor, part, edges, target, squares):
    """Mixed differences of an axis across rows and the axis along them."""
    _laplacian(below, line, above, has_low, has_high, part)
    _along_edges(part, edges)
    _add_along(edges, factor, target)
    _edges(line, above, part)
    _along_edges(part, edges)
    _add_squares(edges[: len(line)], factor if has_high else np.float32(0), squares)


@inline
def _mixed_across(field, d, h, depth, height, width, factor, work, target, squares):
    """Mixed differences of the two axes across rows."""
    low, high = max(d - 1, 0), min(d + 1, depth - 1)
    before, here, after = work[1, :width], work[2, :width], work[5, :width]
    h_low, h_high = max(h - 1, 0), min(h + 1, height - 1)
    for row, values in ((h_low, before), (h, here), (h_high, after)):
        _laplacian(
            _row(field, low, row, height, width), _row(field, d, row, height, width),
            _row(field, high, row, height, width), d > 0, d < depth - 1, values,
        )  # fmt: skip
    _add_laplacian(before, here, after, h > 0, h < height - 1, factor, target)
    if d < depth - 1 and h < height - 1:
        _edges(_row(field, d, h, height, width), _row(field, high, h, height, width), before)
        _edges(
            _row(field, d, h_high, height, width), _row(field, high, h_high, height, width), after
        )
        _edges(before, after, here)
        _add_squares(here, factor, squares)


@rows
def _add_laplacian(low, line, high, has_low, has_high, factor, out):
    has_low, has_high = np.float32(has_low), np.float32(has_high)
    for w in range(len(out)):
        out[w] += factor * (has_low * (line[w] - low[w]) - has_high * (high[w] - line[w]))
