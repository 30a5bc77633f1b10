"""Rigid and affine transforms act as their matrices, on any grid and about any center."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.transforms import Affine, Rigid


def matrix_of(seed, *, rigid=False):
    generator = np.random.default_rng(seed)
    translation = torch.from_numpy(generator.normal(scale=9.0, size=(2, 3)))
    rotation = torch.from_numpy(generator.normal(scale=0.4, size=(2, 3)))
    scale = torch.from_numpy(generator.uniform(0.8, 1.3, size=(2, 3)))
    shear = torch.from_numpy(generator.normal(scale=0.1, size=(2, 3)))
    more = {} if rigid else {"scale": scale, "shear": shear}
    return ops.affine_matrix(translation, rotation=rotation, **more)


@pytest.mark.parametrize("center", [None, (3.0, -7.0, 40.0)])
@pytest.mark.parametrize("kind", [Affine, Rigid])
def test_matrices_round_trip_and_act_on_world_points(grid, kind, center):
    matrix = matrix_of(4, rigid=kind is Rigid)
    transform = kind.from_matrix(grid, matrix, center=center)
    assert torch.allclose(transform.matrix(), matrix, atol=1e-10)
    points = torch.from_numpy(grid.corners()).expand(2, -1, -1)
    wanted = ops.transform_points(points, matrix)
    assert torch.allclose(transform.points(points), wanted, atol=1e-9)


def test_the_displacement_is_the_matrix_in_world_mm(grid):
    transform = Affine.from_matrix(grid, matrix_of(7))
    voxels = ops.identity_coords(grid.shape, dtype=torch.float64) + transform.displacement()
    world = ops.transform_points(voxels.flatten(2).movedim(1, -1), ops.grid_to_world(grid))
    start = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    wanted = ops.transform_points(
        torch.from_numpy(grid.to_world(start).reshape(1, -1, 3)), transform.matrix()
    )
    assert torch.allclose(world, wanted, atol=1e-9)


def test_the_center_stays_where_only_the_linear_part_moves(grid):
    params = torch.zeros(1, 6, dtype=torch.float64)
    params[0, :3] = torch.tensor([0.3, -0.2, 0.5])
    transform = Rigid(grid, params)
    center = torch.tensor(grid.to_world((np.array(grid.shape) - 1) / 2)).view(1, 1, 3)
    assert torch.allclose(transform.points(center), center, atol=1e-10)


def test_a_rotation_vector_turns_right_handed_about_world_axes(grid):
    params = torch.zeros(1, 6, dtype=torch.float64)
    params[0, 2] = np.pi / 2
    transform = Rigid(grid, params, center=(0.0, 0.0, 0.0))
    moved = transform.points(torch.tensor([[[1.0, 0.0, 0.0]]], dtype=torch.float64))
    assert torch.allclose(moved, torch.tensor([[[0.0, 1.0, 0.0]]]).double(), atol=1e-12)


def test_grids_change_and_the_matrix_stays(grid, other_grid):
    transform = Affine.from_matrix(grid, matrix_of(2))
    assert torch.equal(transform.refined(other_grid).matrix(), transform.matrix())


def test_what_has_no_parameters_is_refused(grid):
    with pytest.raises(ValueError, match="must be rigid to 1e-06"):
        Rigid.from_matrix(grid, matrix_of(1))
    with pytest.raises(ValueError, match="positive determinant"):
        Affine.from_matrix(grid, torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))[None])
