"""Grids: voxels and world map to each other exactly, whatever the storage order."""

import itertools

import numpy as np
import pytest

from cardiogen.data import Grid


def test_world_of_voxel_zero_and_of_unit_steps(oblique_grid):
    assert np.allclose(oblique_grid.to_world((0, 0, 0)), (5, -20, 31), atol=1e-12)
    for axis, spacing in enumerate((8.0, 1.4, 1.9)):
        step = oblique_grid.to_world(np.eye(3)[axis]) - oblique_grid.to_world(np.zeros(3))
        assert np.linalg.norm(step) == pytest.approx(spacing, abs=1e-12)
    assert np.allclose(oblique_grid.spacing, (8, 1.4, 1.9))


def test_voxel_and_world_are_inverse(oblique_grid):
    points = np.random.default_rng(0).normal(size=(4, 5, 3)) * 100
    assert np.allclose(oblique_grid.to_world(oblique_grid.to_voxel(points)), points, atol=1e-10)


def test_voxel_volume(oblique_grid):
    assert oblique_grid.voxel_volume_ml == pytest.approx(8 * 1.4 * 1.9 / 1000)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_permuted_grid_keeps_every_voxel_in_place(oblique_grid, order):
    index = np.stack(np.meshgrid(*map(np.arange, oblique_grid.shape), indexing="ij"), axis=-1)
    world = oblique_grid.to_world(index)
    for flips in itertools.product((False, True), repeat=3):
        other = oblique_grid.permuted(order, flips)
        moved = world.transpose(*order, 3)
        moved = moved[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
        there = np.stack(np.meshgrid(*map(np.arange, other.shape), indexing="ij"), axis=-1)
        assert np.allclose(other.to_world(there), moved, atol=1e-10)


def test_crop_and_pad_keep_world(oblique_grid):
    cropped = oblique_grid.cropped((2, -3, 4), (3, 9, 5))
    assert cropped.shape == (3, 9, 5)
    assert np.allclose(cropped.to_world((1, 5, 0)), oblique_grid.to_world((3, 2, 4)), atol=1e-10)


def test_resized_keeps_the_corners(oblique_grid):
    resized = oblique_grid.resized((13, 5, 25))
    assert np.allclose(resized.corners(), oblique_grid.corners(), atol=1e-10)


def test_distance_between_grids(oblique_grid):
    moved = oblique_grid.affine.copy()
    moved[:3, 3] += (3, 4, 12)
    assert oblique_grid.distance_mm(Grid(oblique_grid.shape, moved)) == pytest.approx(13)
    assert oblique_grid.distance_mm(oblique_grid.cropped((0, 0, 0), (7, 10, 12))) == np.inf
    assert oblique_grid.matches(Grid(oblique_grid.shape, oblique_grid.affine))
    assert not oblique_grid.matches(Grid(oblique_grid.shape, moved))


def test_grid_around_points_holds_them_with_margin():
    points = np.random.default_rng(1).normal(size=(50, 3)) * (20, 30, 40)
    grid = Grid.around(points, (3.0, 1.5, 2.0), margin_mm=7.0)
    low, high = grid.corners().min(axis=0), grid.corners().max(axis=0)
    assert np.all(low <= points.min(axis=0) - 7)
    assert np.all(high >= points.max(axis=0) + 7)
    assert np.all(low >= points.min(axis=0) - 7 - (2.0, 1.5, 3.0))
    assert np.allclose(grid.spacing, (3, 1.5, 2))
    # D runs along z, H along y, W along x; voxel 0 lies on a multiple of the spacing.
    assert np.allclose(grid.affine[:3, :3], np.diag([3, 1.5, 2])[::-1])
    assert np.allclose(low / (2.0, 1.5, 3.0), np.rint(low / (2.0, 1.5, 3.0)))


def test_affine_cannot_be_changed_by_accident(oblique_grid):
    with pytest.raises(ValueError, match="read-only"):
        oblique_grid.affine[0, 0] = 1


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [((3, 4), np.eye(4), "shape must be three"), ((3, 0, 4), np.eye(4), "positive"),
     ((3, 4, 5), np.eye(3), "finite 4 x 4"), ((3, 4, 5), np.full((4, 4), np.nan), "finite 4 x 4"),
     ((3, 4, 5), np.diag([1, 0, 1, 1]), "invertible")],
)  # fmt: skip
def test_wrong_arguments(shape, affine, words):
    with pytest.raises(ValueError, match=words):
        Grid(shape, affine)
