"""sample against scipy and against its own laws; push as its adjoint."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from cardiogen.ops import count, identity_coords, push, sample

SHAPES = [(6, 9, 14), (7, 10), (1, 5, 8)]


def random_image(shape, *, batch=2, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, *shape, dtype=torch.float64, generator=generator)


def random_coords(shape, *, count=60, beyond=0.0, batch=2, seed=1):
    """Positions uniform over the grid and ``beyond`` voxels outside of it."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(batch, len(shape), count, dtype=torch.float64, generator=generator)
    size = torch.tensor(shape, dtype=torch.float64).view(1, -1, 1) - 1
    return unit * (size + 2 * beyond) - beyond


def by_scipy(image, coords, **options):
    return np.stack(
        [
            [ndimage.map_coordinates(channel, place, **options) for channel in one]
            for one, place in zip(image.numpy(), coords.numpy(), strict=True)
        ]
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("order", "padding", "mode"),
    [
        (0, "border", "nearest"),
        (0, "zeros", "grid-constant"),
        (1, "border", "nearest"),
        (1, "zeros", "grid-constant"),
    ],
)
def test_sample_agrees_with_scipy_inside_and_outside(shape, order, padding, mode):
    image, coords = random_image(shape), random_coords(shape, beyond=2.5)
    wanted = by_scipy(image, coords, order=order, mode=mode)
    np.testing.assert_allclose(
        sample(image, coords, order=order, padding=padding), wanted, atol=1e-12
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_cubic_sample_agrees_with_scipy_and_interpolates(shape):
    image, coords = random_image(shape), random_coords(shape)
    wanted = by_scipy(image, coords, order=3, mode="mirror")
    np.testing.assert_allclose(sample(image, coords, order=3), wanted, atol=1e-12)
    at_voxels = sample(image, identity_coords(shape, dtype=torch.float64), order=3)
    torch.testing.assert_close(at_voxels, image, atol=1e-12, rtol=0)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_identity_is_exact(shape, order):
    image = random_image(shape).float()
    for padding in ("border", "zeros"):
        found = sample(image, identity_coords(shape), order=order, padding=padding)
        assert torch.equal(found, image)


@pytest.mark.parametrize("order", [1, 3])
def test_outside_is_the_border_value_or_its_fade(order):
    image = random_image((6, 9, 14))
    edge = torch.tensor([[0.0, 3.3, 13.0]], dtype=torch.float64).unsqueeze(-1)
    out = edge + torch.tensor([[-0.25, 0.0, 0.5]], dtype=torch.float64).unsqueeze(-1)
    value = sample(image, edge, order=order)
    torch.testing.assert_close(sample(image, out, order=order), value)
    faded = sample(image, out, order=order, padding="zeros")
    torch.testing.assert_close(faded, value * 0.75 * 0.5)


def test_output_takes_the_shape_of_coords_and_shares_single_batches():
    image, coords = random_image((6, 9, 14)), random_coords((6, 9, 14), count=24)
    shaped = sample(image, coords.unflatten(2, (2, 3, 4)))
    assert shaped.shape == (2, 3, 2, 3, 4)
    torch.testing.assert_close(shaped.flatten(2), sample(image, coords))
    for order in (0, 1, 3):
        shared = sample(image[:1], coords, order=order)
        alone = sample(image[:1].expand(2, -1, -1, -1, -1), coords, order=order)
        torch.testing.assert_close(shared, alone)
        one_place = sample(image, coords[:1], order=order)
        assert torch.equal(one_place[1:], sample(image[1:], coords[:1], order=order))


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_strange_positions_have_defined_values(order, padding):
    image = random_image((6, 9, 14), batch=1)
    middle = [2.0, 4.0, 6.0]
    huge = torch.tensor([middle, [1e30, 4.0, 6.0], [-np.inf, 4.0, 6.0], [np.nan, 4.0, 6.0]])
    found = sample(image, huge.double().T.unsqueeze(0), order=order, padding=padding)
    torch.testing.assert_close(found[..., 0], image[:, :, 2, 4, 6])
    outside = image[:, :, [5, 0], 4, 6] * (padding == "border")
    torch.testing.assert_close(found[..., 1:3], outside)
    assert found[..., 3].isnan().all()


def test_nan_voxels_reach_only_their_cells():
    image = torch.zeros(1, 1, 6, 9, 14)
    image[0, 0, 2, 4, 6] = torch.nan
    coords = torch.tensor([[2.5, 4.5, 6.5], [4.5, 4.5, 6.5]]).T.unsqueeze(0)
    assert sample(image, coords).isnan().flatten().tolist() == [True, False]


def test_integer_labels_are_read_by_order_0_alone():
    labels = torch.arange(6 * 9 * 14).reshape(1, 1, 6, 9, 14)
    coords = identity_coords((6, 9, 14)) + 0.3
    found = sample(labels, coords, order=0)
    assert found.dtype == labels.dtype
    assert torch.equal(found, labels)
    missing = sample(labels, torch.full((1, 3, 1), torch.nan), order=0)
    assert missing.item() == 0
    with pytest.raises(ValueError, match=r"image must be floating point, got torch\.int64"):
        sample(labels, coords)


@pytest.mark.parametrize("order", [1, 3])
def test_half_precision_images_are_read_at_full_precision_positions(order):
    ramp = torch.linspace(0, 1, 129).view(1, 1, 1, -1).expand(1, 1, 5, -1).contiguous()
    coords = torch.tensor([[2.0, 100.37]]).T.unsqueeze(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert abs(sample(ramp, coords, order=order).item() - 100.37 / 128) < 1e-6
        half = sample(ramp.bfloat16(), coords, order=order)
    assert half.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"float32 or float64, got torch\.bfloat16"):
        sample(ramp, coords.bfloat16())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_push_is_the_adjoint_of_sample(shape, padding):
    image, coords = random_image(shape), random_coords(shape, beyond=1.7)
    values = torch.randn(2, 3, 60, dtype=torch.float64)
    left = (sample(image, coords, padding=padding) * values).sum()
    right = (image * push(values, coords, shape, padding=padding)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_count_sums_to_the_number_of_positions_inside():
    coords = random_coords((6, 9, 14))
    total = count(coords, (6, 9, 14))
    assert total.shape == (2, 1, 6, 9, 14)
    torch.testing.assert_close(total.flatten(1).sum(1), torch.full((2,), 60.0).double())
    every = count(identity_coords((6, 9, 14)), (6, 9, 14))
    assert torch.equal(every, torch.ones_like(every))


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 5), (1, 4, 5)])
def test_sample_has_two_derivatives(shape, order, padding):
    image = random_image(shape, batch=1, channels=2).requires_grad_()
    coords = random_coords(shape, count=4, beyond=0.6, batch=1).requires_grad_()

    def function(image, coords):
        return sample(image, coords, order=order, padding=padding)

    assert torch.autograd.gradcheck(function, (image, coords))
    # All columns take half a minute with cubic weights; a random projection sees the same faults.
    assert torch.autograd.gradgradcheck(function, (image, coords), fast_mode=order == 3)


@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_push_has_two_derivatives(padding):
    coords = random_coords((4, 5, 3), count=5, beyond=0.6, batch=1).requires_grad_()
    values = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)

    def function(values, coords):
        return push(values, coords, (4, 5, 3), padding=padding)

    assert torch.autograd.gradcheck(function, (values, coords))
    assert torch.autograd.gradgradcheck(function, (values, coords))


def test_errors_name_argument_wanted_and_got():
    image, coords = torch.zeros(2, 1, 4, 5, 6), torch.zeros(2, 3, 7)
    with pytest.raises(ValueError, match=r"image must have shape .* got \(4, 5, 6\)"):
        sample(image[0, 0], coords)
    with pytest.raises(ValueError, match=r"coords must have shape \(B, 3, \.\.\.\).*\(2, 2, 7\)"):
        sample(image, coords[:, :2])
    with pytest.raises(ValueError, match="order must be 0, 1 or 3, got 2"):
        sample(image, coords, order=2)
    with pytest.raises(ValueError, match="padding must be 'border' or 'zeros', got 'wrap'"):
        sample(image, coords, padding="wrap")
    with pytest.raises(ValueError, match=r"coords must have the batch size of image \(2\)"):
        sample(image, torch.zeros(3, 3, 7))
    with pytest.raises(ValueError, match=r"values must have shape \(B, C, 7\)"):
        push(torch.zeros(2, 1, 6), coords, (4, 5, 6))
    with pytest.raises(ValueError, match="image must have no empty axis"):
        sample(torch.zeros(2, 1, 0, 5, 6), coords)
