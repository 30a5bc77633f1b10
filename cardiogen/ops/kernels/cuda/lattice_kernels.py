"""Triton kernels of neighbors on a lattice: Jacobians, folding, energies and filters.

Convention: ``d, h, w`` are the axes, 2D being 3D with a single slice, whose components and slopes
along d are 0. An axis of one voxel has no neighbors, so whatever is taken along it is 0 as well.
Reads of neighbors are masked where these do not exist, and so are the results made of them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cardiogen.ops.kernels.cuda.tiles import points

_SIZES = ("D", "H", "W", "OH", "OW", "M", "total", "across")


@triton.jit
def _slope(channel, voxel, place, size, step, valid):
    """Return the central difference along an axis, one-sided at its ends."""
    above, below = place < size - 1, place > 0
    here = tl.load(channel + voxel, mask=valid, other=0.0)
    rise = tl.load(channel + voxel + step, mask=valid & above, other=0.0) - here
    fall = here - tl.load(channel + voxel - step, mask=valid & below, other=0.0)
    both = above & below
    return tl.where(both, (rise + fall) / 2, tl.where(above, rise, tl.where(below, fall, 0.0)))


@triton.jit
def _slopes(field, voxel, place, size, step, valid, M, NDIM: tl.constexpr):
    """Return the slopes of the components d, h and w of a field along one axis."""
    slope_d = tl.zeros_like(voxel).to(tl.float32)
    if NDIM == 3:
        slope_d = _slope(field, voxel, place, size, step, valid)
        field += M
    slope_h = _slope(field, voxel, place, size, step, valid)
    slope_w = _slope(field + M, voxel, place, size, step, valid)
    return slope_d, slope_h, slope_w


@triton.jit
def _column(field, voxel, place, shape, valid, M, NDIM: tl.constexpr, AXIS: tl.constexpr):
    """Return the column of an axis of ``I + Du``."""
    size, step = shape[AXIS], 1
    if AXIS == 0:
        step = shape[1] * shape[2]
    elif AXIS == 1:
        step = shape[2]
    d, h, w = _slopes(field, voxel, place[AXIS], size, step, valid, M, NDIM)
    if AXIS == 0:
        d += 1.0
    elif AXIS == 1:
        h += 1.0
    else:
        w += 1.0
    return d, h, w


@triton.jit
def _cross(b, c):
    return b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]


@triton.jit
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@triton.jit(do_not_specialize=_SIZES)
def determinant_kernel(
    u, out, D, H, W, M, across,
    NDIM: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return the determinant of ``I + Du``."""
    row, voxel, place, valid = points(H, W, across, BLOCK, WIDTH)
    row = row.to(tl.int64)
    u += row * NDIM * M
    shape = (D, H, W)
    first = _column(u, voxel, place, shape, valid, M, NDIM, 0)
    second = _column(u, voxel, place, shape, valid, M, NDIM, 1)
    third = _column(u, voxel, place, shape, valid, M, NDIM, 2)
    tl.store(out + row * M + voxel, _dot(first, _cross(second, third)), mask=valid)


@triton.jit
def _cofactors(u, grad, voxel, place, shape, active, M, NDIM: tl.constexpr, AXIS: tl.constexpr):
    """Return ``grad`` times the derivative of the determinant by the column of an axis."""
    before = _column(u, voxel, place, shape, active, M, NDIM, (AXIS + 1) % 3)
    after = _column(u, voxel, place, shape, active, M, NDIM, (AXIS + 2) % 3)
    factor = tl.load(grad + voxel, mask=active, other=0.0)
    d, h, w = _cross(before, after)
    return factor * d, factor * h, factor * w


@triton.jit
def _neighbor(
    total, u, grad, voxel, place, shape, valid, M,
    NDIM: tl.constexpr, AXIS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Add what this voxel gives to the slope at itself or at a neighbor along an axis."""
    size, at = shape[AXIS], place[AXIS] + STEP
    d, h, w = place
    if AXIS == 0:
        voxel += STEP * shape[1] * shape[2]
        d += STEP
    elif AXIS == 1:
        voxel += STEP * shape[2]
        h += STEP
    else:
        voxel += STEP
        w += STEP
    if STEP == 0:
        share = tl.where(at == 0, -1.0, tl.where(at == size - 1, 1.0, 0.0))
        share = tl.where(size > 1, share, 0.0)
    elif STEP == -1:
        share = tl.where(at == 0, 1.0, tl.where(at > 0, 0.5, 0.0))
    else:
        share = tl.where(at == size - 1, -1.0, tl.where(at < size, -0.5, 0.0))
    active = valid & (share != 0.0)
    part = _cofactors(u, grad, voxel, (d, h, w), shape, active, M, NDIM, AXIS)
    return (
        total[0] + tl.where(active, share * part[0], 0.0),
        total[1] + tl.where(active, share * part[1], 0.0),
        total[2] + tl.where(active, share * part[2], 0.0),
    )


@triton.jit(do_not_specialize=_SIZES)
def determinant_gradient_kernel(
    grad, u, out, D, H, W, M, across,
    NDIM: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gather the gradient of the determinants at a voxel and its neighbors.

    Slopes are read again for every neighbor, mostly from the nearest cache: that moves a third of
    the bytes that storing nine cofactors per voxel in between would.
    """
    row, voxel, place, valid = points(H, W, across, BLOCK, WIDTH)
    row = row.to(tl.int64)
    u += row * NDIM * M
    grad += row * M
    shape = (D, H, W)
    zero = tl.zeros([BLOCK], tl.float32)
    total = (zero, zero, zero)
    for AXIS in tl.static_range(3 - NDIM, 3):
        total = _neighbor(total, u, grad, voxel, place, shape, valid, M, NDIM, AXIS, -1)
        total = _neighbor(total, u, grad, voxel, place, shape, valid, M, NDIM, AXIS, 0)
        total = _neighbor(total, u, grad, voxel, place, shape, valid, M, NDIM, AXIS, 1)
    out += row * NDIM * M + voxel
    for component in tl.static_range(NDIM):
        tl.store(out + component * M, total[component + 3 - NDIM], mask=valid)


@triton.jit
def _edge(u, start, end, valid, M, NDIM: tl.constexpr):
    """Return the difference of a field between two voxels."""
    d = tl.zeros_like(start).to(tl.float32)
    if NDIM == 3:
        d = tl.load(u + end, mask=valid, other=0.0) - tl.load(u + start, mask=valid, other=0.0)
        u += M
    h = tl.load(u + end, mask=valid, other=0.0) - tl.load(u + start, mask=valid, other=0.0)
    u += M
    w = tl.load(u + end, mask=valid, other=0.0) - tl.load(u + start, mask=valid, other=0.0)
    return d, h, w


@triton.jit(do_not_specialize=_SIZES)
def folding_kernel(
    u, out, D, H, W, total, OH, OW, M, across,
    NDIM: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return the determinants of the tetrahedra (or triangles) of every of the M cells."""
    CORNERS: tl.constexpr = 8 if NDIM == 3 else 4
    OUTPUTS: tl.constexpr = 10 if NDIM == 3 else 4
    row, cell, place, valid = points(OH, OW, across, BLOCK, WIDTH)
    row = row.to(tl.int64)
    u += row * NDIM * total
    out += row * OUTPUTS * M + cell
    # An axis of one voxel has its only layer on both sides of the cell.
    step_d = tl.where(D > 1, H * W, 0)
    step_h = tl.where(H > 1, W, 0)
    step_w = tl.where(W > 1, 1, 0)
    origin = (place[0] * H + place[1]) * W + place[2]
    for corner in tl.static_range(CORNERS):
        i, j, k = corner // 4, corner // 2 % 2, corner % 2
        at_d, at_h, at_w = i * step_d, j * step_h, k * step_w
        at = origin + at_d + at_h + at_w
        a = _edge(u, at - at_d, at - at_d + step_d, valid, total, NDIM)
        b = _edge(u, at - at_h, at - at_h + step_h, valid, total, NDIM)
        c = _edge(u, at - at_w, at - at_w + step_w, valid, total, NDIM)
        volume = _dot(
            (a[0] + 1, a[1], a[2]), _cross((b[0], b[1] + 1, b[2]), (c[0], c[1], c[2] + 1))
        )
        tl.store(out + corner * M, volume, mask=valid)
    if NDIM == 3:
        # Each tetrahedron in the middle joins an apex to the three corners across its faces.
        far = origin + step_d + step_h + step_w
        a = _edge(u, origin, far - step_d, valid, total, NDIM)
        b = _edge(u, origin, far - step_h, valid, total, NDIM)
        c = _edge(u, origin, far - step_w, valid, total, NDIM)
        _store_middle(out + 8 * M, a, b, c, valid)
        a = _edge(u, origin + step_d, far, valid, total, NDIM)
        b = _edge(u, origin + step_h, far, valid, total, NDIM)
        c = _edge(u, origin + step_w, far, valid, total, NDIM)
        _store_middle(out + 9 * M, a, b, c, valid)


@triton.jit
def _store_middle(out, a, b, c, valid):
    b, c = (b[0] + 1, b[1], b[2] + 1), (c[0] + 1, c[1] + 1, c[2])
    tl.store(out, _dot((a[0], a[1] + 1, a[2] + 1), _cross(b, c)) / 2, mask=valid)
