"""Triangle meshes: edges, normals, enclosed volume, and voxels inside a closed surface.

Convention: vertices ``(B, V, 3)`` in world mm, faces ``(F, 3)`` integer, counter-clockwise seen
from outside, shared by the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen.ops.check import GridLike, check_floating, check_shape


def mesh_edges(faces: Tensor) -> Tensor:
    """Return every edge of a mesh once, ``(E, 2)``, smaller index first, in rising order."""
    check_shape(faces, "F 3", "faces")
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])

    return torch.unique(edges.sort(dim=1).values, dim=0)


def face_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return outward normals whose length is the area of the face: ``(b - a) x (c - a) / 2``.

    Args:
        vertices: ``(B, V, 3)`` mm.
        faces: ``(F, 3)``.

    Returns:
        Area vectors ``(B, F, 3)``, mm^2.
    """
    check_shape(vertices, "B V 3", "vertices")
    check_shape(faces, "F 3", "faces")
    a, b, c = (vertices[:, faces[:, corner]] for corner in range(3))

    return torch.linalg.cross(b - a, c - a) / 2


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return unit outward normals at the vertices: the mean of the faces around, by area.

    Args:
        vertices: ``(B, V, 3)`` mm.
        faces: ``(F, 3)``.

    Returns:
        Unit vectors ``(B, V, 3)``; zero where a vertex has no face or only degenerate ones.
    """
    areas = face_normals(vertices, faces)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, faces[:, corner], areas)

    return torch.nn.functional.normalize(total, dim=-1, eps=torch.finfo(total.dtype).tiny)


def mesh_volume_ml(vertices: Tensor, faces: Tensor) -> Tensor:
    """Return the signed volume inside closed surfaces: ``sum a . (b x c) / 6``, mm^3 to mL.

    Vertices are first moved by their mean, which changes nothing in exact arithmetic and keeps
    hearts far from the world's origin from losing digits.

    Args:
        vertices: ``(B, V, 3)`` mm.
        faces: ``(F, 3)`` of a closed surface; outward winding gives a positive volume.

    Returns:
        Volumes ``(B,)``, mL.
    """
    check_shape(vertices, "B V 3", "vertices")
    check_shape(faces, "F 3", "faces")
    centered = vertices - vertices.mean(dim=1, keepdim=True)
    a, b, c = (centered[:, faces[:, corner]] for corner in range(3))

    return (a * torch.linalg.cross(b, c)).sum(dim=(1, 2)) / 6000.0


def voxelize(vertices: Tensor, faces: Tensor, grid: GridLike) -> Tensor:
    """Return which voxel centers lie inside a closed surface, by parity of crossings along W.

    The surface is cut by the rows d = 0, 1, ...: every triangle that meets a row gives one segment
    in (h, w). Segments are cut by the lines h = 0, 1, ...: every hit gives one crossing w, and the
    voxels k >= w change sides. Both cuts are half-open (``lower <= value < upper``), and the two
    triangles at an edge compute the cut of that edge from the same numbers in the same order. So
    each line meets the surface an even number of times, also through vertices and along edges:
    no leaks, and no tolerance. A center that lies on the surface itself is inside where the
    surface lies on its lower side and outside where it lies on its upper side.

    Accumulation is in integers, so the result is the same for any number of threads.

    Args:
        vertices: ``(V, 3)`` world mm; float64 keeps what the affine gives.
        faces: ``(F, 3)`` indices, closed as a whole; orientation does not matter.
        grid: shape ``(D, H, W)`` and affine of the voxels.

    Returns:
        Boolean mask ``(D, H, W)``.

    Raises:
        ValueError: if a vertex is not finite, an index is out of range, or the surface is open.
    """
    check_shape(vertices, "V 3", "vertices")
    check_shape(faces, "F 3", "faces")
    check_floating(vertices, "vertices")
    depth, height, width = grid.shape
    _check_mesh(vertices, faces)

    corners = _to_voxels(vertices.detach().double(), grid)[faces.T]  # (3, F, 3)
    row, start, end = _cut_rows(corners, depth)
    column, crossing = _cut_columns(start, end, height)
    line = row[column.source] * height + column.value
    # One more slot than voxels: what crosses beyond the last center is still counted for parity.
    slot = crossing.ceil().clamp(0, width).long()
    toggles = torch.zeros(depth * height * (width + 1), dtype=torch.uint8, device=faces.device)
    # uint8 wraps at 256, which leaves parity alone.
    toggles.scatter_add_(0, line * (width + 1) + slot, torch.ones_like(slot, dtype=torch.uint8))
    toggles = toggles.view(depth, height, width + 1)
    inside = toggles.cumsum(dim=2, dtype=torch.uint8).bitwise_and_(1).bool()
    if inside[..., width].any():
        raise ValueError(
            "faces must bound a closed surface, got one with a hole; close it with lids first"
        )

    return inside[..., :width].contiguous()


def _check_mesh(vertices: Tensor, faces: Tensor) -> None:
    if not torch.isfinite(vertices).all():
        raise ValueError("vertices must be finite, got NaN or infinity")
    if faces.numel() and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(
            f"faces must index vertices 0 to {len(vertices) - 1}, "
            f"got {int(faces.min())} to {int(faces.max())}"
        )


def _to_voxels(vertices: Tensor, grid: GridLike) -> Tensor:
    """Map world points ``(V, 3)`` to voxels, elementwise: equal points must stay equal bits."""
    inverse = torch.linalg.inv(torch.tensor(grid.affine, dtype=torch.float64)).to(vertices.device)
    x, y, z = vertices.unbind(dim=1)

    return torch.stack([m[0] * x + m[1] * y + m[2] * z + m[3] for m in inverse[:3]], dim=1)


class _Cuts:
    """Integer lines that cut intervals: ``source`` interval and ``value`` of each, ``(K,)``."""

    def __init__(self, lower: Tensor, upper: Tensor, size: int) -> None:
        """List the integers of [lower, upper) that are also in [0, size)."""
        first = lower.ceil().clamp(0, size).long()
        count = (upper.ceil().clamp(0, size).long() - first).clamp(min=0)
        self.source = torch.repeat_interleave(count)
        before = count.cumsum(0) - count
        rank = torch.arange(len(self.source), device=lower.device)
        self.value = rank + (first - before)[self.source]


def _cut_rows(corners: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut triangles ``(3, F, 3)`` by rows: row ``(K,)`` and segment ends in (h, w), ``(2, K)``."""
    d = corners[..., 0]
    cuts = _Cuts(d.amin(dim=0), d.amax(dim=0), depth)
    level = cuts.value.double()
    triangles = corners.movedim(-1, 0)[:, :, cuts.source]  # (3 coordinates, 3 corners, K)
    below = triangles[0] <= level  # (3 corners, K)
    # One corner is alone on its side of the row; both cut edges start from it.
    alone = torch.where(below.sum(dim=0) == 1, below, ~below).byte().argmax(dim=0)
    lone = _corner(triangles, alone)
    lone_below = _corner(below[None], alone)[0]
    ends = [
        _cut_edge(lone, _corner(triangles, (alone + step) % 3), lone_below, level)
        for step in (1, 2)
    ]

    return cuts.value, ends[0], ends[1]


def _corner(triangles: Tensor, which: Tensor) -> Tensor:
    """Pick corner ``which`` ``(K,)`` of each triangle ``(N, 3, K)``: ``(N, K)``."""
    index = which.expand(len(triangles), 1, -1)

    return triangles.gather(1, index).squeeze(1)


def _cut_edge(lone: Tensor, other: Tensor, lone_below: Tensor, level: Tensor) -> Tensor:
    """Return (h, w) where edges cross their row, always walking from below to above."""
    low = torch.where(lone_below, lone, other)
    high = torch.where(lone_below, other, lone)
    share = (level - low[0]) / (high[0] - low[0])

    return low[1:] + share * (high[1:] - low[1:])


def _cut_columns(start: Tensor, end: Tensor, height: int) -> tuple[_Cuts, Tensor]:
    """Cut segments by lines of constant h: the cuts and the crossing w of each, ``(K,)``."""
    forward = start[0] < end[0]
    low, high = torch.where(forward, start, end), torch.where(forward, end, start)
    cuts = _Cuts(low[0], high[0], height)
    low, high = low[:, cuts.source], high[:, cuts.source]
    share = (cuts.value - low[0]) / (high[0] - low[0])

    return cuts, low[1] + share * (high[1] - low[1])
