"""Closed surfaces of the ventricles from the label map of ED, smooth and true in volume.

Why not the population template: it needs both ventricles complete and bends towards its own
shapes; labels of pigs or of a left ventricle alone have surfaces as well. Thick slices are
interpolated by shape: signed distances in the planes, linear between slices, flat ends half a
slice beyond the outer ones, as label volumes count them. The level is then chosen such that
the mesh encloses exactly the volume of the labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data import Grid, Structure
from cardiogen.data.mesh import Surface, Topology
from cardiogen.measure import lv_frame, mesh_volume, rv_insertions, segment_of_points
from registration.tracking.labels import plane_distances

Array = NDArray[np.float64]
Mesh = tuple[Array, NDArray[np.int64]]

_PARTS = {Surface.LV_ENDO: "lv_endo", Surface.LV_EPI: "lv_epi", Surface.RV_ENDO: "rv_endo"}
_ROUNDS = 4
_SMOOTH_MM = 1.0
_FAR_MM = 20.0
_FEWEST = 30


def surfaces_of(labels: NDArray, grid: Grid, *, step_mm: float = 2.0) -> tuple[Array, Topology]:
    """Return vertices ``(V, 3)`` world RAS mm and topology of LV_ENDO, LV_EPI and RV_ENDO.

    Structures with fewer than 30 voxels have no surface. Vertices carry AHA segments where a
    right ventricle tells the septum.

    Args:
        labels: structures ``(D, H, W)`` at ED.
        grid: their lattice.
        step_mm: edge length of the triangles, about.
    """
    solids = {
        Surface.LV_ENDO: labels == Structure.LV,
        Surface.LV_EPI: (labels == Structure.LV) | (labels == Structure.MYO),
        Surface.RV_ENDO: labels == Structure.RV,
    }
    vertices, surfaces, region, count = [], {}, [], 0
    for surface, solid in solids.items():
        if solid.sum() < _FEWEST:
            continue
        points, faces = _surface(solid, grid, step_mm)
        surfaces[surface] = faces + count
        vertices.append(points)
        region.append(np.full(len(points), len(region), dtype=np.uint8))
        count += len(points)
    points = np.concatenate(vertices)
    names = tuple(_PARTS[s] for s in surfaces)
    left = np.isin(np.concatenate(region), [names.index(n) for n in names if n[0] == "l"])

    return points, Topology(
        surfaces=surfaces,
        parts={_PARTS[s]: faces for s, faces in surfaces.items()},
        aha_segment=np.where(left, _segments(points, labels, grid), 0).astype(np.uint8),
        region=np.concatenate(region),
        region_names=names,
    )


def _segments(points: Array, labels: NDArray, grid: Grid) -> NDArray[np.uint8]:
    try:
        frame = lv_frame(labels, grid)
        return segment_of_points(points, frame, rv_insertions(labels, grid, frame))
    except CardiogenError as error:
        # Without an open base or a septum there are no segments to name, and 0 says so.
        if error.code not in ("L60", "L61", "L62"):
            raise
        return np.zeros(len(points), dtype=np.uint8)


def _surface(solid: NDArray[np.bool_], grid: Grid, step_mm: float) -> Mesh:
    """Return one closed surface with outward faces and the volume of the voxels."""
    field, fine = _distance(solid, grid, step_mm)
    wanted = float(solid.sum()) * grid.voxel_volume_ml
    values = np.sort(field.reshape(-1))[::-1]
    count = int(np.clip(round(wanted / fine.voxel_volume_ml), 1, len(values) - 1))
    level = float(values[count])
    mesh = _marched(field, fine, level)
    for _ in range(_ROUNDS):
        volume = float(mesh_volume(*mesh))
        if abs(volume - wanted) < 1e-3 * wanted:
            break
        level += (volume - wanted) * 1000.0 / _area(*mesh)
        mesh = _marched(field, fine, level)
    # What is left of the difference is a scale about the middle, of less than a thousandth.
    points, faces = mesh
    middle = points.mean(axis=0)
    scale = np.cbrt(wanted / float(mesh_volume(points, faces)))

    return middle + scale * (points - middle), faces


def _distance(solid: NDArray[np.bool_], grid: Grid, step_mm: float) -> tuple[Array, Grid]:
    """Return the signed distance (mm, inside positive) on a finer grid around the solid."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    spacing = np.array(grid.spacing)
    margin = np.array([1, 4, 4])
    where = np.argwhere(solid)
    low, high = where.min(axis=0), where.max(axis=0)
    solid = np.pad(solid[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))],
                   [(m, m) for m in margin])  # fmt: skip
    planes = plane_distances(solid, grid.spacing[1:])
    planes = gaussian_filter(planes, [0, *(_SMOOTH_MM / spacing[1:])])
    span = (np.array(solid.shape) - 1) * spacing
    shape = np.ceil(span / step_mm).astype(int) + 1
    axes = [np.linspace(0, n - 1, m) for n, m in zip(solid.shape, shape, strict=True)]
    coords = np.stack(np.meshgrid(*axes, indexing="ij"))
    field = map_coordinates(planes, coords, order=1)
    ends = np.minimum(coords[0] - 0.5, solid.shape[0] - 1.5 - coords[0]) * spacing[0]
    fine = grid.cropped(tuple(low - margin), solid.shape).resized(tuple(shape))

    return np.minimum(field, ends), fine


def _marched(field: Array, grid: Grid, level: float) -> Mesh:
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(np.pad(field, 1, constant_values=-_FAR_MM), level)
    points, faces = grid.to_world(vertices - 1.0), faces.astype(np.int64)
    points = _smoothed(points, faces)
    if mesh_volume(points, faces) < 0:
        faces = faces[:, ::-1].copy()

    return points, faces


def _smoothed(points: Array, faces: NDArray[np.int64], rounds: int = 6) -> Array:
    """Smooth by Taubin's alternating steps, which keep volume nearly as it is."""
    from scipy.sparse import coo_matrix

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    size = len(points)
    near = coo_matrix((np.ones(len(edges)), edges.T), shape=(size, size)).tocsr()
    near.data[:] = 1.0
    degree = np.asarray(near.sum(axis=1))
    for step in rounds * (0.5, -0.53):
        points = points + step * (near @ points / degree - points)

    return points


def _area(points: Array, faces: NDArray[np.int64]) -> float:
    a, b, c = np.moveaxis(points[faces], 1, 0)

    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)
