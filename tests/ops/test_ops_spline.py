"""Free-form deformations reproduce constants and affine maps, and refine without change."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from cardiogen.ops import (
    control_coords,
    control_shape,
    expand,
    identity_coords,
    jacobian_determinant,
    subdivide,
)

CASES = [
    ((6, 9, 14), (8.0, 1.4, 1.9), (16.0, 7.0, 6.1)),
    ((7, 13, 13), (1.0, 1.4, 1.4), (3.0, 4.2, 2.8)),
    ((1, 9, 14), (10.0, 1.4, 1.9), (20.0, 7.0, 6.1)),
    ((9, 14), (1.4, 1.9), (2.8, 30.0)),
]


def lattice(case):
    shape, spacing, control_spacing = case
    return shape, {"spacing": spacing, "control_spacing": control_spacing}


def random_control(shape, options, *, channels=None, seed=0):
    points = control_shape(shape, **options)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels or len(shape), *points, generator=generator).double()


@pytest.mark.parametrize("case", CASES)
def test_constant_coefficients_are_a_translation(case):
    shape, options = lattice(case)
    control = torch.full_like(random_control(shape, options), -2.75)
    found = expand(control, shape, **options)
    assert found.shape == (2, len(shape), *shape)
    assert (found + 2.75).abs().max() < 1e-13


@pytest.mark.parametrize("case", CASES)
def test_linear_coefficients_are_an_affine_map(case):
    shape, options = lattice(case)
    linear = torch.randn(
        len(shape), len(shape), generator=torch.Generator().manual_seed(1)
    ).double()
    at_control = torch.einsum("ij,bj...->bi...", linear, control_coords(shape, **options))
    at_voxels = torch.einsum(
        "ij,bj...->bi...", linear, identity_coords(shape, dtype=torch.float64)
    )
    torch.testing.assert_close(expand(at_control, shape, **options), at_voxels, atol=1e-11, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_subdivision_keeps_the_function(case):
    shape, options = lattice(case)
    control = random_control(shape, options)
    fine = subdivide(control, shape, **options)
    halved = options | {"control_spacing": tuple(c / 2 for c in options["control_spacing"])}
    assert fine.shape[2:] == control_shape(shape, **halved)
    torch.testing.assert_close(
        expand(fine, shape, **halved), expand(control, shape, **options), atol=1e-12, rtol=0
    )


def test_expansion_agrees_with_scipy():
    shape, options = (2, 23), {"spacing": (1.0, 1.4), "control_spacing": (1.0, 5.0)}
    control = random_control(shape, options, channels=1)[:, :, :1].expand(-1, -1, 4, -1)
    stride = 5.0 / 1.4
    points = control.shape[-1]
    knots = (np.arange(points + 4) - 3) * stride
    spline = BSpline(knots, control[0, 0, 0].numpy(), 3)
    found = expand(control, shape, **options)[0, 0, 0]
    np.testing.assert_allclose(found, spline(np.arange(23)), atol=1e-12)


def test_lattice_covers_the_grid_with_one_point_before_it():
    shape, options = lattice(CASES[1])
    # 12 steps of 1.4 mm are exactly 4 of 4.2 mm, whatever rounding says.
    assert control_shape(shape, **options) == (2 + 3, 4 + 3, 6 + 3)
    coords = control_coords(shape, **options)
    assert coords[0, 1, 0, 0, 0].item() == pytest.approx(-3)
    assert coords[0, 1, 0, 1, 0].item() == 0
    assert coords[0, 1, 0, -1, 0].item() >= 12


def test_spline_derivatives_are_continuous():
    """A cubic spline on a fine grid has second differences that shrink with the grid."""
    options = {"spacing": (1.0, 0.05), "control_spacing": (1.0, 2.0)}
    control = random_control((2, 201), options, channels=1)
    second = expand(control, (2, 201), **options).diff(n=2, dim=-1) / 0.05**2
    assert second.diff(dim=-1).abs().max() < 0.1 * second.abs().max()


def test_small_coefficients_do_not_fold():
    """Displacements below 0.4 of the control spacing keep a cubic FFD one-to-one (Choi, Lee)."""
    shape, spacing, control_spacing = (11, 14, 17), (1.0, 1.0, 1.0), (4.0, 4.0, 4.0)
    options = {"spacing": spacing, "control_spacing": control_spacing}
    control = random_control(shape, options).clamp(-1, 1) * 0.4 * 4
    assert jacobian_determinant(expand(control, shape, **options)).min() > 0


def test_two_derivatives():
    shape, options = lattice(((3, 4, 5), (1.0, 1.0, 1.0), (2.0, 2.0, 3.0)))
    control = random_control(shape, options, channels=2)[:1].requires_grad_()
    for function in (
        lambda c: expand(c, shape, **options) ** 2,
        lambda c: subdivide(c, shape, **options) ** 2,
    ):
        assert torch.autograd.gradcheck(function, control)
        assert torch.autograd.gradgradcheck(function, control, fast_mode=True)


def test_autocast_leaves_displacements_alone():
    shape, options = lattice(CASES[0])
    control = random_control(shape, options).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = expand(control, shape, **options)
    assert torch.equal(found, expand(control, shape, **options))


def test_errors_name_argument_wanted_and_got():
    shape, options = lattice(CASES[0])
    with pytest.raises(ValueError, match=r"control must have the control_shape of the grid"):
        expand(torch.zeros(1, 3, 4, 4, 4), shape, **options)
    with pytest.raises(ValueError, match="control_spacing must not be below the voxel spacing"):
        control_shape(shape, spacing=(8.0, 1.4, 1.9), control_spacing=(4.0, 7.0, 7.0))
    with pytest.raises(ValueError, match="control_spacing must have 3 values"):
        control_shape(shape, spacing=(8.0, 1.4, 1.9), control_spacing=(8.0, 7.0))
