"""Affine maps in parameter, matrix and Lie form."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.transform import Rotation

from cardiogen.ops import (
    affine_exp,
    affine_log,
    affine_matrix,
    affine_to_displacement,
    grid_to_world,
    transform_points,
    voxel_affine_to_displacement,
    world_to_grid,
)


def doubles(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_parts_left_out_are_the_identity():
    zero = torch.zeros(2, 3, dtype=torch.float64)
    assert torch.equal(affine_matrix(zero), torch.eye(4).double().expand(2, 4, 4))


def test_matrix_is_rotation_shear_scale_about_the_center():
    rotation, scale, shear = [0.3, -0.7, 0.2], [1.2, 0.8, 1.1], [0.1, -0.2, 0.05]
    center, translation = [4.0, -3.0, 7.0], [1.0, 2.0, -5.0]
    found = affine_matrix(doubles(translation), rotation=doubles(rotation), scale=doubles(scale),
                          shear=doubles(shear), center=doubles(center))[0].numpy()  # fmt: skip
    upper = np.eye(3)
    upper[0, 1], upper[0, 2], upper[1, 2] = shear
    linear = Rotation.from_rotvec(rotation).as_matrix() @ upper @ np.diag(scale)
    np.testing.assert_allclose(found[:3, :3], linear, atol=1e-14)
    moved = found @ [*center, 1.0]
    np.testing.assert_allclose(moved[:3], np.add(center, translation), atol=1e-14)
    assert found[3].tolist() == [0, 0, 0, 1]


def test_plane_rotation_turns_axis_0_to_axis_1():
    matrix = affine_matrix(
        doubles([0.0, 0.0]), rotation=doubles([math.pi / 2]), shear=doubles([0.0])
    )
    torch.testing.assert_close(
        transform_points(doubles([[1.0, 0.0]]), matrix), doubles([[0.0, 1.0]])
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_log_inverts_exp(ndim):
    generator = torch.Generator().manual_seed(0)
    algebra = torch.randn(5, ndim, ndim + 1, generator=generator, dtype=torch.float64)
    algebra[:, :, :ndim] *= 0.6
    algebra[:, :, ndim] *= 80
    matrix = affine_exp(algebra)
    torch.testing.assert_close(affine_log(matrix), algebra, atol=1e-9, rtol=1e-10)
    for one, log in zip(matrix.numpy(), affine_log(matrix).numpy(), strict=True):
        np.testing.assert_allclose(log, scipy.linalg.logm(one)[:ndim].real, atol=1e-8)


@pytest.mark.parametrize("angle", [1e-8, 1.0, 3.0])
def test_log_of_a_turn_about_a_distant_center(angle):
    rotation = doubles([0.0, 0.6, 0.8]) * angle
    matrix = affine_matrix(torch.zeros(1, 3).double(), rotation=rotation,
                           center=doubles([100.0, -50.0, 80.0]))  # fmt: skip
    torch.testing.assert_close(affine_exp(affine_log(matrix)), matrix, atol=1e-9, rtol=0)
    half = affine_exp(affine_log(matrix) / 2)
    torch.testing.assert_close(half @ half, matrix, atol=1e-9, rtol=0)


def test_translation_is_its_own_logarithm():
    shift = doubles([300.0, -7.0, 0.1])
    found = affine_log(affine_matrix(shift))
    torch.testing.assert_close(found[..., 3], shift)
    assert found[..., :3].abs().max() < 1e-14


@pytest.mark.parametrize(
    "diagonal", [(-1.0, 1.0, 1.0), (-1.0, -1.0, 1.0), (0.0, 1.0, 1.0), (math.nan, 1.0, 1.0)]
)
def test_matrices_without_a_real_logarithm_are_refused(diagonal):
    matrix = torch.diag(torch.tensor([*diagonal, 1.0])).unsqueeze(0)
    with pytest.raises(ValueError, match=r"matrix must have a (real|positive)"):
        affine_log(matrix)


def test_displacement_moves_voxels_as_the_world_map_moves_points(oblique_grid):
    matrix = affine_exp(
        0.1 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    )
    field = affine_to_displacement(matrix, oblique_grid, dtype=torch.float64)
    assert field.shape == (2, 3, *oblique_grid.shape)
    voxel = np.array([3.0, 7.0, 11.0])
    moved = oblique_grid.to_world(voxel + field[1, :, 3, 7, 11].numpy())
    wanted = matrix[1].numpy() @ [*oblique_grid.to_world(voxel), 1.0]
    np.testing.assert_allclose(moved, wanted[:3], atol=1e-11)


def test_grid_matrices_are_those_of_the_grid(oblique_grid):
    np.testing.assert_array_equal(grid_to_world(oblique_grid), oblique_grid.affine)
    np.testing.assert_allclose(world_to_grid(oblique_grid), oblique_grid.inverse, atol=1e-14)


def test_identity_gives_zero_displacement(oblique_grid):
    eye = torch.eye(4).double().unsqueeze(0)
    assert torch.equal(
        voxel_affine_to_displacement(eye, (4, 5, 6)), torch.zeros(1, 3, 4, 5, 6).double()
    )
    assert affine_to_displacement(eye, oblique_grid).abs().max() < 1e-12


def test_derivatives():
    algebra = (
        0.3 * torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3)).double()
    ).requires_grad_()
    for function in (
        affine_exp,
        lambda a: affine_log(affine_exp(a)),
        lambda a: voxel_affine_to_displacement(affine_exp(a), (2, 3, 2)),
        lambda a: transform_points(a[..., :3], affine_exp(a)),
    ):
        assert torch.autograd.gradcheck(function, algebra, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, algebra, fast_mode=True, atol=1e-4)


def test_errors_name_argument_wanted_and_got():
    with pytest.raises(ValueError, match=r"rotation must have shape \(B=2, 3\), got \(2, 1\)"):
        affine_matrix(torch.zeros(2, 3), rotation=torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"matrix must have shape \(B, 4, 4\), got \(1, 3, 4\)"):
        voxel_affine_to_displacement(torch.zeros(1, 3, 4), (4, 5, 6))
    with pytest.raises(ValueError, match="shape must have 3 numbers"):
        voxel_affine_to_displacement(torch.zeros(1, 4, 4), (4, 5))
    with pytest.raises(ValueError, match=r"generator must have shape .* got \(1, 4, 4\)"):
        affine_exp(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match=r"points must have shape \(B, V, 3\)"):
        transform_points(torch.zeros(4, 3), torch.eye(4))
