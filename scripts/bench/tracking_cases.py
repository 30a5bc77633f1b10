"""Hearts whose motion tracking is measured on: human and pig cines, population and annulus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen import ops
from cardiogen.data import Grid, Structure, read_image
from cardiogen.data.mesh import Surface, Topology
from cardiogen.data.sequence import Sequence
from cardiogen.measure import mesh_volume
from cardiogen.population import PopulationHeart

Array = NDArray[np.float64]

_LPS = np.array([-1.0, -1.0, 1.0])
_WALL_MM = 13.0
_AROUND_MM = 10.0
# Circles by eye on the ED frame of the pig, apex to base: slice, row, column, radius of the cavity
# and of the epicardium, voxels. Good enough to track muscle; no reference for volumes.
PIG_CIRCLES = (
    (1, 130, 135, 0, 10), (2, 127, 132, 14, 19), (3, 126, 132, 17, 22), (4, 125, 135, 20, 26),
    (5, 129, 138, 22, 28), (6, 130, 143, 24, 29), (7, 130, 147, 25, 31), (8, 131, 148, 25, 32),
    (9, 134, 149, 26, 33), (10, 137, 149, 28, 36), (11, 139, 151, 28, 36), (12, 139, 149, 28, 37),
    (13, 139, 147, 27, 36),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class HumanCine:
    """The human cine, labels of its ED made from its mesh, and the mesh sequence.

    Attributes:
        sequence: images.
        labels: structures at ED.
        vertices: endocardium of the left ventricle, lids included ``(T, V, 3)`` RAS mm.
        topology: its closed surface.
    """

    sequence: Sequence
    labels: NDArray[np.uint8]
    vertices: Array
    topology: Topology

    @property
    def volumes(self) -> Array:
        """Volumes of the left ventricle, mL ``(T,)``."""
        return mesh_volume(self.vertices, self.topology.surfaces[Surface.LV_ENDO])

    def oracle(self) -> Array:
        """Volumes of the mesh if its own motion lost what leads through the slices, mL."""
        columns = self.sequence.grid.affine[:3, :3]
        normal = np.cross(columns[:, 1], columns[:, 2])
        normal /= np.linalg.norm(normal)
        moved = self.vertices - self.vertices[:1]
        seen = moved - (moved @ normal)[..., None] * normal

        return mesh_volume(self.vertices[:1] + seen, self.topology.surfaces[Surface.LV_ENDO])


def human_cine(data: Path) -> HumanCine:
    """Read the human cine and close its meshes with flat lids."""
    image = read_image(data / "human_cine" / "sax_cine4d.nii.gz")
    stored = np.load(data / "human_cine" / "biventricular_mesh_sequence.npz")
    meshes = {
        name: closed(stored[f"{name}_points"] * _LPS, stored[f"{name}_faces"].astype(np.int64))
        for name in ("LV_ENDOCARDIAL", "RV_ENDOCARDIAL", "EPICARDIAL")
    }
    frames = len(image.frames)
    sequence = Sequence(
        phases=np.arange(frames) / frames, grid=image.grid, cycle_s=image.frame_time_s * frames,
        images=image.frames.astype(np.float32), subject_id="human_cine",
    )  # fmt: skip
    vertices, faces = meshes["LV_ENDOCARDIAL"]
    zeros = np.zeros(vertices.shape[1], dtype=np.uint8)
    topology = Topology({Surface.LV_ENDO: faces}, {"lv_endo": faces}, zeros, zeros, ("lv_endo",))

    return HumanCine(sequence, _labels(meshes, image.grid), vertices, topology)


def pig_cine(data: Path) -> tuple[Sequence, NDArray[np.uint8]]:
    """Read the pig's short-axis cine; labels of its ED are circles drawn by eye."""
    image = read_image(data / "pig_cine" / "pig_sax_cine4d.nii.gz")
    frames = len(image.frames)
    sequence = Sequence(
        phases=np.arange(frames) / frames, grid=image.grid, cycle_s=image.frame_time_s * frames,
        images=image.frames.astype(np.float32), subject_id="pig_cine",
    )  # fmt: skip
    labels = np.zeros(image.grid.shape, dtype=np.uint8)
    rows, columns = np.mgrid[: image.grid.shape[1], : image.grid.shape[2]]
    for number, row, column, inner, outer in PIG_CIRCLES:
        away = np.hypot(rows - row, columns - column)
        labels[number][away <= outer] = Structure.MYO
        labels[number][away < inner] = Structure.LV

    return sequence, labels


def pig_long_axis(data: Path) -> Sequence:
    """Read the pig's long-axis cine: 14 planes in the same world, of a beat of their own."""
    image = read_image(data / "pig_cine" / "pig_lax_cine4d.nii.gz")
    frames = len(image.frames)

    return Sequence(
        phases=np.arange(frames) / frames, grid=image.grid,
        images=image.frames.astype(np.float32), subject_id="pig_long_axis",
    )  # fmt: skip


def long_axis_grid(
    heart: PopulationHeart, vertices: Array, *, angle_deg: float, pixel_mm: float = 1.4
) -> Grid:
    """Return one plane through the axis of a heart, at an angle about it, H to the apex."""
    x, y, up = heart.pose.axes.T
    across = np.cos(np.radians(angle_deg)) * x + np.sin(np.radians(angle_deg)) * y
    axes = np.stack([np.cross(across, up), -up, across], axis=1)
    along = (vertices.reshape(-1, 3) - heart.pose.origin) @ axes[:, 1:]
    low, high = along.min(axis=0) - _AROUND_MM, along.max(axis=0) + _AROUND_MM
    rows, columns = (int(n) + 1 for n in np.ceil((high - low) / pixel_mm))
    origin = heart.pose.origin + axes[:, 1:] @ low

    return Grid.regular((1, rows, columns), (8.0, pixel_mm, pixel_mm), origin, axes)


def closed(points: Array, faces: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Return a surface ``(T, V, 3)`` with every opening closed by a fan, faces outward."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there = {(int(a), int(b)) for a, b in edges}
    following = {a: b for a, b in there if (b, a) not in there}
    lids, count = [], points.shape[1]
    while following:
        first, current = following.popitem()
        loop = [first]
        while current != first:
            loop.append(current)
            current = following.pop(current)
        points = np.concatenate([points, points[:, loop].mean(axis=1, keepdims=True)], axis=1)
        lids += [(b, a, count) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)]
        count += 1
    faces = np.concatenate([faces, np.array(lids, dtype=np.int64).reshape(-1, 3)])
    outward = float(mesh_volume(points[0], faces)) > 0

    return points, faces if outward else faces[:, ::-1].copy()


def _labels(meshes: dict[str, tuple[Array, NDArray]], grid: Grid) -> NDArray[np.uint8]:
    """Structures at ED; the wall is what the epicardium of both holds near the left cavity."""
    from scipy.ndimage import distance_transform_edt

    inside = {
        name: ops.voxelize(torch.from_numpy(v[0]), torch.from_numpy(f.copy()), grid).numpy()
        for name, (v, f) in meshes.items()
    }
    away = distance_transform_edt(~inside["LV_ENDOCARDIAL"], sampling=grid.spacing)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[inside["EPICARDIAL"] & (away <= _WALL_MM)] = Structure.MYO
    labels[inside["RV_ENDOCARDIAL"]] = Structure.RV
    labels[inside["LV_ENDOCARDIAL"]] = Structure.LV

    return labels
