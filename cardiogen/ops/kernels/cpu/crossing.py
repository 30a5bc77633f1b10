"""Which triangles of a mesh cross each other, in one compiled pass.

The mesh is cut into strips, and each strip is swept: its triangles begin in rising order, so those
that may meet one of them stand behind it until the first that begins beyond its end. A pair in
several strips is taken in the first that both reach. What crossing means is said by the reference,
``cardiogen.measure.crossing``; both find the same pairs of faces that have an area.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen.ops.kernels.cpu.intrinsics import arguments, doubles, ints, real
from cardiogen.ops.kernels.cpu.jit import Kernel, inline
from cardiogen.ops.kernels.cpu.launch import launch

_CHUNK = 256
_MOST_STRIPS = 64
# Room for the partners of a triangle; if one has more, all is done again with room for them.
_PARTNERS = 16
# By how much of their size triangles of one plane may overlap and count as touching.
_SLACK = 1e-9


def crossing_pairs(triangles: Tensor, faces: Tensor, flat: float) -> Tensor:
    """Return the pairs ``(N, 2)`` of triangles that cross, in no order.

    Args:
        triangles: ``(F, 3, 3)`` float64: triangle, corner, component.
        faces: ``(F, 3)``, numbers of their corners.
        flat: six times the volume of a tetrahedron below which four points are in one plane.
    """
    low, high = triangles.amin(dim=1), triangles.amax(dim=1)
    boxes = torch.cat([low, high], dim=1).contiguous()
    normals = torch.linalg.cross(
        triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    ).contiguous()
    names = faces.to(torch.int32).contiguous()
    entries, strips, axis = _strips(low, high)
    count, room = len(entries), _PARTNERS
    while True:
        partners = torch.empty(count, room, dtype=torch.int32)
        found = torch.empty(count, dtype=torch.int32)
        launch(
            _crossing, -(-count // _CHUNK), triangles.contiguous(), boxes, normals, names, entries,
            strips, partners, found, len(triangles), count, room, axis, float(flat),
        )  # fmt: skip
        if int(found.max()) <= room:
            break
        room = int(found.max())
    filled = torch.arange(room) < found[:, None]
    first = entries.long().repeat_interleave(found.long())

    return torch.stack([first, partners[filled].long()], dim=1)


def _strips(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return triangles strip by strip in sweeping order, first strip of each entry and triangle.

    Returns:
        Triangles ``(E,)``; ``(E + F,)``, the strip of every entry, then the first strip of every
        triangle; the axis of the sweep. Strips are cut along the next axis.
    """
    extent = high.amax(dim=0) - low.amin(dim=0)
    axis = int(extent.argmax())
    across = (axis + 1) % 3
    width = max(2 * float((high - low)[:, across].mean()), float(extent[across]) / _MOST_STRIPS)
    start = low[:, across].min()
    # All triangles of a mesh without width share one strip.
    width = width if width > 0 else 1.0
    first, last = (((x[:, across] - start) / width).long() for x in (low, high))
    times = last - first + 1
    entries = torch.arange(len(low)).repeat_interleave(times)
    begin = (times.cumsum(0) - times).repeat_interleave(times)
    strip = first[entries] + torch.arange(len(entries)) - begin
    order = low[entries, axis].argsort(stable=True)
    order = order[strip[order].argsort(stable=True)]
    strips = torch.cat([strip[order], first]).to(torch.int32)

    return entries[order].to(torch.int32), strips, axis


@inline
def _apart(boxes, p, q):
    a, b = 6 * p, 6 * q
    for k in range(3):
        if boxes[a + k] > boxes[b + 3 + k] or boxes[b + k] > boxes[a + 3 + k]:
            return True
    return False


@inline
def _shared(names, p, q):
    """Return how many corners two faces share, and which one of each the last of these is."""
    number, own, other = 0, -1, -1
    for j in range(3):
        for k in range(3):
            if names[3 * p + j] == names[3 * q + k]:
                number, own, other = number + 1, j, k
    return number, own, other


@inline
def _difference(corners, p, q):
    x, y, z = corners[q], corners[q + 1], corners[q + 2]
    return x - corners[p], y - corners[p + 1], z - corners[p + 2]


@inline
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inline
def _reach(corners, origin, triangle, along):
    """Return how far the corners of a triangle reach along a direction, from an origin."""
    return (
        _dot(_difference(corners, origin, 9 * triangle), along),
        _dot(_difference(corners, origin, 9 * triangle + 3), along),
        _dot(_difference(corners, origin, 9 * triangle + 6), along),
    )


@inline
def _low(values):
    return min(values[0], values[1], values[2])


@inline
def _high(values):
    return max(values[0], values[1], values[2])


@inline
def _one_sided(heights, flat):
    low, high = _low(heights), _high(heights)
    return (low >= -flat and high > flat) or (high <= flat and low < -flat)


@inline
def _edge_crosses(corners, a, heights, corner, b, flat):
    """Return whether the edge of ``a`` opposite to a corner passes through the inside of ``b``."""
    start, end = (corner + 1) % 3, (corner + 2) % 3
    if not (
        min(heights[start], heights[end]) < -flat and max(heights[start], heights[end]) > flat
    ):
        return False
    tail = 9 * a + 3 * start
    direction = _difference(corners, tail, 9 * a + 3 * end)
    above, below = 0, 0
    for k in range(3):
        side = _cross(
            _difference(corners, tail, 9 * b + 3 * k),
            _difference(corners, tail, 9 * b + 3 * ((k + 1) % 3)),
        )
        volume = _dot(direction, side)
        above += volume > flat
        below += volume < -flat
    return above == 3 or below == 3


@inline
def _overlap_in_plane(corners, normal, p, q):
    """Return whether triangles of one plane share area: no side of either separates them."""
    size = 1e-12
    for k in range(9):
        size = max(size, abs(corners[9 * p + k] - corners[9 * p + 3 + k % 3]))
    for k in range(6):
        base = 9 * (p if k < 3 else q)
        side = _difference(corners, base + 3 * (k % 3), base + 3 * ((k + 1) % 3))
        across = _cross(side, normal)
        own, other = _reach(corners, 9 * p, p, across), _reach(corners, 9 * p, q, across)
        gap = max(_low(own) - _high(other), _low(other) - _high(own))
        if gap >= -_SLACK * size * _dot(across, across) ** 0.5:
            return False
    return True


@inline
def _cross_each_other(corners, normals, names, p, q, flat):
    shared, own, other = _shared(names, p, q)
    if shared > 1:
        return False
    normal_p = (normals[3 * p], normals[3 * p + 1], normals[3 * p + 2])
    normal_q = (normals[3 * q], normals[3 * q + 1], normals[3 * q + 2])
    # Where all corners of a face lie on one side of the other's plane nothing crosses; that is
    # nearly all there is on a smooth surface. A shared vertex lies in the plane.
    heights_p = _reach(corners, 9 * q, p, normal_q)
    if _one_sided(heights_p, flat):
        return False
    heights_q = _reach(corners, 9 * p, q, normal_p)
    if _one_sided(heights_q, flat):
        return False
    if max(_high(heights_p), _high(heights_q)) <= flat and (
        min(_low(heights_p), _low(heights_q)) >= -flat
    ):
        return _overlap_in_plane(corners, normal_p, p, q)
    for k in range(3):
        # With a shared vertex only the edges opposite to it can cross the other triangle.
        if (shared == 0 or k == own) and _edge_crosses(corners, p, heights_p, k, q, flat):
            return True
        if (shared == 0 or k == other) and _edge_crosses(corners, q, heights_q, k, p, flat):
            return True
    return False


@Kernel
def _crossing(job, chunk, room):
    words = arguments(job, 13)
    size, count, most, axis, flat = words[8], words[9], words[10], words[11], real(words[12])
    corners, boxes = doubles(words[0], 9 * size), doubles(words[1], 6 * size)
    normals, names = doubles(words[2], 3 * size), ints(words[3], 3 * size)
    entries, strips = ints(words[4], count), ints(words[5], count + size)
    partners, found = ints(words[6], count * most), ints(words[7], count)
    for e in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, count)):
        p, strip, number = entries[e], strips[e], 0
        for f in range(e + 1, count):
            q = entries[f]
            if strips[f] != strip or boxes[6 * q + axis] > boxes[6 * p + 3 + axis]:
                break
            if (
                max(strips[count + p], strips[count + q]) == strip
                and not _apart(boxes, p, q)
                and _cross_each_other(corners, normals, names, p, q, flat)
            ):
                if number < most:
                    partners[e * most + number] = q
                number += 1
        found[e] = number
