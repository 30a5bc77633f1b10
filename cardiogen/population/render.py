"""Rendering: meshes to label maps on any grid.

A voxel belongs to the structure that holds its center. The surfaces share their walls, so the
label maps agree with the meshes by construction, up to the size of a voxel. Where the edge of the
right ventricle is thinner than a voxel, single centers may be caught without a neighbor; such
islands of at most 1 % of the cavity are given to the background.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface, Topology
from cardiogen.ops import voxelize
from cardiogen.population.pose import Pose

_ISLAND_SHARE = 0.01


def short_axis_grid(
    vertices: NDArray[np.float64],
    pose: Pose,
    spacing: tuple[float, float, float] = (1.25, 1.25, 1.25),
    *,
    margin_mm: float = 10.0,
) -> Grid:
    """Return a short-axis grid around a heart: D to the apex, H down, W to the patient's left.

    In the slices the right ventricle lies on the left and the anterior wall on top, as
    radiologists look at them. The base plane lies midway between two slices.

    Args:
        vertices: ``(..., 3)`` world mm; all frames that the grid shall hold.
        pose: the heart's frame.
        spacing: voxel size along (d, h, w), mm.
        margin_mm: empty space on every side.
    """
    axes = -pose.axes[:, [2, 1, 0]]  # D = towards the apex, H = inferior, W = away from the RV
    along = (vertices.reshape(-1, 3) - pose.origin) @ axes
    step = np.asarray(spacing, dtype=np.float64)
    # In steps of the spacing from the origin, so that hearts of one size get one grid. Half a step
    # keeps the flat base off the voxel centers, where it would count half a slice too much.
    first = np.floor((along.min(axis=0) - margin_mm) / step - 0.5) + 0.5
    last = np.ceil((along.max(axis=0) + margin_mm) / step - 0.5) + 0.5
    shape = tuple(int(n) for n in last - first + 1)
    return Grid.regular(shape, step, origin=pose.origin + axes @ (first * step), axes=axes)


def render_labels(
    vertices: NDArray[np.float64], topology: Topology, grid: Grid
) -> NDArray[np.uint8]:
    """Return the structures ``(D, H, W)`` of one frame ``(V, 3)`` on a grid."""
    points = torch.from_numpy(np.ascontiguousarray(vertices))
    window, box = _bounding_window(vertices, grid)

    def inside(surface: Surface) -> NDArray[np.bool_]:
        faces = torch.from_numpy(np.ascontiguousarray(topology.surfaces[surface]))
        return voxelize(points, faces, window).numpy()

    part = np.zeros(window.shape, dtype=np.uint8)
    myocardium = inside(Surface.LV_EPI)
    part[_without_islands(inside(Surface.RV_ENDO) & ~myocardium)] = Structure.RV
    part[myocardium] = Structure.MYO
    part[inside(Surface.LV_ENDO)] = Structure.LV
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[box] = part
    return labels


def _without_islands(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Remove pieces of at most 1 %; larger ones would be a fault and stay visible."""
    from scipy.ndimage import label

    pieces, count = label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    small = sizes <= _ISLAND_SHARE * sizes[1:].sum()
    return mask & ~small[pieces]


def _bounding_window(
    vertices: NDArray[np.float64], grid: Grid
) -> tuple[Grid, tuple[slice, slice, slice]]:
    """Return the part of a grid that a mesh can reach: most of a grid is empty."""
    voxels = grid.to_voxel(vertices)
    low = np.clip(np.floor(voxels.min(axis=0)).astype(int), 0, np.array(grid.shape) - 1)
    high = np.clip(np.ceil(voxels.max(axis=0)).astype(int) + 1, low + 1, grid.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return grid.cropped(tuple(int(a) for a in low), tuple(int(n) for n in high - low)), box


def render_sequence(
    vertices: NDArray[np.float64], topology: Topology, grid: Grid
) -> NDArray[np.uint8]:
    """Return the structures ``(T, D, H, W)`` of all frames ``(T, V, 3)``."""
    frames = progress(vertices, "rendering label maps")
    return np.stack([render_labels(frame, topology, grid) for frame in frames])
