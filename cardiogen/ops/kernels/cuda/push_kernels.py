"""Triton kernel that adds to the voxels around positions.

Convention: as in ``sampling_kernels``, of which this is the adjoint.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cardiogen.ops.kernels.cuda.cells import (
    fading,
    locate,
    own_vector,
    positions,
    steps_to_next,
)
from cardiogen.ops.kernels.cuda.tiles import points

_SIZES = ("D", "H", "W", "OH", "OW", "M", "across")


@triton.jit
def _add(out, fixed, index, part, unit, valid, FIXED: tl.constexpr):
    """Add parts to voxels, in any order; what is 0 needs no memory traffic.

    FIXED adds finite parts as whole multiples of ``1 / unit``, whose sums no order can change. Nor
    can it change the sum of the others, which is inf or NaN.
    """
    wanted = valid & (part != 0.0)
    if FIXED:
        finite = tl.abs(part) < float("inf")
        tl.atomic_add(out + index, part, mask=wanted & ~finite, sem="relaxed")
        whole = (tl.where(finite, part, 0.0).to(tl.float64) * unit).to(tl.int64)
        tl.atomic_add(fixed + index, whole, mask=wanted & finite, sem="relaxed")
    else:
        tl.atomic_add(out + index, part, mask=wanted, sem="relaxed")


@triton.jit
def _add_line(out, fixed, line, step, share, part, unit, valid, FIXED: tl.constexpr):
    _add(out, fixed, line, part * (1.0 - share), unit, valid, FIXED)
    _add(out + step, fixed + step, line, part * share, unit, valid, FIXED)


@triton.jit
def _add_plane(out, fixed, cell, steps, part, unit, valid, FIXED: tl.constexpr):
    lowest, _, share, share_w = cell
    _, step, step_w = steps
    _add_line(out, fixed, lowest, step_w, share_w, part * (1.0 - share), unit, valid, FIXED)
    out += step
    fixed += step
    _add_line(out, fixed, lowest, step_w, share_w, part * share, unit, valid, FIXED)


@triton.jit(do_not_specialize=_SIZES)
def push_kernel(
    values, coords, out, fixed, units, C, D, H, W, values_repeat, coords_repeat, out_repeat,
    scale, OH, OW, M, across,
    NDIM: tl.constexpr, FADE: tl.constexpr, RELATIVE: tl.constexpr, FIXED: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add values to the voxels around positions."""
    row, point, place, valid = points(OH, OW, across, BLOCK, WIDTH)
    vectors = (row // coords_repeat).to(tl.int64) * NDIM * M
    vector = own_vector(coords + vectors, point, valid, M, NDIM)
    position = positions(vector, place, scale, RELATIVE)
    cell, steps = locate(position, D, H, W), steps_to_next(D, H, W, WIDE)
    N = D * H * W
    values += (row // values_repeat).to(tl.int64) * C * M
    first = (row // out_repeat).to(tl.int64) * C
    out += first * N
    fixed += first * N
    fade = 1.0
    if FADE:
        fade = fading(position, D, H, W, NDIM)
    for channel in range(C):
        value = fade * tl.load(values + point, mask=valid, other=0.0)
        unit = tl.load(units + first + channel) if FIXED else 1.0
        if NDIM == 3:
            far = value * cell[1]
            value *= 1.0 - cell[1]
            step = steps[0]
            _add_plane(out + step, fixed + step, cell, steps, far, unit, valid, FIXED)
        _add_plane(out, fixed, cell, steps, value, unit, valid, FIXED)
        values += M
        out += N
        fixed += N
