"""Triton kernels that read between voxels.

Convention: a program handles one tile of points of one sample (see ``launch``): it finds their
cells once and then walks through the channels. ``repeat`` arguments say how many consecutive
samples share one tensor.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cardiogen.ops.kernels.cuda.cells import (
    axis_fade,
    fading,
    locate,
    own_vector,
    positions,
    steps_to_next,
)
from cardiogen.ops.kernels.cuda.tiles import points

# Ints that are not specialized on being 1 or divisible by 16: one binary serves every shape.
_SIZES = ("D", "H", "W", "OH", "OW", "M", "across")


@triton.jit
def _line(line, lowest, step, share, valid):
    """Interpolate along w: value and slope."""
    low = tl.load(line + lowest, mask=valid, other=0.0)
    high = tl.load(line + lowest + step, mask=valid, other=0.0)
    return low * (1.0 - share) + high * share, high - low


@triton.jit
def _interpolate(image, cell, steps, valid, NDIM: tl.constexpr):
    """Interpolate one channel: value, and slopes along d, h and w; unused ones cost nothing."""
    lowest, share_d, share_h, share_w = cell
    step_d, step_h, step_w = steps
    low, low_w = _line(image, lowest, step_w, share_w, valid)
    high, high_w = _line(image + step_h, lowest, step_w, share_w, valid)
    value = low * (1.0 - share_h) + high * share_h
    slope_h = high - low
    slope_w = low_w * (1.0 - share_h) + high_w * share_h
    slope_d = tl.zeros_like(value)
    if NDIM == 3:
        image += step_d
        low, low_w = _line(image, lowest, step_w, share_w, valid)
        high, high_w = _line(image + step_h, lowest, step_w, share_w, valid)
        far_value = low * (1.0 - share_h) + high * share_h
        far_w = low_w * (1.0 - share_h) + high_w * share_h
        slope_d = far_value - value
        value = value * (1.0 - share_d) + far_value * share_d
        slope_h = slope_h * (1.0 - share_d) + (high - low) * share_d
        slope_w = slope_w * (1.0 - share_d) + far_w * share_d
    return value, slope_d, slope_h, slope_w


@triton.jit(do_not_specialize=_SIZES)
def sample_kernel(
    image, coords, out, C, D, H, W, image_repeat, coords_repeat, scale, OH, OW, M, across,
    NDIM: tl.constexpr, FADE: tl.constexpr, RELATIVE: tl.constexpr, COMPOSE: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Read an image at positions; with COMPOSE add the coordinates to it, then scale."""
    row, point, place, valid = points(OH, OW, across, BLOCK, WIDTH)
    vectors = (row // coords_repeat).to(tl.int64) * NDIM * M
    vector = own_vector(coords + vectors, point, valid, M, NDIM)
    position = positions(vector, place, scale, RELATIVE)
    cell, steps = locate(position, D, H, W), steps_to_next(D, H, W, WIDE)
    N = D * H * W
    image += (row // image_repeat).to(tl.int64) * C * N
    out += row.to(tl.int64) * C * M
    fade = 1.0
    if FADE:
        fade = fading(position, D, H, W, NDIM)
    for channel in range(NDIM if COMPOSE else C):
        value, _, _, _ = _interpolate(image, cell, steps, valid, NDIM)
        if FADE:
            value *= fade
        if COMPOSE:
            own = tl.where(channel < NDIM - 2, vector[0], vector[2])
            own = tl.where(channel == NDIM - 2, vector[1], own)
            value = scale * (own + value)
        tl.store(out + point, value, mask=valid)
        image += N
        out += M


@triton.jit(do_not_specialize=_SIZES)
def coords_gradient_kernel(
    grad, image, coords, out, C, D, H, W, image_repeat, shares, scale, OH, OW, M, across,
    NDIM: tl.constexpr, FADE: tl.constexpr, RELATIVE: tl.constexpr, COMPOSE: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add up ``grad`` times the slopes of the image, over the channels and samples of a position.

    With COMPOSE the image's slopes are scaled and ``grad`` itself is added.
    """
    row, point, place, valid = points(OH, OW, across, BLOCK, WIDTH)
    vector = own_vector(coords + row.to(tl.int64) * NDIM * M, point, valid, M, NDIM)
    position = positions(vector, place, scale, RELATIVE)
    cell, steps = locate(position, D, H, W), steps_to_next(D, H, W, WIDE)
    N = D * H * W
    total = tl.zeros([BLOCK], tl.float32)
    sum_d, sum_h, sum_w = total, total, total
    for share in range(shares):
        sample = row * shares + share
        source = image + (sample // image_repeat).to(tl.int64) * C * N
        upstream = grad + sample.to(tl.int64) * C * M
        for _channel in range(NDIM if COMPOSE else C):
            factor = tl.load(upstream + point, mask=valid, other=0.0)
            value, slope_d, slope_h, slope_w = _interpolate(source, cell, steps, valid, NDIM)
            total += factor * value
            sum_d += factor * slope_d
            sum_h += factor * slope_h
            sum_w += factor * slope_w
            source += N
            upstream += M

    d, h, w = position
    fade_d, fade_h, fade_w = 1.0, 1.0, 1.0
    pull_d, pull_h, pull_w = 0.0, 0.0, 0.0
    if FADE:
        fade_h, pull_h = axis_fade(h, H)
        fade_w, pull_w = axis_fade(w, W)
        if NDIM == 3:
            fade_d, pull_d = axis_fade(d, D)
    own = grad + row.to(tl.int64) * C * M + point
    out += row.to(tl.int64) * NDIM * M + point
    if NDIM == 3:
        part = _through(d, D, sum_d, total, fade_d, fade_h * fade_w, pull_d, FADE)
        _store_gradient(out, own, part, scale, valid, COMPOSE)
        out += M
        own += M
    part = _through(h, H, sum_h, total, fade_h, fade_d * fade_w, pull_h, FADE)
    _store_gradient(out, own, part, scale, valid, COMPOSE)
    part = _through(w, W, sum_w, total, fade_w, fade_d * fade_h, pull_w, FADE)
    _store_gradient(out + M, own + M, part, scale, valid, COMPOSE)


@triton.jit
def _through(position, size, slope, total, fade, others, pull, FADE: tl.constexpr):
    """Take a slope through the move into the grid and through the fade outside of it."""
    inside = (position >= 0.0) & (position <= size - 1.0)
    if FADE:
        faded = tl.where(pull != 0.0, pull * total * others, 0.0)
        return tl.where(inside, slope * fade * others, faded)
    return tl.where(inside, slope, 0.0)


@triton.jit
def _store_gradient(out, own, part, scale, valid, COMPOSE: tl.constexpr):
    if COMPOSE:
        part = scale * part + tl.load(own, mask=valid, other=0.0)
    tl.store(out, part, mask=valid)
