"""Lines of positions: where in the image they fall and what is read there.

All kernels that read between voxels work line by line. ``locate`` turns the positions of a line
into offsets of the lower voxel of each cell and shares within the cell, axis by axis; ``gather``
reads the corners. Lines stay in the first-level cache between the two, and each loop is simple
enough to be vectorized. NaN positions give a valid offset and a NaN share, so NaN propagates and
nothing is read out of bounds. 2D lines are 3D lines without the first axis.
"""

from __future__ import annotations

import numpy as np

from cardiogen.ops.kernels.cpu.intrinsics import add32, read
from cardiogen.ops.kernels.cpu.jit import inline, rows

# Positions per line where coords are free; a line of a lattice is one of its rows.
FREE_LINE = 1024


@inline
def line_span(line, free, width, total):
    """Return first position and length of a line: a row of ``width`` or a block of free coords."""
    size = FREE_LINE if free else width
    start = line * size

    return start, min(size, total - start)


@inline
def voxel_strides(depth, height, width):
    """Return what to add to an offset for the next voxel along each axis; 0 along single ones."""
    return (
        np.int32(height * width if depth > 1 else 0),
        np.int32(width if height > 1 else 0),
        np.int32(1 if width > 1 else 0),
    )


@inline
def cell(at, last, low):
    """Return the lower voxel of the cell that holds a position, and the position in the cell.

    The last voxel belongs to the cell before it.
    """
    zero = np.float32(0)
    at = zero if at < zero else at
    at = last if at > last else at
    lower = min(np.int32(at if at > zero else zero), low)

    return lower, at - np.float32(lower)


@inline
def limits(size):
    """Return the last position along an axis and the lower voxel of its last cell."""
    return np.float32(size - 1), np.int32(max(size - 2, 0))


@rows
def locate(line, scale, base, step, size, stride, first, offset, share):
    """Find the cells of positions ``scale line[w] + base + step w`` along one axis.

    Adds ``stride`` times the lower voxel to ``offset`` (sets it for the ``first`` axis) and writes
    the position in the cell to ``share``.
    """
    last, low = limits(size)
    scale, base, step = np.float32(scale), np.float32(base), np.float32(step)
    stride = np.int32(stride)
    for w in range(len(line)):
        at = scale * line[w] + (base + step * np.float32(np.int32(w)))
        lower, share[w] = cell(at, last, low)
        offset[w] = (np.int32(0) if first else offset[w]) + lower * stride


@rows
def within(line, scale, base, step, size, inside):
    """Write whether positions ``scale line[w] + base + step w`` are on the grid (1 or 0)."""
    last, zero, one = np.float32(size - 1), np.float32(0), np.float32(1)
    scale, base, step = np.float32(scale), np.float32(base), np.float32(step)
    for w in range(len(line)):
        at = scale * line[w] + (base + step * np.float32(np.int32(w)))
        inside[w] = one if (at >= zero and at <= last) else zero


@rows
def outside(line, base, step, size, inside, fade, falls):
    """Write whether positions are on the grid (1 or 0), their fade, and its derivative."""
    last = np.float32(size - 1)
    base, step = np.float32(base), np.float32(step)
    zero, one = np.float32(0), np.float32(1)
    for w in range(len(line)):
        at = line[w] + (base + step * np.float32(np.int32(w)))
        # Zero on the grid, but NaN where the position is.
        beyond = at - last if at > last else (zero - at if at < zero else at * zero)
        left = one - beyond
        inside[w] = one if (at >= zero and at <= last) else zero
        fade[w] = zero if left < zero else left
        slope = one if at < zero else (-one if at > last else zero)
        falls[w] = slope if left >= zero else zero


@inline
def blend(share, low, high):
    """Return the linear interpolant; exactly ``low`` at share 0 and ``high`` at share 1."""
    return (np.float32(1) - share) * low + share * high


@inline
def read_square(image, p, up_h, up_w):
    """Return the four corners of a cell's face, w fastest."""
    q = add32(p, up_h)

    return read(image, p), read(image, add32(p, up_w)), read(image, q), read(image, add32(q, up_w))


@rows
def gather3(image, offset, a, b, c, up_d, up_h, up_w, out):
    """Read the linear interpolant of a 3D image at located positions."""
    for w in range(len(out)):
        p = offset[w]
        v000, v001, v010, v011 = read_square(image, p, up_h, up_w)
        v100, v101, v110, v111 = read_square(image, add32(p, up_d), up_h, up_w)
        y0 = blend(b[w], blend(c[w], v000, v001), blend(c[w], v010, v011))
        y1 = blend(b[w], blend(c[w], v100, v101), blend(c[w], v110, v111))
        out[w] = blend(a[w], y0, y1)


@rows
def gather2(image, offset, b, c, up_h, up_w, out):
    """Read the linear interpolant of a 2D image at located positions."""
    for w in range(len(out)):
        v00, v01, v10, v11 = read_square(image, offset[w], up_h, up_w)
        out[w] = blend(b[w], blend(c[w], v00, v01), blend(c[w], v10, v11))


@rows
def warp2(image, height, width, line_h, line_w, base_h, step, out):
    """Locate and read a line of a 2D image of one channel in one loop, a quarter faster.

    In 3D that loop has too many numbers to keep in registers and is the slower form.
    """
    last_h, low_h = limits(height)
    last_w, low_w = limits(width)
    base_h, step = np.float32(base_h), np.float32(step)
    stride_h = np.int32(width)
    _, up_h, up_w = voxel_strides(1, height, width)
    for w in range(len(out)):
        j, b = cell(line_h[w] + base_h, last_h, low_h)
        k, c = cell(line_w[w] + step * np.float32(np.int32(w)), last_w, low_w)
        v00, v01, v10, v11 = read_square(image, np.int32(j * stride_h + k), up_h, up_w)
        out[w] = blend(b, blend(c, v00, v01), blend(c, v10, v11))


@rows
def warp2_slopes(image, height, width, line_h, line_w, base_h, step, weight, at_h, at_w):
    """Write ``weight`` times the slopes that ``warp2`` has along h and w: 0 beyond the border."""
    last_h, low_h = limits(height)
    last_w, low_w = limits(width)
    base_h, step, zero = np.float32(base_h), np.float32(step), np.float32(0)
    stride_h = np.int32(width)
    _, up_h, up_w = voxel_strides(1, height, width)
    for w in range(len(weight)):
        h_at, w_at = line_h[w] + base_h, line_w[w] + step * np.float32(np.int32(w))
        j, b = cell(h_at, last_h, low_h)
        k, c = cell(w_at, last_w, low_w)
        v00, v01, v10, v11 = read_square(image, np.int32(j * stride_h + k), up_h, up_w)
        slope_h = weight[w] * (blend(c, v10, v11) - blend(c, v00, v01))
        slope_w = weight[w] * blend(b, v01 - v00, v11 - v10)
        at_h[w] = slope_h if (h_at >= zero and h_at <= last_h) else zero
        at_w[w] = slope_w if (w_at >= zero and w_at <= last_w) else zero


@rows
def slopes3(image, offset, a, b, c, up_d, up_h, up_w, weight, at_d, at_h, at_w):
    """Add ``weight`` times the slopes along d, h, w of a 3D interpolant."""
    for w in range(len(weight)):
        p = offset[w]
        v000, v001, v010, v011 = read_square(image, p, up_h, up_w)
        v100, v101, v110, v111 = read_square(image, add32(p, up_d), up_h, up_w)
        x00, x01 = blend(c[w], v000, v001), blend(c[w], v010, v011)
        x10, x11 = blend(c[w], v100, v101), blend(c[w], v110, v111)
        y0, y1 = blend(b[w], x00, x01), blend(b[w], x10, x11)
        s0 = blend(b[w], v001 - v000, v011 - v010)
        s1 = blend(b[w], v101 - v100, v111 - v110)
        at_d[w] += weight[w] * (y1 - y0)
        at_h[w] += weight[w] * blend(a[w], x01 - x00, x11 - x10)
        at_w[w] += weight[w] * blend(a[w], s0, s1)


@rows
def slopes2(image, offset, b, c, up_h, up_w, weight, at_h, at_w):
    """Add ``weight`` times the slopes along h, w of a 2D interpolant."""
    for w in range(len(weight)):
        v00, v01, v10, v11 = read_square(image, offset[w], up_h, up_w)
        x0, x1 = blend(c[w], v00, v01), blend(c[w], v10, v11)
        at_h[w] += weight[w] * (x1 - x0)
        at_w[w] += weight[w] * blend(b[w], v01 - v00, v11 - v10)
