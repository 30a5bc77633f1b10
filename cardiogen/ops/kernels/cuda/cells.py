"""Triton functions that find the cells of an image around positions.

Convention: positions are in voxels of the image, ``d, h, w`` its axes (d is 0 in 2D). Comparisons
are written so that NaN is neither below nor above: it never becomes an index, and it stays in the
weights and so reaches the result.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def own_vector(field, point, valid, M, NDIM: tl.constexpr):
    """Read the components d, h, w of a field at its own points; d is 0 in 2D."""
    if NDIM == 3:
        d = tl.load(field + point, mask=valid, other=0.0)
        field += M
    else:
        d = tl.zeros_like(point).to(tl.float32)
    h = tl.load(field + point, mask=valid, other=0.0)
    w = tl.load(field + M + point, mask=valid, other=0.0)
    return d, h, w


@triton.jit
def positions(vector, place, scale, RELATIVE: tl.constexpr):
    """Return coordinates as positions: themselves, or scaled and added to their own voxels."""
    d, h, w = vector
    if RELATIVE:
        d = place[0].to(tl.float32) + scale * d
        h = place[1].to(tl.float32) + scale * h
        w = place[2].to(tl.float32) + scale * w
    return d, h, w


@triton.jit
def _cell(position, size):
    """Return the voxel below a position moved into the grid, and the share of the next one."""
    last = size - 1.0
    # The last voxel belongs to the cell before it, so that its derivative is one-sided, not 0.
    highest = tl.maximum(last - 1.0, 0.0)
    below = tl.where(position > 0.0, tl.minimum(position, highest), 0.0).to(tl.int32)
    inside = tl.clamp(position, 0.0, last, propagate_nan=tl.PropagateNan.ALL)
    return below, inside - below.to(tl.float32)


@triton.jit
def locate(position, D, H, W):
    """Return the lowest voxel of the cells of positions, and the shares of the upper ones."""
    d, share_d = _cell(position[0], D)
    h, share_h = _cell(position[1], H)
    w, share_w = _cell(position[2], W)
    return (d * H + h) * W + w, share_d, share_h, share_w


@triton.jit
def steps_to_next(D, H, W, WIDE: tl.constexpr):
    """Return how far the next voxel is along each axis: nowhere on an axis of one voxel.

    WIDE says that w has more than one, so that compiled code knows that step.
    """
    return tl.where(D > 1, H * W, 0), tl.where(H > 1, W, 0), 1 if WIDE else 0


@triton.jit
def axis_fade(position, size):
    """Return the share of a voxel left outside along an axis, and its derivative."""
    last = size - 1.0
    below, above = position < 0.0, position > last
    outside = tl.where(below, -position, tl.where(above, position - last, position - position))
    left = 1.0 - outside
    near = left >= 0.0
    slope = tl.where(below & near, 1.0, tl.where(above & near, -1.0, 0.0))
    return tl.where(left < 0.0, 0.0, left), slope


@triton.jit
def fading(position, D, H, W, NDIM: tl.constexpr):
    """Return the share of a voxel left outside the grid."""
    fade = axis_fade(position[1], H)[0] * axis_fade(position[2], W)[0]
    if NDIM == 3:
        fade *= axis_fade(position[0], D)[0]
    return fade
