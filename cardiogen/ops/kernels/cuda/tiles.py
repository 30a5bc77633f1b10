"""Which points a Triton program handles."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def points(OH, OW, across, BLOCK: tl.constexpr, WIDTH: tl.constexpr):
    """Return the row of this program, its points, their places d, h, w, and which of them exist.

    The grid is (tiles of a slice, slices, rows); ``across`` tiles lie side by side.
    """
    lane = tl.arange(0, BLOCK)
    tile, slice_ = tl.program_id(0), tl.program_id(1)
    if WIDTH == BLOCK:
        w = tile * BLOCK + lane
        h = tl.zeros_like(lane)
    else:
        h = tile // across * (BLOCK // WIDTH) + lane // WIDTH
        w = tile % across * WIDTH + lane % WIDTH
    valid = (h < OH) & (w < OW)
    d = tl.zeros_like(lane) + slice_
    return tl.program_id(2), (slice_ * OH + h) * OW + w, (d, h, w), valid
