"""Jacobians of affine maps are their matrices; the ten determinants see every fold."""

import numpy as np
import pytest
import torch

from cardiogen.ops import (
    folding,
    folding_determinants,
    jacobian,
    jacobian_determinant,
    voxel_affine_to_displacement,
)
from cardiogen.ops.filter import gradient


def random_affine(ndim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(ndim + 1, dtype=torch.float64).unsqueeze(0)
    matrix[:, :ndim] += 0.2 * torch.randn(1, ndim, ndim + 1, generator=generator).double()
    return matrix


@pytest.mark.parametrize("shape", [(6, 9, 14), (7, 10), (2, 3, 2)])
def test_affine_map_has_its_matrix_everywhere(shape):
    ndim = len(shape)
    matrix = random_affine(ndim)
    field = voxel_affine_to_displacement(matrix, shape)
    linear = matrix[:, :ndim, :ndim]
    found = jacobian(field)
    assert found.shape == (1, ndim, ndim, *shape)
    wanted = linear.view(1, ndim, ndim, *[1] * ndim).expand_as(found)
    torch.testing.assert_close(found, wanted, atol=1e-11, rtol=0)
    determinant = torch.linalg.det(linear).item()
    assert (jacobian_determinant(field) - determinant).abs().max() < 1e-11
    assert (folding_determinants(field) - determinant).abs().max() < 1e-11
    assert folding(field).fraction.item() == float(determinant <= 0)


def test_jacobian_in_mm_is_that_of_the_mm_map():
    shape, spacing = (6, 9, 14), (8.0, 1.4, 1.9)
    matrix = random_affine(3)
    scale = torch.tensor(spacing).double()
    found = jacobian(voxel_affine_to_displacement(matrix, shape), spacing=spacing)
    wanted = matrix[0, :3, :3] * scale.view(3, 1) / scale
    torch.testing.assert_close(found[0, :, :, 2, 3, 4], wanted)


def test_gradient_agrees_with_numpy():
    image = torch.randn(2, 3, 6, 9, 14, dtype=torch.float64)
    spacing = (8.0, 1.4, 1.9)
    wanted = np.stack(np.gradient(image.numpy(), *spacing, axis=(2, 3, 4)), axis=2)
    np.testing.assert_allclose(gradient(image, spacing=spacing), wanted, atol=1e-12)


def test_reflection_is_a_fold_everywhere():
    matrix = torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0])).unsqueeze(0)
    field = voxel_affine_to_displacement(matrix, (4, 5, 6))
    found = folding(field)
    assert found.fraction.item() == 1
    assert found.mask.shape == (1, 3, 4, 5)
    assert torch.equal(found.determinants, -torch.ones(1, 10, 3, 4, 5))


@pytest.mark.parametrize("shape", [(5, 6, 9), (6, 9)])
def test_zigzag_that_central_differences_cannot_see(shape):
    field = torch.zeros(1, len(shape), *shape)
    field[:, -1, ..., 1::2] = 1.2
    assert (jacobian_determinant(field)[..., 1:-1] == 1).all()
    found = folding(field)
    assert found.fraction.item() == 0.5
    assert found.mask[..., 1::2].all()
    assert not found.mask[..., ::2].any()


def test_fold_of_the_middle_tetrahedron_alone():
    """Some folds turn over only the tetrahedron between four alternate corners of a cell."""
    generator = torch.Generator().manual_seed(0)
    fields = 1.3 * (torch.rand(20000, 3, 2, 2, 2, generator=generator).double() - 0.5)
    determinants = folding_determinants(fields).flatten(1)
    only_middle = (determinants[:, :8] > 0).all(1) & ~(determinants[:, 8:] > 0).all(1)
    assert only_middle.any()
    assert torch.equal(folding(fields).mask.flatten()[only_middle], only_middle[only_middle])


def test_determinants_are_volumes_of_the_moved_tetrahedra():
    field = 0.4 * torch.randn(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(2)).double()
    corner = {
        (d, h, w): (torch.tensor([d, h, w]) + field[0, :, d, h, w]).numpy()
        for d in (0, 1) for h in (0, 1) for w in (0, 1)
    }  # fmt: skip

    def volume(*names):
        apex, *others = (corner[name] for name in names)
        rest = [np.array(n) - names[0] for n in names[1:]]
        return np.linalg.det([o - apex for o in others]) / np.linalg.det(rest)

    wanted = []
    for name in corner:
        neighbors = [tuple(1 - b if i == a else b for i, b in enumerate(name)) for a in range(3)]
        wanted.append(volume(name, *neighbors))
    wanted.append(volume((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)))
    wanted.append(volume((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)))
    found = folding_determinants(field).flatten()
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert found.shape == (10,)


def test_single_slice_counts_as_a_plane():
    plane = 0.4 * torch.randn(2, 2, 7, 9)
    slab = torch.cat([torch.zeros(2, 1, 7, 9), plane], dim=1).unsqueeze(2)
    torch.testing.assert_close(jacobian_determinant(slab).squeeze(2), jacobian_determinant(plane))
    found = folding(slab)
    assert found.mask.shape == (2, 1, 6, 8)
    assert torch.equal(found.mask.squeeze(1), folding(plane).mask)
    torch.testing.assert_close(found.fraction, folding(plane).fraction)


def test_nan_counts_as_folded():
    field = torch.zeros(1, 3, 4, 5, 6)
    field[0, 0, 1, 2, 3] = torch.nan
    found = folding(field)
    assert found.mask.sum() == 8


def test_two_derivatives():
    field = (0.3 * torch.randn(1, 3, 3, 4, 3).double()).requires_grad_()
    for function in (jacobian_determinant, folding_determinants, jacobian):
        assert torch.autograd.gradcheck(function, field, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, field, fast_mode=True)


def test_errors_name_argument_wanted_and_got():
    with pytest.raises(ValueError, match=r"displacement must have shape .*got \(1, 3, 5, 6\)"):
        jacobian(torch.zeros(1, 3, 5, 6))
    with pytest.raises(ValueError, match="spacing must have 3 values, one per axis, got 2"):
        jacobian(torch.zeros(1, 3, 4, 5, 6), spacing=(1.0, 2.0))
    with pytest.raises(ValueError, match="spacing must be positive and finite"):
        gradient(torch.zeros(1, 1, 5, 6), spacing=(1.0, 0.0))
