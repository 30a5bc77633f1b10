"""A toy heart of known shape: nested spheres that beat, tilted and off-center in the world."""

import numpy as np
import pytest

from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface, Topology
from cardiogen.data.sequence import Sequence

CENTER = np.array([12.0, -30.0, 55.0])
# Right-handed (rightward, anterior, long axis) of the toy heart, as columns.
POSE = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
POSE = POSE * np.array([1.0, 1.0, np.sign(np.linalg.det(POSE))])
RADII = {Surface.LV_ENDO: 22.0, Surface.LV_EPI: 31.0, Surface.RV_ENDO: 20.0, Surface.EPI: 62.0}
OFFSETS = {Surface.RV_ENDO: np.array([51.0, 0.0, 0.0]), Surface.EPI: np.array([20.0, 0.0, 0.0])}
BASE_MM = 14.0  # labels end at this level of the long axis, so that the cavity is open there
SCALES = np.array([1.0, 0.9, 0.8, 0.85, 0.95])


def uv_sphere(rings: int = 24, columns: int = 36) -> tuple[np.ndarray, np.ndarray]:
    """Return the points and outward faces of a closed unit sphere with poles on z."""
    polar = np.pi * np.arange(1, rings) / rings
    angle = 2 * np.pi * np.arange(columns) / columns
    ring = np.stack(
        np.broadcast_arrays(
            np.sin(polar)[:, None] * np.cos(angle),
            np.sin(polar)[:, None] * np.sin(angle),
            np.cos(polar)[:, None],
        ),
        axis=-1,
    ).reshape(-1, 3)
    points = np.concatenate([ring, [[0, 0, 1.0]], [[0, 0, -1.0]]])
    index = np.arange((rings - 1) * columns).reshape(rings - 1, columns)
    after = np.roll(index, -1, axis=1)
    top, bottom = len(points) - 2, len(points) - 1
    faces = np.concatenate([
        np.stack([index[:-1], index[1:], after[1:]], axis=-1).reshape(-1, 3),
        np.stack([index[:-1], after[1:], after[:-1]], axis=-1).reshape(-1, 3),
        np.stack([np.full(columns, top), index[0], after[0]], axis=-1),
        np.stack([np.full(columns, bottom), after[-1], index[-1]], axis=-1),
    ])  # fmt: skip
    return points, faces.astype(np.int64)


def toy_topology() -> Topology:
    """Return the four spheres as surfaces and parts; AHA levels follow the height."""
    points, faces = uv_sphere()
    count = len(points)
    surfaces = {s: faces + k * count for k, s in enumerate(RADII)}
    level = np.select([points[:, 2] > 0.33, points[:, 2] < -0.33], [1, 13], 7).astype(np.uint8)
    zeros = np.zeros(2 * count, dtype=np.uint8)
    return Topology(
        surfaces=surfaces,
        parts={s.name.lower(): f for s, f in surfaces.items()},
        aha_segment=np.concatenate([level, level, zeros]),
        region=np.repeat(np.arange(4, dtype=np.uint8), count),
        region_names=tuple(s.name.lower() for s in surfaces),
    )


def toy_vertices() -> np.ndarray:
    """Return the beating spheres ``(5, V, 3)``."""
    points, _ = uv_sphere()
    frames = []
    for scale in SCALES:
        spheres = [
            points * (RADII[s] if s is Surface.EPI else RADII[s] * scale)
            + OFFSETS.get(s, np.zeros(3))
            for s in RADII
        ]
        frames.append(np.concatenate(spheres) @ POSE.T + CENTER)
    return np.stack(frames)


def toy_labels(grid: Grid) -> np.ndarray:
    """Return the label maps of the balls below the base plane ``(5, D, H, W)``."""
    voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    points = (grid.to_world(voxels) - CENTER) @ POSE
    from_lv = np.linalg.norm(points, axis=-1)
    from_rv = np.linalg.norm(points - OFFSETS[Surface.RV_ENDO], axis=-1)
    labels = np.zeros((len(SCALES), *grid.shape), dtype=np.uint8)
    for frame, scale in zip(labels, SCALES, strict=True):
        frame[from_rv < RADII[Surface.RV_ENDO] * scale] = Structure.RV
        frame[from_lv < RADII[Surface.LV_EPI] * scale] = Structure.MYO
        frame[from_lv < RADII[Surface.LV_ENDO] * scale] = Structure.LV
        frame[points[..., 2] > BASE_MM] = Structure.BACKGROUND
    return labels


@pytest.fixture(scope="session")
def toy_heart() -> Sequence:
    """Return five frames of labels and meshes on an oblique, anisotropic grid."""
    axes, _ = np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))
    shape, spacing = (71, 64, 77), np.array([1.9, 2.1, 1.7])
    origin = CENTER + POSE @ [20.0, 0, 0] - axes @ (spacing * (np.array(shape) - 1) / 2)
    grid = Grid.regular(shape, spacing, origin, axes)
    return Sequence(
        phases=np.arange(5) / 5,
        es=2,
        grid=grid,
        labels=toy_labels(grid),
        vertices=toy_vertices(),
        topology=toy_topology(),
        factors=Factors(age=70, sex="F", height=162),
        cycle_s=0.8,
        subject_id="toy_001",
    )
