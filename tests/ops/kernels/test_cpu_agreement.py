"""Compiled kernels agree with the torch reference in float64: values, gradients, odd inputs.

Displacements are odd multiples of 2^-11 voxel where gradients are compared: such positions are
exact in float32 too and never on the edge of a cell, where slopes jump.
"""

import math

import pytest
import torch

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.ops import kernels, use_backend
from cardiogen.ops.kernels import backend as kernel_choice
from cardiogen.ops.kernels import cpu

SPATIAL = [(4, 9, 14), (1, 7, 10), (5, 1, 6), (3, 8, 1), (2, 2, 2), (1, 1, 1), (9, 14), (1, 5)]
VALUE, SLOPE = 1e-5, 1e-4


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(*shape, amplitude=1.5, seed=1):
    return (noise(*shape, seed=seed) * amplitude * 1024).floor() / 1024 + 2**-11


def smooth(batch, shape, amplitude=1.5, seed=2):
    """A field that folds nowhere, at most ``amplitude`` voxels long along an axis."""
    sigma = tuple(2.0 if n > 1 else 0.0 for n in shape)
    field = ops.gaussian(noise(batch, len(shape), *shape, seed=seed).double(), sigma)
    return (amplitude * field / field.abs().max()).float()


def positions(shape, batch, *out, seed=3):
    """Free positions, a quarter of them outside the grid."""
    size = torch.tensor(shape, dtype=torch.float32).view(1, -1, *[1] * len(out))
    share = torch.rand(batch, len(shape), *out, generator=torch.Generator().manual_seed(seed))
    return ((1.3 * share - 0.15) * size * 1024).floor() / 1024 + 2**-11


def gradients(operator, tensors):
    """Return the result and the gradients of its product with fixed noise."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    result = operator(*leaves)
    weight = noise(*result.shape, seed=9).to(result.dtype)
    return result.detach(), torch.autograd.grad((result * weight).sum(), leaves)


def assert_close(found, wanted, tolerance):
    """NaN where wanted, the same infinities, and errors within a share of the largest value."""
    assert found.shape == wanted.shape
    found, wanted = found.double(), wanted.double()
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.isinf(), wanted.isinf())
    finite = wanted.isfinite()
    scale = wanted[finite].abs().amax().clamp(min=1).item() if finite.any() else 1.0
    torch.testing.assert_close(
        found[finite], wanted[finite], rtol=0, atol=tolerance * scale, equal_nan=False
    )


def assert_agrees(operator, *tensors, value=VALUE, slope=SLOPE):
    """Compare float32 kernels with the float64 reference; the kernels must have been taken."""
    with use_backend("auto"):
        found, found_slopes = gradients(operator, tensors)
    with use_backend("reference"):
        wanted, wanted_slopes = gradients(operator, [tensor.double() for tensor in tensors])
    assert found.dtype == torch.float32
    assert_close(found, wanted, value)
    for found_slope, wanted_slope in zip(found_slopes, wanted_slopes, strict=True):
        assert_close(found_slope, wanted_slope, slope)


@pytest.fixture(autouse=True)
def _auto():
    with use_backend("auto"):
        yield


def test_float32_takes_the_kernels():
    image, field = noise(1, 1, 3, 4, 5).requires_grad_(), exact(1, 3, 3, 4, 5).requires_grad_()
    lengths = {"spacing": (1.0, 1.0, 1.0), "control_spacing": (2.0, 2.0, 2.0)}
    control = noise(1, 3, *ops.control_shape((3, 4, 5), **lengths)).requires_grad_()
    for result in (
        ops.gaussian(image, 1.0),
        ops.expand(control, (3, 4, 5), **lengths),
        ops.jacobian_determinant(field),
        ops.folding_determinants(field),
        ops.bending_energy(field, spacing=(1.0, 1.0, 1.0)),
        ops.diffusion_energy(field, spacing=(1.0, 1.0, 1.0)),
        ops.warp(image, field),
        ops.sample(image, field),
        ops.push(image, field, (6, 5, 4)),
        ops.compose(field, field),
        ops.exponentiate(field, steps=3),
        ops.warp_frames(image, field.unsqueeze(0)).squeeze(0),
    ):
        functions, names = [result.grad_fn], set()
        while functions:
            function = functions.pop()
            names.add(type(function).__name__)
            functions += [parent for parent, _ in function.next_functions if parent]
        assert "_FusedBackward" in names


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("shape", SPATIAL)
@pytest.mark.parametrize(
    ("images", "fields", "channels"), [(1, 1, 1), (2, 2, 2), (3, 1, 1), (1, 3, 3), (2, 2, 5)]
)
def test_warp(shape, padding, images, fields, channels):
    image, field = noise(images, channels, *shape), exact(fields, len(shape), *shape)
    assert_agrees(lambda m, u: ops.warp(m, u, padding=padding), image, field)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("shape", SPATIAL)
@pytest.mark.parametrize("out", [(1,), (7,), (3, 5), (2, 3, 4), (1030,)])
def test_sample_and_push(shape, padding, out):
    for images, fields, channels in ((1, 1, 1), (2, 1, 3), (1, 2, 2)):
        coords = positions(shape, fields, *out)
        image = noise(images, channels, *shape)
        assert_agrees(lambda m, y: ops.sample(m, y, padding=padding), image, coords)
        values = noise(images, channels, *out)
        assert_agrees(lambda v, y: ops.push(v, y, shape, padding=padding), values, coords)
    assert_agrees(lambda y: ops.count(y, shape, padding=padding), coords)


@pytest.mark.parametrize("shape", SPATIAL)
@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 2), (3, 1), (1, 3)])
def test_compose(shape, first, second):
    ndim = len(shape)
    assert_agrees(ops.compose, exact(first, ndim, *shape), exact(second, ndim, *shape, seed=5))


def test_compose_with_itself():
    assert_agrees(lambda u: ops.compose(u, u), exact(2, 3, 4, 7, 6))


@pytest.mark.parametrize("shape", [(7, 9, 14), (1, 7, 10), (13, 14)])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 7, 9, 14])
def test_exponentiate(shape, steps):
    """Steps beyond 3 compute fields again in windows, beyond 4 in several."""
    velocity = smooth(2, shape, amplitude=2.0)
    # First steps that are small against a voxel keep float32 and float64 in the same cells.
    assert_agrees(lambda v: ops.exponentiate(v, steps=steps), velocity, value=2e-5, slope=1e-3)


def test_exponentiate_with_as_many_steps_as_every_sample_needs():
    scale = torch.tensor([2.0, 0.0, 2.0, 0.1, 0.5, 0.4]).view(-1, 1, 1, 1, 1)
    velocity = smooth(6, (5, 9, 8), amplitude=1.0) * scale
    assert len(set(ops.automatic_steps(velocity))) >= 4
    assert_agrees(ops.exponentiate, velocity, value=2e-5, slope=1e-3)
    alone = torch.cat([ops.exponentiate(v.unsqueeze(0)) for v in velocity])
    assert torch.equal(ops.exponentiate(velocity), alone)


def test_gradient_of_exponentiate_folds_too():
    """A wild field at few steps, whose positions are exact in float32."""
    assert_agrees(lambda v: ops.exponentiate(v, steps=1), exact(1, 3, 5, 7, 6, amplitude=3.0))


@pytest.mark.parametrize("shape", [(5, 8, 11), (1, 8, 11), (8, 11)])
def test_filters(shape):
    image = noise(2, 3, *shape)
    spacing = (8.0, 1.4, 1.9)[-len(shape) :]
    assert_agrees(lambda m: ops.gaussian(m, 1.3), image)
    assert_agrees(lambda m: ops.gaussian(m, 9.0, spacing=spacing), image)
    assert_agrees(lambda m: ops.gaussian(m, (0.0, 7.0, 0.4)[: len(shape)]), image)
    assert_agrees(lambda m: ops.box(m, 1), image)
    assert_agrees(lambda m: ops.box(m, (0, 4, 30)[: len(shape)]), image)
    assert_agrees(lambda m: ops.gradient(m, spacing=spacing), image)


@pytest.mark.parametrize("shape", [(2, 3, 130), (2, 130, 3), (130, 1, 2), (130, 3)])
def test_filters_along_long_axes(shape):
    """From some width on kernels leave filters to products of matrices."""
    image = noise(1, 2, *shape)
    for sigma in (0.7, 5.0, 7.0, 40.0):
        assert_agrees(lambda m, s=sigma: ops.gaussian(m, s), image)
    assert_agrees(lambda m: ops.box(m, 23), image)
    assert_agrees(lambda m: ops.box(m, 24), image)


@pytest.mark.parametrize("shape", [(5, 8, 11), (1, 8, 11), (2, 2, 2), (8, 11), (1, 6)])
def test_jacobians_and_energies(shape):
    field, spacing = exact(2, len(shape), *shape), (8.0, 1.4, 1.9)[-len(shape) :]
    weight = noise(1, 1, *shape, seed=4).abs()
    assert_agrees(lambda u: ops.jacobian(u, spacing=spacing), field)
    assert_agrees(ops.jacobian_determinant, field)
    assert_agrees(ops.folding_determinants, field)
    for energy in (ops.diffusion_energy, ops.bending_energy):
        assert_agrees(lambda u, energy=energy: energy(u, spacing=spacing), field)
        assert_agrees(
            lambda u, w, energy=energy: energy(u, spacing=spacing, weight=w), field, weight
        )
    for energy_map in (ops.diffusion_map, ops.bending_map):
        assert_agrees(lambda u, of=energy_map: of(u, spacing=spacing), field)


@pytest.mark.parametrize("amplitude", [0.2, 2.0, 1e4])
def test_folding_finds_the_same_cells(amplitude):
    field = exact(3, 3, 5, 8, 11, amplitude=amplitude)
    found = ops.folding(field)
    wanted = ops.folding(field.double())
    assert torch.equal(found.mask, wanted.mask)
    assert torch.equal(found.fraction, wanted.fraction)


@pytest.mark.parametrize("shape", [(5, 9, 14), (1, 9, 14), (9, 14)])
def test_splines(shape):
    spacing = (8.0, 1.4, 1.9)[-len(shape) :]
    control_spacing = (16.0, 4.2, 6.0)[-len(shape) :]
    lengths = {"spacing": spacing, "control_spacing": control_spacing}
    control = noise(2, len(shape), *ops.control_shape(shape, **lengths))
    assert_agrees(lambda c: ops.expand(c, shape, **lengths), control)
    assert_agrees(lambda c: ops.subdivide(c, shape, **lengths), control)


def test_operators_built_on_these():
    shape, grid = (5, 9, 11), Grid.regular((5, 9, 11), (8.0, 1.4, 1.9))
    wide = Grid.regular((7, 8, 9), (6.0, 1.7, 2.3), (1.0, -2.0, 0.5))
    image, field = noise(1, 2, *shape), smooth(1, shape, amplitude=0.9)
    points = torch.tensor([[[3.0, 4.0, 5.0], [-9.0, 2.0, 30.0], [16.0, 7.7, 11.0]]])
    labels = torch.randint(0, 4, (2, 1, *shape), generator=torch.Generator().manual_seed(6))
    assert_agrees(lambda m: ops.resample(m, grid, wide), image)
    assert_agrees(lambda m: ops.resample(m, grid, wide, order=3), image, value=1e-4)
    assert_agrees(lambda m: ops.resize(m, (9, 5, 22), affine=torch.eye(4))[0], image)
    assert_agrees(lambda u: ops.resize_field(u, (9, 5, 22)), field)
    assert_agrees(lambda m: ops.pyramid(m, 3, affine=torch.eye(4), min_size=2)[2][0], image)
    assert_agrees(lambda m, p: ops.sample_at_points(m, p, grid), image, points)
    assert_agrees(lambda p, u: ops.warp_points(p, u, grid), points, field)
    assert_agrees(lambda u: ops.warp_labels(labels, u, classes=4), exact(2, 3, *shape))
    assert_agrees(
        lambda u: ops.invert(u, tolerance=1e-5).displacement, field, value=1e-4, slope=1e-2
    )


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("shape", [(4, 9, 14), (1, 7, 10), (9, 14), (1, 1, 1)])
@pytest.mark.parametrize("amplitude", [30.0, 1e3, 1e6, 1e30])
def test_huge_displacements(shape, padding, amplitude):
    image, field = noise(2, 2, *shape), exact(2, len(shape), *shape, amplitude=amplitude)
    assert_agrees(lambda m, u: ops.warp(m, u, padding=padding), image, field)
    assert_agrees(lambda v, y: ops.push(v, y, shape, padding=padding), image, field)
    assert_agrees(ops.compose, field, image[:, :1].expand_as(field).contiguous())


def with_holes(field, values):
    """Put odd values at scattered places of a field."""
    flat = field.clone().flatten()
    for k, value in enumerate(values):
        flat[k :: 7 * len(values)] = value
    return flat.view_as(field)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("shape", [(4, 9, 14), (1, 7, 10), (9, 14)])
@pytest.mark.parametrize("odd", [[math.nan], [math.inf, -math.inf], [math.nan, math.inf, 1e30]])
def test_nan_and_infinite_fields(shape, padding, odd):
    image = noise(2, 2, *shape)
    field = with_holes(exact(2, len(shape), *shape), odd)
    assert_agrees(lambda m, u: ops.warp(m, u, padding=padding), image, field)
    assert_agrees(lambda v, y: ops.push(v, y, shape, padding=padding), image, field)


@pytest.mark.parametrize("odd", [[math.nan], [math.inf, -math.inf]])
def test_fields_of_only_odd_values_are_read_within_bounds(odd):
    shape = (4, 9, 14)
    field = with_holes(torch.full((1, 3, *shape), odd[0]), odd)
    for steps in (0, 1, 4):
        assert_agrees(lambda v, n=steps: ops.exponentiate(v, steps=n), field)
    assert_agrees(ops.compose, field, exact(1, 3, *shape))
    assert_agrees(ops.compose, exact(1, 3, *shape), field)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("shape", [(4, 9, 14), (9, 14)])
def test_nan_voxels_reach_what_reads_them(shape, padding):
    image = with_holes(noise(1, 2, *shape), [math.nan])
    field = exact(1, len(shape), *shape)
    assert_agrees(lambda m, u: ops.warp(m, u, padding=padding), image, field)
    assert_agrees(lambda v, y: ops.push(v, y, shape, padding=padding), image, field)


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("shape", [(4, 9, 14), (1, 7, 10), (9, 14)])
def test_slopes_at_voxels_and_borders_are_those_of_the_reference(shape, padding):
    """Whole displacements lie where slopes jump; which side counts is agreed on."""
    image = noise(2, 2, *shape)
    whole = noise(2, len(shape), *shape, seed=7).mul(3).round()
    for field in (torch.zeros_like(whole), whole):
        assert_agrees(lambda m, u: ops.warp(m, u, padding=padding), image, field)
        assert_agrees(
            lambda v, y: ops.push(v, y, shape, padding=padding),
            image, field + ops.identity_coords(shape),
        )  # fmt: skip
    assert_agrees(ops.compose, whole, exact(2, len(shape), *shape))


def _layouts(tensor):
    """Yield the same values in other layouts of memory."""
    axes = list(range(tensor.ndim))
    yield tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    yield tensor.permute(*axes[::-1]).contiguous().permute(*axes[::-1])
    last = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
    yield tensor.contiguous(memory_format=last)
    yield torch.stack([tensor, tensor + 1], dim=-1)[..., 0]
    yield torch.cat([tensor + 1, tensor])[tensor.shape[0] :]
    yield torch._neg_view(-tensor)
    yield torch.complex(tensor, -tensor).conj().imag


@pytest.mark.parametrize("shape", [(4, 9, 14), (9, 14)])
def test_layout_of_memory_changes_no_bit(shape):
    image, field = noise(2, 3, *shape), exact(2, len(shape), *shape)
    cases = [
        lambda m, u: gradients(ops.warp, [m, u]),
        lambda m, u: gradients(lambda v, y: ops.push(v, y, shape), [m, u]),
        lambda m, u: gradients(ops.compose, [u, u * 0.5]),
        lambda m, u: gradients(lambda v: ops.exponentiate(v, steps=2), [u]),
    ]
    for case in cases:
        wanted, wanted_slopes = case(image, field)
        for other_image, other_field in zip(_layouts(image), _layouts(field), strict=True):
            assert torch.equal(other_image, image)
            found, found_slopes = case(other_image, other_field)
            assert torch.equal(found, wanted)
            assert all(map(torch.equal, found_slopes, wanted_slopes))


def test_gradients_that_arrive_in_other_layouts():
    image, field = noise(2, 3, 4, 9, 14), exact(2, 3, 4, 9, 14)
    for seed in range(2):
        for weight in _layouts(noise(2, 3, 4, 9, 14, seed=seed)):
            leaf = field.clone().requires_grad_()
            found = torch.autograd.grad(ops.warp(image, leaf), leaf, weight)[0]
            wanted = torch.autograd.grad(ops.warp(image, leaf), leaf, weight.contiguous())[0]
            assert torch.equal(found, wanted)
    leaf = field.clone().requires_grad_()
    ops.warp(image, leaf).sum().backward()
    wanted = torch.autograd.grad(ops.warp(image, leaf), leaf, torch.ones(2, 3, 4, 9, 14))[0]
    assert torch.equal(leaf.grad, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("padding", ["border", "zeros"])
def test_narrow_images_are_read_in_float32_and_kept(dtype, padding):
    image, field = noise(2, 2, 4, 9, 14).to(dtype), exact(1, 3, 4, 9, 14)
    for operator in (
        lambda m, u: ops.warp(m, u, padding=padding),
        lambda m, u: ops.push(m, u, (5, 6, 7), padding=padding),
    ):
        found, (for_image, for_field) = gradients(operator, [image, field])
        wanted, (judge_image, judge_field) = gradients(operator, [image.double(), field.double()])
        assert (found.dtype, for_image.dtype, for_field.dtype) == (dtype, dtype, torch.float32)
        unit = torch.finfo(dtype).eps
        assert_close(found, wanted, unit)
        assert_close(for_image, judge_image, unit)
        assert_close(for_field, judge_field, unit)


def test_narrow_displacements_are_widened():
    image, field = noise(1, 1, 4, 9, 14), exact(1, 3, 4, 9, 14).bfloat16()
    assert torch.equal(ops.warp(image, field), ops.warp(image, field.float()))
    assert ops.compose(field, field).dtype == torch.float32
    assert torch.equal(ops.exponentiate(field), ops.exponentiate(field.float()))


@pytest.mark.parametrize("padding", ["border", "zeros"])
@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("shape", [(4, 7, 9), (7, 9)])
def test_frames(padding, per_frame, shape):
    batch, frames = 2, 5
    image = noise(batch, *((frames,) if per_frame else ()), 3, *shape)
    fields = exact(batch, frames, len(shape), *shape)
    assert_agrees(lambda m, u: ops.warp_frames(m, u, padding=padding), image, fields)
    moved = ops.warp_frames(image, fields, padding=padding)
    for frame in range(frames):
        still = image[:, frame] if per_frame else image
        alone = ops.warp(still, fields[:, frame], padding=padding)
        assert torch.equal(moved[:, frame], alone)


class Spy:
    """Keeps the tensors that a raw kernel was given."""

    def __init__(self, function):
        self.function, self.calls = function, []

    def __call__(self, *tensors, **options):
        self.calls.append([(t.data_ptr(), t.shape) for t in tensors if torch.is_tensor(t)])
        return self.function(*tensors, **options)


@pytest.fixture
def sample_spy(monkeypatch):
    spy = Spy(cpu.sample)
    monkeypatch.setattr(cpu, "sample", spy)
    return spy


def test_a_still_image_is_read_where_it_lies(sample_spy):
    image, fields = noise(2, 1, 4, 7, 9), exact(2, 6, 3, 4, 7, 9)
    ops.warp_frames(image, fields)
    assert sample_spy.calls[-1] == [
        (image.data_ptr(), image.shape), (fields.data_ptr(), (12, 3, 4, 7, 9)),
    ]  # fmt: skip
    ops.warp(image[:1], fields[0])
    assert sample_spy.calls[-1][0] == (image.data_ptr(), (1, 1, 4, 7, 9))


def test_expanded_batches_are_read_where_they_lie(sample_spy):
    image, field = noise(1, 1, 4, 7, 9), exact(1, 3, 4, 7, 9)
    fields, images = exact(5, 3, 4, 7, 9), noise(5, 1, 4, 7, 9)
    moved = ops.warp(image.expand(5, -1, -1, -1, -1), fields)
    assert sample_spy.calls[-1][0] == (image.data_ptr(), image.shape)
    assert torch.equal(moved, ops.warp(image, fields))
    moved = ops.warp(images, field.expand(5, -1, -1, -1, -1))
    assert sample_spy.calls[-1][1] == (field.data_ptr(), field.shape)
    assert torch.equal(moved, ops.warp(images, field))


def test_gradients_of_expanded_inputs_are_summed():
    image, fields = noise(1, 2, 4, 7, 9), exact(5, 3, 4, 7, 9)
    field, images = fields[:1], noise(5, 2, 4, 7, 9)
    expand = (5, -1, -1, -1, -1)
    assert_agrees(lambda m, u: ops.warp(m.expand(expand), u), image, fields)
    assert_agrees(lambda m, u: ops.warp(m, u.expand(expand)), images, field)
    assert_agrees(lambda m, u: ops.warp(m.expand(expand), u.expand(expand)), image, field)
    assert_agrees(lambda v, y: ops.push(v.expand(expand), y, (3, 4, 5)), image, fields)
    assert_agrees(lambda v, y: ops.push(v, y.expand(expand), (3, 4, 5)), images, field)
    assert_agrees(lambda a, b: ops.compose(a.expand(expand), b), field, fields)
    assert_agrees(lambda a, b: ops.compose(a, b.expand(expand)), fields, field)
    assert_agrees(lambda v: ops.exponentiate(v.expand(expand), steps=3), smooth(1, (4, 7, 9)))


def test_samples_of_an_expanded_leaf_have_gradients_of_their_own():
    image, fields = noise(1, 2, 4, 7, 9), exact(3, 3, 4, 7, 9)
    expand = (3, -1, -1, -1, -1)
    for operator, still, others in (
        (ops.warp, image, fields),
        (lambda u, m: ops.warp(m, u), fields[:1], noise(3, 2, 4, 7, 9)),
        (lambda v, y: ops.push(v, y, (3, 4, 5)), image, fields),
        (ops.compose, fields[:1], fields),
    ):
        leaf, copy = (still.expand(expand).requires_grad_(), still.repeat(3, 1, 1, 1, 1))
        found = torch.autograd.grad(operator(leaf, others).square().sum(), leaf)[0]
        copy.requires_grad_()
        wanted = torch.autograd.grad(operator(copy, others).square().sum(), copy)[0]
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("fault", ["No module named 'numba'", "Numba needs NumPy 2.3 or less"])
def test_without_numba_the_reference_is_taken_with_a_warning(monkeypatch, fault):
    def refuse(name):
        assert name == "numba"
        raise ImportError(fault)

    image, field = noise(1, 1, 4, 7, 9), exact(1, 3, 4, 7, 9)
    wanted = ops.warp(image, field)
    monkeypatch.setattr(kernels.importlib, "import_module", refuse)
    kernels._kernels.cache_clear()
    with pytest.warns(UserWarning, match=f"slow reference.*{fault}"):
        found = ops.warp(image, field)
    # Once is enough.
    assert torch.equal(ops.warp(image, field), found)
    kernels._kernels.cache_clear()
    assert_close(found, wanted, VALUE)


@pytest.mark.parametrize("steps", [3, 7, 12])
def test_gradient_of_exponentiate_holds_few_fields(monkeypatch, steps):
    """Besides velocity, result and arriving gradient: four, the gradient itself among them."""
    velocity = smooth(1, (5, 8, 9)).requires_grad_()
    result, made = ops.exponentiate(velocity, steps=steps).sum(), []
    make = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda tensor: made.append(1) or make(tensor))
    result.backward()
    assert len(made) <= 4


def test_what_32_bit_offsets_cannot_reach_goes_to_the_reference(monkeypatch):
    image, field = noise(1, 1, 4, 7, 9), exact(1, 3, 4, 7, 9)
    wanted = ops.warp(image, field), ops.push(image, field, (4, 7, 10))
    monkeypatch.setattr(cpu, "sample", None)
    monkeypatch.setattr(cpu, "push", None)
    monkeypatch.setattr(kernel_choice, "MOST_VOXELS", 4 * 7 * 9 - 1)
    assert_close(ops.warp(image, field), wanted[0], VALUE)
    monkeypatch.setattr(kernel_choice, "MOST_VOXELS", 4 * 7 * 9)
    assert_close(ops.push(image, field, (4, 7, 10)), wanted[1], VALUE)


def test_only_wanted_gradients_are_computed(monkeypatch):
    image, field = noise(1, 1, 4, 7, 9), exact(1, 3, 4, 7, 9)
    spy = Spy(cpu.sample_backward)
    wants = []
    monkeypatch.setattr(
        cpu, "sample_backward", lambda *t, **o: wants.append(o["wants"]) or spy(*t, **o)
    )
    for for_image, for_field in ((True, False), (False, True), (True, True)):
        result = ops.warp(image.requires_grad_(for_image), field.requires_grad_(for_field))
        image.grad = field.grad = None
        result.sum().backward()
        assert wants[-1] == (for_image, for_field)
        assert (image.grad is not None, field.grad is not None) == (for_image, for_field)
    for first, second in ((True, False), (False, True)):
        a, b = exact(1, 3, 4, 7, 9), exact(1, 3, 4, 7, 9, seed=3)
        ops.compose(a.requires_grad_(first), b.requires_grad_(second)).sum().backward()
        assert wants[-1] == (second, first)
