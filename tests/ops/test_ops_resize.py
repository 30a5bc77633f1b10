"""Resizing keeps the world; pyramids do not alias; filters agree with scipy."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cardiogen.data.grid import Grid
from cardiogen.ops import (
    affine_exp,
    affine_to_displacement,
    box,
    gaussian,
    identity_coords,
    pyramid,
    resize,
    resize_field,
)


def world_ramp(grid):
    """A linear function of the world, sampled on a grid: (1, 1, D, H, W)."""
    voxels = identity_coords(grid.shape, dtype=torch.float64)[0].movedim(0, -1)
    world = torch.from_numpy(grid.to_world(voxels.numpy()))
    return (world @ torch.tensor([0.02, -0.03, 0.05]).double() + 1)[None, None]


@pytest.mark.parametrize("shape", [(13, 10, 7), (4, 21, 30), (7, 1, 13), (7, 10, 13)])
@pytest.mark.parametrize("order", [1, 3])
def test_resize_keeps_a_linear_ramp_in_the_world(oblique_grid, shape, order):
    image, affine = resize(
        world_ramp(oblique_grid), shape, affine=oblique_grid.affine, order=order
    )
    grid = Grid(shape, affine)
    # A mirrored spline bends a ramp near its ends, so order 3 is held to the original voxels.
    if order == 1:
        torch.testing.assert_close(image, world_ramp(grid), atol=1e-12, rtol=0)
    assert grid.matches(oblique_grid.resized(shape), tolerance_mm=1e-9)
    for corner in np.ndindex(2, 2, 2):
        if min(shape) > 1:
            place = tuple(-c for c in corner)
            assert image[0, 0][place] == pytest.approx(world_ramp(grid)[0, 0][place].item())


def test_resize_to_the_same_shape_changes_no_bit(oblique_grid):
    image = torch.randn(2, 3, *oblique_grid.shape)
    found, affine = resize(
        image, oblique_grid.shape, affine=torch.from_numpy(oblique_grid.affine.copy())
    )
    assert torch.equal(found, image)
    np.testing.assert_array_equal(affine, oblique_grid.affine)


def test_resized_field_is_the_same_world_map(oblique_grid):
    matrix = affine_exp(
        0.1 * torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    )
    field = affine_to_displacement(matrix, oblique_grid, dtype=torch.float64)
    for shape in ((13, 19, 7), (4, 6, 26)):
        wanted = affine_to_displacement(matrix, oblique_grid.resized(shape), dtype=torch.float64)
        torch.testing.assert_close(resize_field(field, shape), wanted, atol=1e-11, rtol=0)


def test_single_slice_and_plane_resize_alike():
    image = torch.randn(1, 2, 9, 14)
    plane, affine = resize(image, (5, 20), affine=np.eye(3))
    slab, _ = resize(image.unsqueeze(2), (1, 5, 20), affine=np.eye(4))
    torch.testing.assert_close(slab.squeeze(2), plane)
    assert affine.diagonal().tolist() == pytest.approx([8 / 4, 13 / 19, 1])


def test_pyramid_keeps_the_world_and_thick_slices(oblique_grid):
    grid = oblique_grid.resized((9, 33, 41))
    levels = pyramid(world_ramp(grid), 3, affine=grid.affine)
    assert [tuple(image.shape[2:]) for image, _ in levels] == [
        (9, 33, 41),
        (9, 17, 21),
        (9, 9, 11),
    ]
    for image, affine in levels:
        ramp = world_ramp(Grid(tuple(image.shape[2:]), affine))
        inner = (..., slice(3, -3), slice(3, -3)) if image.shape[3] > 9 else (..., 4, 5)
        torch.testing.assert_close(image[inner], ramp[inner], atol=1e-9, rtol=0)


def test_pyramid_damps_what_the_coarse_grid_cannot_hold():
    stripes = torch.zeros(1, 1, 33, 65)
    stripes[..., ::2] = 1
    bare, _ = resize(stripes, (17, 33), affine=np.eye(3))
    smoothed = pyramid(stripes, 2, affine=np.eye(3))[1][0]
    assert bare.std() == 0
    assert bare.mean() == 1
    assert (smoothed[..., 2:-2] - 0.5).abs().max() < 0.075


def test_gaussian_agrees_with_scipy():
    image = torch.randn(2, 3, 6, 9, 14, dtype=torch.float64)
    sigma = (0.8, 1.7, 0.0)
    wanted = ndimage.gaussian_filter(image.numpy(), (0, 0, *sigma), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(gaussian(image, sigma), wanted, atol=1e-12)
    in_mm = gaussian(image, (4.0, 3.4, 0.0), spacing=(5.0, 2.0, 1.0))
    np.testing.assert_allclose(in_mm, wanted, atol=1e-12)


def test_box_agrees_with_scipy():
    image = torch.randn(2, 3, 9, 14, dtype=torch.float64)
    wanted = ndimage.uniform_filter(image.numpy(), (1, 1, 3, 7), mode="nearest")
    np.testing.assert_allclose(box(image, (1, 3)), wanted, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 9, 14), (1, 9, 14), (9, 14)])
def test_filters_keep_constants_and_differentiate_twice(shape):
    flat = torch.full((1, 2, *shape), 3.25, dtype=torch.float64)
    torch.testing.assert_close(gaussian(flat, 1.5), flat)
    torch.testing.assert_close(box(flat, 2), flat)
    image = torch.randn(1, 1, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: gaussian(x, 1.0) ** 2, image, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: box(x, 1) ** 2, image, fast_mode=True)


def test_errors_name_argument_wanted_and_got():
    image = torch.zeros(1, 1, 1, 9, 14)
    with pytest.raises(ValueError, match=r"shape must keep axes of one voxel, got \(2, 9, 14\)"):
        resize(image, (2, 9, 14), affine=np.eye(4))
    with pytest.raises(ValueError, match="shape must be 3 positive numbers"):
        resize(image, (9, 14), affine=np.eye(4))
    with pytest.raises(ValueError, match=r"affine must have shape \(4, 4\), got \(3, 3\)"):
        resize(image, (1, 9, 9), affine=np.eye(3))
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        pyramid(image, 0, affine=np.eye(4))
    with pytest.raises(ValueError, match="sigma must be finite and not negative"):
        gaussian(image, -1.0)
    with pytest.raises(ValueError, match="radius must be whole and not negative"):
        box(image, (0, 1, -1))
