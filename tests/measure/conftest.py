"""Hearts with known answers: an ellipsoidal ventricle in voxels, a beating cup of triangles."""

from dataclasses import dataclass

import numpy as np
import pytest

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface, Topology
from cardiogen.data.sequence import Sequence

# Angles of the insertions from the septum's direction: unequal, so that a swap shows.
INFERIOR, ANTERIOR = np.radians(-50.0), np.radians(70.0)


def rotation(seed):
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return axes * np.array([1.0, 1.0, np.sign(np.linalg.det(axes))])


@dataclass
class Phantom:
    """Heart frame: columns of ``axes`` are x (to the RV), y (anterior), z (apex to base)."""

    labels: np.ndarray
    grid: Grid
    axes: np.ndarray
    local: np.ndarray

    def polar(self):
        """Angle from the septum towards anterior, and height, of every voxel."""
        x, y, z = np.moveaxis(self.local, -1, 0)
        return np.arctan2(y, x), z


def voxel_heart(spacing, *, seed=1, grid_seed=None, inner=(24.0, 24.0, 78.0), outer=None, top=6.0,
                shape="ellipsoid"):  # fmt: skip
    """A ventricle cut at height ``top``, wrapped by an RV between INFERIOR and ANTERIOR.

    The slices are perpendicular to the long axis unless ``grid_seed`` turns the grid.
    """
    outer = np.asarray(inner) + 9.0 if outer is None else np.asarray(outer)
    axes = rotation(seed)
    columns = axes[:, [2, 1, 0]] if grid_seed is None else rotation(grid_seed)
    size = tuple(int(np.ceil(170.0 / s)) | 1 for s in spacing)
    linear = columns * np.asarray(spacing)
    origin = np.array([4.0, -31.0, 55.0]) - linear @ (np.array(size) - 1) / 2 - axes[:, 2] * 36.7
    grid = Grid.regular(size, spacing, origin, columns)
    world = grid.to_world(np.moveaxis(np.indices(size), 0, -1))
    local = (world - np.array([4.0, -31.0, 55.0])) @ axes
    x, y, z = np.moveaxis(local, -1, 0)

    def inside(semi, floor):
        if shape == "cylinder":
            return (np.hypot(x, y) < semi[0]) & (z > floor) & (z < top)
        return ((local / semi) ** 2).sum(axis=-1) < 1.0

    below, angle = z < top, np.arctan2(y, x)
    wedge = (angle > INFERIOR) & (angle < ANTERIOR) & (z > -0.8 * outer[2])
    labels = np.zeros(size, dtype=np.uint8)
    labels[inside(outer + np.array([18.0, 18.0, 0.0]), -70) & below & wedge] = Structure.RV
    labels[inside(outer, -78.0) & below] = Structure.MYO
    labels[inside(np.asarray(inner), -64.0) & below] = Structure.LV
    return Phantom(labels, grid, axes, local)


@pytest.fixture(scope="session")
def volume_heart():
    return voxel_heart((1.5, 1.6, 1.4), grid_seed=5)


@pytest.fixture(scope="session")
def stack_heart():
    return voxel_heart((8.0, 1.4, 1.5))


ROWS, COLUMNS = 9, 16


def cup_topology():
    """Endocardium and epicardium as cups of ROWS x COLUMNS, with shared lid and rim; and an RV."""

    def cup(first):
        rings = first + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
        right = np.roll(rings, -1, axis=1)
        a, b, c, d = rings[:-1], right[:-1], right[1:], rings[1:]
        sides = np.concatenate([np.stack([a, d, c], -1).reshape(-1, 3),
                                np.stack([a, c, b], -1).reshape(-1, 3)])  # fmt: skip
        apex = first + ROWS * COLUMNS
        tip = np.stack([np.full(COLUMNS, apex), right[-1], rings[-1]], -1)
        return np.concatenate([sides, tip]), rings[0]

    size = ROWS * COLUMNS + 1
    endo, inner = cup(0)
    epi, outer = cup(size)
    center = 2 * size
    lid = np.stack([np.full(COLUMNS, center), inner, np.roll(inner, -1)], -1)
    far_in, far_out = np.roll(inner, -1), np.roll(outer, -1)
    rim = np.concatenate(
        [np.stack([inner, outer, far_out], -1), np.stack([inner, far_out, far_in], -1)]
    )
    box = center + 1 + np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    surfaces = {
        Surface.LV_ENDO: np.concatenate([endo, lid]),
        Surface.LV_EPI: np.concatenate([epi, lid, rim]),
        Surface.RV_ENDO: box,
    }
    count = 2 * size + 5
    zeros = np.zeros(count, dtype=np.uint8)
    return Topology(surfaces, {}, zeros, zeros, ("all",))


def cup_vertices(inner, outer, *, right=60.0):
    """Half ellipsoids of semi-axes ``inner`` and ``outer`` (mm), open upwards; a tetrahedron."""
    height = np.linspace(0.0, 1.0, ROWS + 1)[:-1, None] * np.pi / 2
    turn = np.arange(COLUMNS) * 2 * np.pi / COLUMNS
    unit = np.stack([np.cos(height) * np.cos(turn), np.cos(height) * np.sin(turn),
                     -np.sin(height) + 0 * turn], -1).reshape(-1, 3)  # fmt: skip
    unit = np.concatenate([unit, [[0.0, 0.0, -1.0]]])
    tetra = np.concatenate([np.zeros((1, 3)), right * np.eye(3)]) + np.array([50.0, 0.0, -60.0])
    return np.concatenate([unit * inner, unit * outer, [[0.0, 0.0, 0.0]], tetra])


@pytest.fixture
def beating_cup():
    """25 frames of a cup whose wall keeps its volume; EF is (1 - 0.75^3) or 58 %."""
    phases = np.arange(25) / 25
    emptied = np.sin(np.pi * phases) ** 2
    topology, frames = cup_topology(), []
    inner = np.array([25.0, 25.0, 80.0])
    wall = 34.0**2 * 88.0 - 25.0**2 * 80.0
    for share in emptied:
        small = inner * (1.0 - 0.25 * share)
        # Equal ratios of all semi-axes keep the polyhedra similar, so their volumes scale alike.
        outer = np.array([34.0, 34.0, 88.0]) * np.cbrt((wall + small.prod()) / (34.0**2 * 88.0))
        frames.append(cup_vertices(small, outer, right=100.0 * (1 - 0.15 * share)))
    return Sequence(phases=phases, vertices=np.stack(frames), topology=topology, cycle_s=0.8)


@pytest.fixture(scope="session")
def build_heart():
    """The function ``voxel_heart``, for tests that need other sizes."""
    return voxel_heart


@pytest.fixture(scope="session")
def build_cup():
    """Topology and vertices of a cup of given semi-axes."""
    return lambda inner, outer: (cup_topology(), cup_vertices(np.array(inner), np.array(outer)))
