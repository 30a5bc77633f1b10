"""Laws of warps hold in float32 on every back-end, and bad input meets the same words on each."""

import math

import pytest
import torch

from cardiogen import ops
from cardiogen.ops import use_backend
from cardiogen.ops.kernels import BACKENDS

SPATIAL = [(4, 9, 14), (1, 7, 10), (5, 1, 6), (1, 1, 1), (9, 14), (1, 5)]
PADDINGS = ["border", "zeros"]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request):
    with use_backend(request.param):
        yield request.param


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(shape, amplitude, *, sigma=2.0, batch=1):
    field = ops.gaussian(
        noise(batch, len(shape), *shape).double(), tuple(sigma if n > 1 else 0.0 for n in shape)
    )
    return (amplitude * field / field.abs().max()).float()


def ramp(coords, slope):
    """A linear function of position, ``(B, 1, *S)``."""
    return 0.5 + torch.einsum("bd...,d->b...", coords, slope).unsqueeze(1)


def inner(coords, shape):
    """Return which positions ``(B, d, *out)`` lie on a grid, ``(B, 1, *out)``."""
    last = torch.tensor(shape).view(1, -1, *[1] * (coords.ndim - 2)) - 1
    return ((coords >= 0) & (coords <= last)).all(dim=1, keepdim=True)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", SPATIAL)
def test_identity_changes_no_bit(shape, padding):
    image, zero = noise(2, 3, *shape), torch.zeros(1, len(shape), *shape)
    coords = ops.identity_coords(shape)
    assert torch.equal(ops.warp(image, zero, padding=padding), image)
    assert torch.equal(ops.sample(image, coords, padding=padding), image)
    assert torch.equal(ops.push(image, coords, shape, padding=padding), image)
    assert torch.equal(ops.count(coords, shape, padding=padding), torch.ones(1, 1, *shape))
    field = noise(2, len(shape), *shape)
    assert torch.equal(ops.compose(field, zero), field)
    assert torch.equal(ops.compose(zero, field), field)
    assert torch.equal(ops.exponentiate(zero, steps=5), zero)
    assert torch.equal(ops.exponentiate(field, steps=0), field)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [(4, 9, 14), (5, 1, 6), (9, 14)])
@pytest.mark.parametrize("steps", [1, -1, 3, -20, 1000])
def test_shift_by_whole_voxels_moves_the_array(shape, padding, steps):
    image = noise(2, 3, *shape)
    for axis, size in enumerate(shape):
        shift = torch.zeros(1, len(shape), *shape)
        shift[:, axis] = steps
        index = torch.arange(size) + steps
        wanted = image.index_select(axis + 2, index.clamp(0, size - 1))
        if padding == "zeros":
            outside = ((index < 0) | (index >= size)).nonzero().flatten()
            wanted.index_fill_(axis + 2, outside, 0)
        assert torch.equal(ops.warp(image, shift, padding=padding), wanted)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", SPATIAL)
@pytest.mark.parametrize("amplitude", [0.3, 3.0, 1e4])
def test_push_is_the_adjoint_of_sample(shape, padding, amplitude):
    image, values = noise(2, 3, *shape), noise(2, 3, 4, 5, 6, seed=1)
    middle = torch.tensor(shape).view(1, -1, 1, 1, 1) / 2
    coords = middle + amplitude * noise(2, len(shape), 4, 5, 6, seed=2)
    read = ops.sample(image, coords, padding=padding)
    pushed = ops.push(values, coords, shape, padding=padding)
    scale = (read * values).abs().sum().item() + 1
    left, right = (read * values).double().sum(), (image * pushed).double().sum()
    assert abs(left - right).item() < 1e-5 * scale


@pytest.mark.parametrize("shape", SPATIAL)
def test_count_shares_out_every_position_once(shape):
    middle = torch.tensor(shape).view(1, -1, 1) / 2
    coords = middle + 5 * noise(2, len(shape), 1200)
    total = ops.count(coords, shape).sum(dim=tuple(range(1, len(shape) + 2)))
    torch.testing.assert_close(total, torch.full((2,), 1200.0), rtol=1e-6, atol=0)
    faded = ops.count(coords, shape, padding="zeros")
    assert (faded <= ops.count(coords, shape) + 1e-4).all()
    assert (faded >= 0).all()


@pytest.mark.parametrize("shape", [(4, 9, 14), (9, 14)])
def test_affine_closed_forms(shape):
    """A linear image stays linear under an affine displacement, up to the border."""
    ndim = len(shape)
    slope = torch.tensor([0.7, -1.3, 0.4])[-ndim:]
    coords = ops.identity_coords(shape)
    matrix = torch.eye(ndim + 1).unsqueeze(0)
    matrix[:, :ndim] += 0.05 * noise(1, ndim, ndim + 1, seed=3)
    field = ops.voxel_affine_to_displacement(matrix, shape)
    moved = coords + field
    near = inner(moved, shape)
    assert near.float().mean() > 0.5
    found = ops.warp(ramp(coords, slope), field)
    torch.testing.assert_close(found[near], ramp(moved, slope)[near], rtol=0, atol=2e-5)
    squared = ops.voxel_affine_to_displacement(matrix @ matrix, shape)
    found = ops.compose(field, field)
    near = near.expand_as(found)
    torch.testing.assert_close(found[near], squared[near], rtol=0, atol=2e-5)
    determinant = torch.linalg.det(matrix[0, :ndim, :ndim])
    for values in (ops.jacobian_determinant(field), ops.folding_determinants(field)):
        torch.testing.assert_close(values, determinant.expand_as(values), rtol=0, atol=2e-5)


def test_rotation_by_a_right_angle_permutes_voxels():
    image = noise(1, 2, 3, 9, 9)
    h, w = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    field = torch.stack([torch.zeros(9, 9), w - h, 8 - h - w]).view(1, 3, 1, 9, 9)
    found = ops.warp(image, field.expand(1, 3, 3, 9, 9))
    # Voxel (h, w) reads (w, 8 - h).
    assert torch.equal(found, image.rot90(-1, (-1, -2)))
    assert torch.equal(found.rot90(1, (-1, -2)), image)


@pytest.mark.parametrize("angle", [0.1, 0.6])
def test_exponential_of_a_rotation_generator_is_the_rotation(angle):
    """The velocity is linear, so the only error is that of the first step and of float32."""
    shape = (41, 41)
    coords = ops.identity_coords(shape) - 20
    velocity = angle * torch.stack([-coords[:, 1], coords[:, 0]], dim=1)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    wanted = torch.einsum("ij,bjhw->bihw", turn, coords) - coords
    disk = (coords.square().sum(dim=1, keepdim=True) < 12**2).expand_as(wanted)
    errors = []
    for steps in (5, 6, 7):
        found = ops.exponentiate(velocity, steps=steps)
        errors.append((found - wanted)[disk].abs().max().item())
    assert errors[-1] < 12 * angle**2 * 2**-7
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("shape", [(15, 18, 21), (18, 21)])
def test_exponentials_of_opposite_velocities_are_inverse(shape):
    velocity = smooth(shape, 1.5, sigma=3.0)
    forth, back = ops.exponentiate(velocity), ops.exponentiate(-velocity)
    inside = (slice(None), slice(None), *(slice(3, -3) for _ in shape))
    for rest in (ops.compose(forth, back), ops.compose(back, forth)):
        assert rest[inside].abs().max() < 0.05
        assert rest[inside].abs().mean() < 0.005
    assert forth.abs().max() > 1


def test_constant_fields():
    shape = (4, 9, 14)
    shift = torch.tensor([0.5, -1.25, 2.0]).view(1, 3, 1, 1, 1).expand(2, 3, *shape)
    assert torch.equal(ops.exponentiate(shift, steps=4), shift)
    assert torch.equal(ops.compose(shift, shift), 2 * shift)
    constant = torch.full((2, 1, *shape), 3.0)
    assert torch.equal(ops.warp(constant, 100 * shift), constant)
    for energy in (ops.diffusion_energy, ops.bending_energy):
        assert torch.equal(energy(shift, spacing=(8.0, 1.4, 1.9)), torch.zeros(2))
    ones = torch.ones(2, 1, *shape)
    assert torch.equal(ops.jacobian_determinant(shift), ones)
    assert ops.folding(shift).fraction.tolist() == [0, 0]
    torch.testing.assert_close(ops.gaussian(constant, 2.0), constant, rtol=1e-6, atol=0)
    torch.testing.assert_close(ops.box(constant, 3), constant, rtol=1e-6, atol=0)


def test_one_voxel_counts_as_its_own_neighbor():
    image, field = noise(1, 2, 1, 1, 1), noise(1, 3, 1, 1, 1) * 0.3
    assert torch.equal(ops.warp(image, field), image)
    faded = image * (1 - field.abs()).prod(dim=1, keepdim=True)
    torch.testing.assert_close(ops.warp(image, field, padding="zeros"), faded)


def test_zeros_fade_within_a_voxel():
    image = torch.ones(1, 1, 1, 5)
    positions = torch.tensor([-1.5, -1.0, -0.25, 0.0, 4.0, 4.75, 5.0, 9.0])
    coords = torch.stack([torch.zeros(8), positions]).unsqueeze(0)
    found = ops.sample(image, coords, padding="zeros").flatten()
    assert found.tolist() == [0, 0, 0.75, 1, 1, 0.25, 0, 0]


@pytest.mark.parametrize("padding", PADDINGS)
def test_samples_of_a_batch_do_not_see_each_other(padding):
    shape = (4, 9, 14)
    image, field = noise(3, 2, *shape), 2 * noise(3, 3, *shape, seed=1)
    changed = field.clone()
    changed[1] = math.nan
    for operator in (
        lambda u: ops.warp(image, u, padding=padding),
        lambda u: ops.push(image, u, shape, padding=padding),
        lambda u: ops.compose(u, field),
        lambda u: ops.exponentiate(u, steps=3),
        ops.jacobian_determinant,
        ops.folding_determinants,
        lambda u: ops.bending_energy(u, spacing=(1.0, 1.0, 1.0)),
    ):
        before, after = operator(field), operator(changed)
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert after[1].isnan().any()


@pytest.mark.parametrize("batch", [0, 1])
def test_empty_batches_and_empty_points(batch):
    image, field = torch.zeros(0, 2, 3, 4, 5), torch.zeros(batch, 3, 3, 4, 5)
    assert ops.warp(image, field).shape == (0, 2, 3, 4, 5)
    empty = torch.zeros(0, 3, 3, 4, 5)
    assert ops.compose(empty, field).shape == (0, 3, 3, 4, 5)
    assert ops.exponentiate(empty, steps=2).shape == (0, 3, 3, 4, 5)
    assert ops.jacobian_determinant(empty).shape == (0, 1, 3, 4, 5)
    assert ops.bending_energy(empty, spacing=(1.0, 1.0, 1.0)).shape == (0,)
    assert ops.gaussian(image, 1.0).shape == (0, 2, 3, 4, 5)
    nowhere = torch.zeros(1, 3, 0)
    assert ops.sample(torch.ones(1, 2, 3, 4, 5), nowhere).shape == (1, 2, 0)
    pushed = ops.push(torch.zeros(1, 2, 0), nowhere, (3, 4, 5))
    assert torch.equal(pushed, torch.zeros(1, 2, 3, 4, 5))


IMAGE, FIELD = torch.zeros(2, 1, 3, 4, 5), torch.zeros(2, 3, 3, 4, 5)
BAD = {
    "warp: shapes": (
        lambda: ops.warp(IMAGE, FIELD[..., :4]), r"displacement must have the spatial shape of mov"
    ),
    "warp: batches": (
        lambda: ops.warp(IMAGE, FIELD.repeat(2, 1, 1, 1, 1)), "displacement must have the batch si"
    ),
    "warp: components": (
        lambda: ops.warp(IMAGE, FIELD[:, :2]), r"displacement must have shape \(B, 2, H, W\) or"
    ),
    "warp: no channel axis": (lambda: ops.warp(IMAGE[0, 0], FIELD), "moving must have shape"),
    "warp: integers": (lambda: ops.warp(IMAGE.int(), FIELD), "moving must be floating point"),
    "warp: integer field": (lambda: ops.warp(IMAGE, FIELD.int()), "displacement must be floatin"),
    "warp: devices": (lambda: ops.warp(IMAGE, FIELD.to("meta")), "must be on one device"),
    "warp: zero-size axis": (
        lambda: ops.warp(IMAGE[..., :0], FIELD[..., :0]), "moving must have no empty axis"
    ),
    "warp: no channel": (lambda: ops.warp(IMAGE[:, :0], FIELD), "moving must have no empty axis"),
    "warp: padding": (
        lambda: ops.warp(IMAGE, FIELD, padding="mirror"), "padding must be 'border' or 'zeros'"
    ),
    "warp: order": (lambda: ops.warp(IMAGE, FIELD, order=2), "order must be 0, 1 or 3"),
    "sample: dtype": (
        lambda: ops.sample(IMAGE, FIELD.half()), "coords must be float32 or float64, got torch.fl"
    ),
    "sample: components": (
        lambda: ops.sample(IMAGE, FIELD[:, :2]), r"coords must have shape \(B, 3, \.\.\.\)"
    ),
    "sample: complex": (lambda: ops.sample(IMAGE + 0j, FIELD), "image must be floating point"),
    "sample: padding": (
        lambda: ops.sample(IMAGE, FIELD, padding="nearest"), "padding must be 'border' or 'zeros'"
    ),
    "push: shapes": (lambda: ops.push(IMAGE[..., :4], FIELD, (3, 4, 5)), "values must have shape"),
    "push: shape": (lambda: ops.push(IMAGE, FIELD, (3, 0, 5)), "shape must be 2 or 3 posit"),
    "push: integers": (
        lambda: ops.push(IMAGE.int(), FIELD, (3, 4, 5)), "values must be floating point"
    ),
    "push: batches": (
        lambda: ops.push(IMAGE.repeat(2, 1, 1, 1, 1), FIELD, (3, 4, 5)), "values must have the bat"
    ),
    "push: padding": (
        lambda: ops.push(IMAGE, FIELD, (3, 4, 5), padding="x"), "padding must be 'border' or 'ze"
    ),
    "compose: shapes": (
        lambda: ops.compose(FIELD, FIELD[..., :4]), "b_to_c must have the spatial shape of a_to_b"
    ),
    "compose: batches": (
        lambda: ops.compose(FIELD, FIELD.repeat(2, 1, 1, 1, 1)), "b_to_c must have the batch size"
    ),
    "compose: devices": (lambda: ops.compose(FIELD, FIELD.to("meta")), "must be on one device"),
    "exponentiate: components": (
        lambda: ops.exponentiate(IMAGE), r"velocity must have shape \(B, 2, H, W\) or"
    ),
    "exponentiate: steps": (
        lambda: ops.exponentiate(FIELD, steps=-1), "steps must be 'auto' or a whole number from 0"
    ),
    "exponentiate: zero-size axis": (
        lambda: ops.exponentiate(FIELD[..., :0]), "velocity must have shape"
    ),
    "jacobian_determinant: components": (
        lambda: ops.jacobian_determinant(IMAGE), "displacement must have shape"
    ),
    "gaussian: integers": (lambda: ops.gaussian(IMAGE.int(), 1.0), "image must be floating point"),
    "bending: spacing": (
        lambda: ops.bending_energy(FIELD, spacing=(1.0, 0.0, 1.0)), "spacing must be positive and"
    ),
    "frames: batches": (
        lambda: ops.warp_frames(IMAGE, FIELD.unsqueeze(0)), "moving must have the batch size of d"
    ),
    "frames: shapes": (
        lambda: ops.warp_frames(IMAGE[..., :4], FIELD.unsqueeze(1)), "displacement must have the s"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
