"""Self-intersection of triangle meshes: which pairs of faces cross.

Two faces cross if an edge of one passes through the inside of the other, or if they lie in one
plane and overlap. Faces that only touch do not cross; of faces that share a vertex, the edge
opposite to it is tried; faces that share an edge meet there and are left to the normals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Six times the volume of a tetrahedron, mm^3, below which four points count as one plane. Float64
# at 1,000 mm from the origin leaves errors of 1e-10 mm^3 for triangles of some mm.
_FLAT = 1e-9
_CHUNK = 200_000


def crossing_faces(vertices: ArrayLike, faces: ArrayLike) -> NDArray[np.int64]:
    """Return the pairs of faces that cross each other.

    Faces whose boxes overlap are tested with the signs of tetrahedron volumes: in a compiled loop
    (``ops.kernels``) where there is a compiler, else in NumPy.

    Args:
        vertices: ``(V, 3)`` mm.
        faces: ``(F, 3)``.

    Returns:
        Indices of faces ``(N, 2)``, first below second, in rising order.

    Raises:
        ValueError: if a vertex is not finite.
    """
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if not np.isfinite(vertices).all():
        raise ValueError("vertices must be finite; check them before asking what crosses")
    if len(faces) < 2:
        return np.empty((0, 2), dtype=np.int64)
    triangles = vertices[faces] - vertices[faces].mean(axis=(0, 1))
    # Torch takes long to import: not before a mesh is checked.
    import torch

    from cardiogen.ops.kernels import cpu_kernels

    kernels = cpu_kernels()
    if kernels is None:
        found = _crossing_pairs(triangles, faces)
    else:
        names = torch.from_numpy(faces.astype(np.int64))
        found = kernels.crossing_pairs(torch.from_numpy(triangles), names, _FLAT).numpy()
    crossing = np.sort(found, axis=1)
    return crossing[np.lexsort(crossing.T[::-1])]


def _crossing_pairs(triangles: NDArray, faces: NDArray) -> NDArray[np.int64]:
    """Pairs of faces that cross, ``(N, 2)``: what the compiled form is tested against."""
    pairs = _overlapping_boxes(triangles)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), _CHUNK):
        found.append(_crossing(triangles, faces, pairs[start : start + _CHUNK]))
    return np.concatenate(found)


def _overlapping_boxes(triangles: NDArray) -> NDArray[np.int64]:
    """Pairs of triangles whose boxes overlap, ``(N, 2)``.

    A binary tree of boxes over the triangles in k-d order is descended level by level: of a pair
    of boxes that overlap, all pairs of their halves are tried next.
    """
    from scipy.spatial import cKDTree

    order = cKDTree(triangles.mean(axis=1), leafsize=1).indices
    depth = int(np.ceil(np.log2(len(order))))
    # Filled up to a power of two with boxes that overlap nothing.
    low, high = np.full((3, 1 << depth), np.inf), np.full((3, 1 << depth), -np.inf)
    low[:, : len(order)] = triangles[order].min(axis=1).T
    high[:, : len(order)] = triangles[order].max(axis=1).T
    first = second = np.zeros(1, dtype=np.int64)
    for level in range(1, depth + 1):
        # Children (a0, b0), (a0, b1), (a1, b1), and (a1, b0) unless it mirrors (a0, b1).
        apart = first != second
        mirrored_a, mirrored_b = 2 * first[apart] + 1, 2 * second[apart]
        first = np.concatenate([2 * first, 2 * first, 2 * first + 1, mirrored_a])
        second = np.concatenate([2 * second, 2 * second + 1, 2 * second + 1, mirrored_b])
        width = 1 << (depth - level)
        for axis in range(3):
            start = low[axis].reshape(-1, width).min(axis=1)
            end = high[axis].reshape(-1, width).max(axis=1)
            meets = (start[first] <= end[second]) & (start[second] <= end[first])
            first, second = first[meets], second[meets]
    proper = first != second
    return np.stack([order[first[proper]], order[second[proper]]], axis=1)


def _crossing(triangles: NDArray, faces: NDArray, pairs: NDArray) -> NDArray[np.int64]:
    # Where all corners of a face lie on one side of the other's plane nothing crosses; that is
    # nearly all there is on a smooth surface. A shared vertex lies in the plane.
    height_a = _heights(triangles, pairs[:, 1], pairs[:, 0])
    pairs, height_a = _kept(~_one_sided(height_a), pairs, height_a)
    height_b = _heights(triangles, pairs[:, 0], pairs[:, 1])
    pairs, height_a, height_b = _kept(~_one_sided(height_b), pairs, height_a, height_b)
    same = faces[pairs[:, 0]][:, :, None] == faces[pairs[:, 1]][:, None, :]
    shared = same.sum(axis=(1, 2))
    pairs, height_a, height_b, same, shared = _kept(
        shared < 2, pairs, height_a, height_b, same, shared
    )
    a, b = triangles[pairs[:, 0]], triangles[pairs[:, 1]]
    flat = (np.abs(height_a) <= _FLAT).all(axis=1) & (np.abs(height_b) <= _FLAT).all(axis=1)
    hit = np.zeros(len(pairs), dtype=bool)
    for corner in range(3):
        # With a shared vertex only the edges opposite to it can cross the other triangle.
        free_a = (shared == 0) | same[:, corner].any(axis=1)
        free_b = (shared == 0) | same[:, :, corner].any(axis=1)
        hit |= free_a & _edge_crosses(a, height_a, corner, b)
        hit |= free_b & _edge_crosses(b, height_b, corner, a)
    hit[flat] = _overlap_in_plane(a[flat], b[flat])
    return pairs[hit]


def _kept(mask: NDArray[np.bool_], *arrays: NDArray) -> tuple[NDArray, ...]:
    return tuple(array[mask] for array in arrays)


def _heights(triangles: NDArray, base: NDArray, other: NDArray) -> NDArray:
    """Heights of the corners of ``other`` over the planes of ``base`` x twice its area, (N, 3)."""
    origin = triangles[:, 0]
    normal = np.cross(triangles[:, 1] - origin, triangles[:, 2] - origin)[base]
    level = (normal * origin[base]).sum(axis=1)
    return np.einsum("nkc,nc->nk", triangles[other], normal) - level[:, None]


def _one_sided(height: NDArray) -> NDArray[np.bool_]:
    """Whether corners lie on one side of a plane, at least one of them off it."""
    low, high = height.min(axis=1), height.max(axis=1)
    return ((low >= -_FLAT) & (high > _FLAT)) | ((high <= _FLAT) & (low < -_FLAT))


def _edge_crosses(a: NDArray, height: NDArray, corner: int, b: NDArray) -> NDArray[np.bool_]:
    """Whether the edge of ``a`` opposite to ``corner`` passes through the inside of ``b``."""
    start, end = (corner + 1) % 3, (corner + 2) % 3
    low = np.minimum(height[:, start], height[:, end])
    high = np.maximum(height[:, start], height[:, end])
    result = (low < -_FLAT) & (high > _FLAT)
    index = np.flatnonzero(result)
    tail = a[index, start]
    direction = a[index, end] - tail
    spokes = b[index] - tail[:, None]
    # Volumes of the edge with the three sides: of one sign if the line runs inside all of them.
    sides = np.stack([
        (direction * np.cross(spokes[:, k], spokes[:, (k + 1) % 3])).sum(axis=1) for k in range(3)
    ])  # fmt: skip
    result[index] = (sides > _FLAT).all(axis=0) | (sides < -_FLAT).all(axis=0)
    return result


def _overlap_in_plane(a: NDArray, b: NDArray) -> NDArray[np.bool_]:
    """Whether triangles of one plane share area: no side of either separates them."""
    normal = np.cross(a[:, 1] - a[:, 0], a[:, 2] - a[:, 0])
    separated = np.zeros(len(a), dtype=bool)
    size = np.abs(a - a[:, :1]).max(axis=(1, 2), initial=1e-12)
    for triangle in (a, b):
        for corner in range(3):
            side = triangle[:, (corner + 1) % 3] - triangle[:, corner]
            across = np.cross(side, normal)
            reach_a, reach_b = (np.einsum("nkc,nc->nk", t, across) for t in (a, b))
            slack = 1e-9 * size * np.linalg.norm(across, axis=1)
            gap = np.maximum(reach_a.min(axis=1) - reach_b.max(axis=1),
                             reach_b.min(axis=1) - reach_a.max(axis=1))  # fmt: skip
            separated |= gap >= -slack
    return ~separated
