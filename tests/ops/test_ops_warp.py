"""Warps of images, labels and points agree with closed forms, each other and SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from cardiogen.data.grid import Grid
from cardiogen.ops import (
    affine_matrix,
    affine_to_displacement,
    argmax_labels,
    compose,
    displaced_coords,
    gaussian,
    identity_coords,
    one_hot,
    resample,
    sample_at_points,
    transform_points,
    voxel_affine_to_displacement,
    warp,
    warp_labels,
    warp_points,
)

SHAPE = (6, 9, 14)


def small_affine(ndim=3, *, seed=0, center=(2.5, 4.0, 6.5)):
    """A voxel affine near the identity that keeps the middle of the grid inside."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(ndim + 1, dtype=torch.float64).repeat(1, 1, 1)
    change = 0.05 * torch.randn(1, ndim, ndim, generator=generator, dtype=torch.float64)
    middle = torch.tensor(center[-ndim:], dtype=torch.float64)
    matrix[:, :ndim, :ndim] += change
    matrix[:, :ndim, ndim] = 0.2 - (change @ middle.view(-1, 1)).squeeze(-1)
    return matrix


def linear_image(shape, coords=None):
    """c + g . x at every voxel, or at ``coords``."""
    if coords is None:
        coords = identity_coords(shape, dtype=torch.float64)
    slope = torch.tensor([0.7, -1.3, 0.4], dtype=torch.float64)[-len(shape) :]
    return 2 + torch.einsum("bd...,d->b...", coords, slope).unsqueeze(1)


def inside(coords, margin=0.0):
    size = torch.tensor(coords.shape[2:]).view(1, -1, *[1] * (coords.ndim - 2)) - 1
    return ((coords >= margin) & (coords <= size - margin)).all(dim=1, keepdim=True)


def smooth_field(shape, *, amplitude, sigma=2.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, len(shape), *shape, generator=generator, dtype=dtype)
    field = gaussian(noise, tuple(sigma if n > 1 else 0.0 for n in shape))
    return amplitude * field / torch.linalg.vector_norm(field, dim=1).max()


def test_identity_coords_count_along_their_axis():
    coords = identity_coords(SHAPE)
    assert coords.shape == (1, 3, *SHAPE)
    assert coords[0, :, 4, 7, 13].tolist() == [4, 7, 13]


@pytest.mark.parametrize("shape", [SHAPE, SHAPE[1:], (1, 9, 14)])
@pytest.mark.parametrize("order", [0, 1])
def test_zero_displacement_changes_no_bit(shape, order):
    image = torch.randn(2, 3, *shape)
    zero = torch.zeros(1, len(shape), *shape)
    assert torch.equal(warp(image, zero, order=order), image)


def test_shift_by_whole_voxels_moves_the_array():
    image = torch.randn(1, 1, *SHAPE)
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, 2] = 3
    moved = warp(image, shift)
    assert torch.equal(moved[..., :-3], image[..., 3:])
    assert torch.equal(moved[..., -3:], image[..., -1:].expand(*moved.shape[:-1], 3))


@pytest.mark.parametrize("ndim", [2, 3])
def test_affine_field_on_linear_image_is_exact(ndim):
    shape = SHAPE[-ndim:]
    displacement = voxel_affine_to_displacement(small_affine(ndim), shape)
    coords = displaced_coords(displacement)
    wanted = linear_image(shape, coords)
    found = warp(linear_image(shape), displacement)
    mask = inside(coords)
    assert mask.double().mean() > 0.5
    assert (found - wanted)[mask].abs().max() < 1e-10


def test_cubic_warp_of_a_linear_image_is_exact_far_from_the_mirrored_ends():
    """What the mirror does to a ramp decays by 2 - sqrt(3) per voxel."""
    shape = (37, 41)
    displacement = voxel_affine_to_displacement(small_affine(2, center=(18.0, 20.0)), shape)
    coords = displaced_coords(displacement)
    error = (warp(linear_image(shape), displacement, order=3) - linear_image(shape, coords)).abs()
    for margin in (6.0, 12.0):
        assert error[inside(coords, margin)].max() < 3 * (2 - 3**0.5) ** margin


@pytest.mark.parametrize("ndim", [2, 3])
def test_warp_of_warp_is_warp_by_composition(ndim):
    shape = SHAPE[-ndim:]
    first = voxel_affine_to_displacement(small_affine(ndim, seed=1), shape)
    second = voxel_affine_to_displacement(small_affine(ndim, seed=2), shape)
    twice = warp(warp(linear_image(shape), second), first)
    once = warp(linear_image(shape), compose(first, second))
    mask = inside(displaced_coords(compose(first, second)), 1.0)
    mask &= inside(displaced_coords(first), 2.0)
    assert mask.any()
    assert (twice - once)[mask].abs().max() < 1e-10


def test_points_move_as_images_do(oblique_grid):
    """moved(x) = moving(x + u(x)): a linear image read at warped points is the moved image."""
    shape = oblique_grid.shape
    displacement = smooth_field(shape, amplitude=0.8)
    voxels = torch.rand(1, 40, 3, dtype=torch.float64) * (torch.tensor(shape) - 3) + 1
    points = torch.from_numpy(oblique_grid.to_world(voxels.numpy()))
    ramp = linear_image(shape)
    at_moved_points = sample_at_points(ramp, warp_points(points, displacement, oblique_grid),
                                       oblique_grid)  # fmt: skip
    # Both sides are linear in the displacement's own interpolation weights.
    moved = linear_image(shape, displaced_coords(displacement))
    torch.testing.assert_close(at_moved_points, sample_at_points(moved, points, oblique_grid),
                               atol=1e-10, rtol=0)  # fmt: skip


def test_warp_points_by_a_world_affine_is_that_affine(oblique_grid):
    matrix = affine_matrix(
        torch.tensor([[3.0, -2.0, 1.0]]).double(),
        rotation=torch.tensor([[0.1, -0.05, 0.2]]).double(),
        scale=torch.tensor([[1.1, 0.95, 1.02]]).double(),
    )
    displacement = affine_to_displacement(matrix, oblique_grid, dtype=torch.float64)
    voxels = torch.rand(1, 40, 3).double() * (torch.tensor(oblique_grid.shape) - 1)
    points = torch.from_numpy(oblique_grid.to_world(voxels.numpy()))
    found = warp_points(points, displacement, oblique_grid)
    torch.testing.assert_close(found, transform_points(points, matrix), atol=1e-10, rtol=0)


def test_warp_points_takes_float32_and_shared_fields(oblique_grid):
    points = torch.from_numpy(oblique_grid.corners()).float().expand(3, -1, -1)
    zero = torch.zeros(1, 3, *oblique_grid.shape)
    found = warp_points(points, zero, oblique_grid)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, points, atol=1e-5, rtol=0)


def test_warped_labels_are_probabilities():
    labels = torch.randint(0, 4, (2, 1, *SHAPE), dtype=torch.uint8)
    field = smooth_field(SHAPE, amplitude=5.0, dtype=torch.float32)
    probs = warp_labels(labels, field, classes=4)
    assert probs.shape == (2, 4, *SHAPE)
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(2, *SHAPE))
    assert probs.min() > -1e-6
    torch.testing.assert_close(probs, warp_labels(one_hot(labels, 4), field))
    still = warp_labels(labels, torch.zeros(1, 3, *SHAPE), classes=4)
    assert torch.equal(argmax_labels(still), labels)


def test_structures_do_not_leak_in_from_outside():
    labels = torch.ones(1, 1, *SHAPE, dtype=torch.uint8)
    out = torch.full((1, 3, *SHAPE), 50.0)
    probs = warp_labels(labels, out, classes=2)
    assert torch.equal(probs[:, 0], torch.ones(1, *SHAPE))


def test_labels_follow_the_image_whose_threshold_they_are():
    ball = (identity_coords(SHAPE) - torch.tensor([2.5, 4, 6.5]).view(1, 3, 1, 1, 1)).norm(dim=1)
    labels = (ball < 2.2).long().unsqueeze(1)
    field = smooth_field(SHAPE, amplitude=1.0, dtype=torch.float32)
    found = warp_labels(labels, field, classes=2)[:, 1:]
    torch.testing.assert_close(found, warp(labels.float(), field, padding="zeros"))


def test_resample_keeps_a_world_linear_function(oblique_grid):
    world = torch.from_numpy(oblique_grid.to_world(
        identity_coords(oblique_grid.shape, dtype=torch.float64)[0].movedim(0, -1).numpy()
    ))  # fmt: skip
    slope = torch.tensor([0.02, -0.03, 0.05]).double()
    image = (world @ slope)[None, None]
    other = Grid.regular((5, 6, 7), (1.1, 0.8, 0.9), oblique_grid.to_world([3, 4, 5]))
    found = resample(image, oblique_grid, other)
    places = other.to_world(identity_coords(other.shape)[0].movedim(0, -1).numpy())
    voxels = torch.from_numpy(oblique_grid.to_voxel(places))
    mask = ((voxels >= 0) & (voxels <= torch.tensor(oblique_grid.shape) - 1)).all(-1)
    assert mask.double().mean() > 0.3
    wanted = torch.from_numpy(places) @ slope
    assert (found[0, 0] - wanted)[mask].abs().max() < 1e-10


def to_sitk(array, affine, *, vector=False):
    """A second opinion needs its own conventions: LPS mm, axes x, y, z = W, H, D."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=vector)
    flip = np.diag([-1.0, -1.0, 1.0])
    columns = flip @ affine[:3, 2::-1]
    spacing = np.linalg.norm(columns, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((columns / spacing).ravel().tolist())
    image.SetOrigin((flip @ affine[:3, 3]).tolist())
    return image


@pytest.mark.parametrize(("order", "kind"), [(1, sitk.sitkLinear), (3, sitk.sitkBSpline3)])
def test_resample_agrees_with_simpleitk(oblique_grid, order, kind):
    image = smooth_field(oblique_grid.shape, amplitude=1.0, sigma=1.0)[:, :1]
    other = Grid.regular((6, 5, 9), (6.0, 1.7, 1.5), oblique_grid.to_world([0.4, 2, 2]),
                         oblique_grid.affine[:3, :3] / oblique_grid.spacing)  # fmt: skip
    wanted = sitk.GetArrayFromImage(
        sitk.Resample(
            to_sitk(image[0, 0].numpy(), oblique_grid.affine),
            to_sitk(np.zeros(other.shape), other.affine), sitk.Transform(), kind, -9.0,
        )
    )  # fmt: skip
    found = resample(image, oblique_grid, other, order=order)[0, 0].numpy()
    assert (wanted > -9).mean() > 0.8
    np.testing.assert_allclose(found[wanted > -9], wanted[wanted > -9], atol=1e-7)


def test_warp_agrees_with_simpleitk(oblique_grid):
    image = smooth_field(oblique_grid.shape, amplitude=1.0, sigma=1.0, seed=1)[:, :1]
    field = smooth_field(oblique_grid.shape, amplitude=1.5, seed=2)
    millimeters = field[0].movedim(0, -1).numpy() @ oblique_grid.affine[:3, :3].T
    vectors = to_sitk(millimeters * [-1, -1, 1], oblique_grid.affine, vector=True)
    moving = to_sitk(image[0, 0].numpy(), oblique_grid.affine)
    transform = sitk.DisplacementFieldTransform(vectors)
    wanted = sitk.GetArrayFromImage(
        sitk.Resample(moving, moving, transform, sitk.sitkLinear, -9.0)
    )
    found = warp(image, field)[0, 0].numpy()
    mask = inside(displaced_coords(field), 1e-6)[0, 0].numpy()
    assert mask.mean() > 0.6
    np.testing.assert_allclose(found[mask], wanted[mask], atol=1e-7)


def test_warp_agrees_with_scipy():
    image = torch.randn(1, 1, *SHAPE, dtype=torch.float64)
    field = smooth_field(SHAPE, amplitude=2.5)
    places = (identity_coords(SHAPE, dtype=torch.float64) + field)[0].numpy()
    wanted = ndimage.map_coordinates(image[0, 0].numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(warp(image, field)[0, 0], wanted, atol=1e-12)


def test_single_slice_equals_the_plane():
    image, field = torch.randn(1, 2, 9, 14), smooth_field((9, 14), amplitude=2.0).float()
    flat = torch.cat([torch.zeros(1, 1, 9, 14), field], dim=1).unsqueeze(2)
    for order in (0, 1, 3):
        in_3d = warp(image.unsqueeze(2), flat, order=order)
        torch.testing.assert_close(in_3d.squeeze(2), warp(image, field, order=order))


def test_half_precision_displacement_is_added_in_float32():
    ramp = torch.arange(300.0).view(1, 1, 1, -1).expand(1, 1, 3, -1)
    half = torch.full((1, 2, 3, 300), 0.25, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = warp(ramp, half)
    torch.testing.assert_close(moved[..., :-1], ramp[..., :-1] + 0.25)


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5)])
def test_warp_has_two_derivatives(shape):
    image = torch.randn(1, 2, *shape, dtype=torch.float64, requires_grad=True)
    field = (0.2 + 0.6 * torch.rand(1, len(shape), *shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(warp, (image, field))
    assert torch.autograd.gradgradcheck(warp, (image, field))


def test_points_have_derivatives(oblique_grid):
    field = smooth_field(oblique_grid.shape, amplitude=0.5).requires_grad_()
    points = torch.from_numpy(oblique_grid.to_world([[[2.3, 4.4, 5.6]]])).requires_grad_()
    function = lambda p, u: warp_points(p, u, oblique_grid)  # noqa: E731
    assert torch.autograd.gradcheck(function, (points, field), fast_mode=True)


def test_errors_name_argument_wanted_and_got(oblique_grid):
    image, field = torch.zeros(1, 1, *SHAPE), torch.zeros(1, 3, *SHAPE)
    with pytest.raises(
        ValueError, match=r"displacement must have shape .* got \(1, 2, 6, 9, 14\)"
    ):
        warp(image, field[:, :2])
    with pytest.raises(ValueError, match=r"displacement must have the spatial shape of moving"):
        warp(image[..., 1:], field)
    with pytest.raises(ValueError, match="displacement must be floating point"):
        warp(image, field.long())
    with pytest.raises(ValueError, match="classes must be given with an integer label map"):
        warp_labels(image.long(), field)
    with pytest.raises(ValueError, match="labels must lie in 0 to 2, got 0 to 7"):
        one_hot(torch.tensor([0, 7]).view(1, 1, 1, 2), 3)
    with pytest.raises(ValueError, match="labels must be an integer map"):
        one_hot(image, 3)
    with pytest.raises(ValueError, match="classes must be the channels of labels, 1, got 3"):
        warp_labels(image, field, classes=3)
    with pytest.raises(ValueError, match="displacement must have the spatial shape of grid"):
        warp_points(torch.zeros(1, 4, 3), field, oblique_grid)
    with pytest.raises(ValueError, match=r"points must have shape \(B, V, 3\), got \(4, 3\)"):
        sample_at_points(torch.zeros(1, 1, *oblique_grid.shape), torch.zeros(4, 3), oblique_grid)
    with pytest.raises(ValueError, match="image must have the spatial shape of from_grid"):
        resample(image, oblique_grid, oblique_grid)
