"""Triton kernels of linear stencils: quadratic energies with their gradients, banded matrices.

Convention: as in ``lattice_kernels``; a row is one component of one sample.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cardiogen.ops.kernels.cuda.tiles import points

_SIZES = ("D", "H", "W", "OH", "OW", "M", "across", "ndim", "taps", "size")


@triton.jit
def _first_order(u, here, voxel, place, size, step, valid):
    """Return the squared step to the next voxel, and ``D^T D u``."""
    above, below = place < size - 1, place > 0
    rise = tl.load(u + voxel + step, mask=valid & above, other=0.0) - here
    fall = here - tl.load(u + voxel - step, mask=valid & below, other=0.0)
    rise, fall = tl.where(above, rise, 0.0), tl.where(below, fall, 0.0)
    return rise * rise, fall - rise


@triton.jit
def _second_order(u, here, voxel, place, size, step, valid):
    """Return the squared second difference, and ``B^T B u``; B has no rows at the ends."""
    has_low, has_high = place >= 2, place <= size - 3
    inner = (place >= 1) & (place <= size - 2)
    low = tl.load(u + voxel - step, mask=valid & (place >= 1), other=0.0)
    high = tl.load(u + voxel + step, mask=valid & (place <= size - 2), other=0.0)
    lowest = tl.load(u + voxel - 2 * step, mask=valid & has_low, other=0.0)
    highest = tl.load(u + voxel + 2 * step, mask=valid & has_high, other=0.0)
    bend_low = tl.where(has_low, (here - low) - (low - lowest), 0.0)
    bend = tl.where(inner, (high - here) - (here - low), 0.0)
    bend_high = tl.where(has_high, (highest - high) - (high - here), 0.0)
    return bend * bend, bend_low - 2 * bend + bend_high


@triton.jit
def _mixed(u, here, voxel, p, q, size_p, size_q, step_p, step_q, valid):
    """Return the squared mixed difference to the next voxels, and ``L_p L_q u``."""
    below_p, above_p = valid & (p > 0), valid & (p < size_p - 1)
    below_q, above_q = q > 0, q < size_q - 1
    left = tl.load(u + voxel - step_p, mask=below_p, other=0.0)
    right = tl.load(u + voxel + step_p, mask=above_p, other=0.0)
    down = tl.load(u + voxel - step_q, mask=valid & below_q, other=0.0)
    up = tl.load(u + voxel + step_q, mask=valid & above_q, other=0.0)
    left_down = tl.load(u + voxel - step_p - step_q, mask=below_p & below_q, other=0.0)
    left_up = tl.load(u + voxel - step_p + step_q, mask=below_p & above_q, other=0.0)
    right_down = tl.load(u + voxel + step_p - step_q, mask=above_p & below_q, other=0.0)
    right_up = tl.load(u + voxel + step_p + step_q, mask=above_p & above_q, other=0.0)
    twist = tl.where(above_p & above_q, (right_up - up) - (right - here), 0.0)
    behind = tl.where(below_p & above_q, (up - left_up) - (here - left), 0.0)
    under = tl.where(above_p & below_q, (right - here) - (right_down - down), 0.0)
    across = tl.where(below_p & below_q, (here - left) - (down - left_down), 0.0)
    return twist * twist, across - behind - under + twist


@triton.jit(do_not_specialize=_SIZES)
def stiffness_kernel(
    u, out, energy, squared_d, squared_h, squared_w, inverse_d, inverse_h, inverse_w, ndim,
    D, H, W, M, across,
    ORDER: tl.constexpr, DEEP: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return ``Q u`` and the part of ``<u, Q u> / 2`` of every tile.

    ``squared_*`` are ``s^2`` per axis, ``inverse_*`` ``1 / s^2``.
    """
    row, voxel, place, valid = points(H, W, across, BLOCK, WIDTH)
    d, h, w = place
    first = row.to(tl.int64) * M
    u += first
    component = row % ndim
    factor = tl.where(component == ndim - 2, squared_h, squared_d)
    factor = tl.where(component == ndim - 1, squared_w, factor)
    here = tl.load(u + voxel, mask=valid, other=0.0)
    plane = H * W
    if ORDER == 1:
        square, force = _first_order(u, here, voxel, h, H, W, valid)
        square_w, force_w = _first_order(u, here, voxel, w, W, 1, valid)
        square = square * inverse_h + square_w * inverse_w
        force = force * inverse_h + force_w * inverse_w
        if DEEP:
            square_d, force_d = _first_order(u, here, voxel, d, D, plane, valid)
            square += square_d * inverse_d
            force += force_d * inverse_d
    else:
        square, force = _second_order(u, here, voxel, h, H, W, valid)
        square_w, force_w = _second_order(u, here, voxel, w, W, 1, valid)
        square_hw, force_hw = _mixed(u, here, voxel, h, w, H, W, W, 1, valid)
        hh, ww, hw = inverse_h * inverse_h, inverse_w * inverse_w, 2 * inverse_h * inverse_w
        square = square * hh + square_w * ww + square_hw * hw
        force = force * hh + force_w * ww + force_hw * hw
        if DEEP:
            square_d, force_d = _second_order(u, here, voxel, d, D, plane, valid)
            square_dh, force_dh = _mixed(u, here, voxel, d, h, D, H, plane, W, valid)
            square_dw, force_dw = _mixed(u, here, voxel, d, w, D, W, plane, 1, valid)
            dd, dh, dw = (
                inverse_d * inverse_d,
                2 * inverse_d * inverse_h,
                2 * inverse_d * inverse_w,
            )
            square += square_d * dd + square_dh * dh + square_dw * dw
            force += force_d * dd + force_dh * dh + force_dw * dw

    tl.store(out + first + voxel, 2 * factor * force, mask=valid)
    slices, tiles = tl.num_programs(1), tl.num_programs(0)
    tile = (row * slices + tl.program_id(1)) * tiles + tl.program_id(0)
    tl.store(energy + tile, factor * tl.sum(tl.where(valid, square, 0.0), axis=0))


@triton.jit(do_not_specialize=_SIZES)
def banded_kernel(
    tensor, out, first, weights, size, taps, OH, OW, M, across,
    LAST: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Apply a banded matrix along h, or along w of a single slice (LAST).

    ``size`` is the number of voxels along that axis in the input.
    """
    row, point, place, valid = points(OH, OW, across, BLOCK, WIDTH)
    d, h, w = place
    row = row.to(tl.int64)
    if LAST:
        at, line, step = w, h * size, 1
        tensor += row * OH * size
    else:
        at, line, step = h, d * size * OW + w, OW
        tensor += row * tl.num_programs(1) * size * OW
    here = line + tl.load(first + at, mask=valid, other=0) * step
    weights += at * taps
    total = tl.zeros([BLOCK], tl.float32)
    for _tap in range(taps):
        weight = tl.load(weights, mask=valid, other=0.0)
        used = valid & (weight != 0.0)
        value = tl.load(tensor + here, mask=used, other=0.0)
        total += tl.where(used, weight * value, 0.0)
        weights += 1
        here += step
    tl.store(out + row * M + point, total, mask=valid)
