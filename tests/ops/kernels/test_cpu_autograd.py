"""Compiled kernels behave under autograd, transforms and modes as torch operators do."""

import functools
import gc
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from cardiogen import ops
from cardiogen.ops import use_backend
from cardiogen.ops.separable import AxisMatrix

# torch's own forward mode still uses torch.jit.script.
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
SHAPE = (4, 7, 9)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exact(*shape, amplitude=1.5, seed=1):
    """Displacements that float32 holds exactly and that put nothing on the edge of a cell."""
    return (noise(*shape, seed=seed) * amplitude * 1024).floor() / 1024 + 2**-11


def smooth(shape, amplitude):
    field = ops.gaussian(noise(1, len(shape), *shape).double(), 2.0)
    return (amplitude * field / field.abs().max()).float()


def inputs(shape=SHAPE):
    return noise(2, 2, *shape), exact(2, len(shape), *shape)


SPACING = (8.0, 1.4, 1.9)
# Coefficients of a spline on this grid have the shape above.
FINE = {"shape": (3, 9, 13), "spacing": (1.0, 1.0, 1.0), "control_spacing": (2.0, 2.0, 2.0)}
OPERATORS = {
    "warp": lambda m, u: ops.warp(m, u),
    "warp zeros": lambda m, u: ops.warp(m, u, padding="zeros"),
    "sample": lambda m, u: ops.sample(m, u),
    "push": lambda m, u: ops.push(m, u, SHAPE),
    "push zeros": lambda m, u: ops.push(m, u, SHAPE, padding="zeros"),
    "compose": lambda m, u: ops.compose(u, u.flip(0)) * m.square().mean(),
    "exponentiate": lambda m, u: ops.exponentiate(0.03 * u, steps=3) * m.square().mean(),
    "gaussian": lambda m, u: ops.gaussian(m, 1.2) * u.square().mean(),
    "expand": lambda m, u: ops.expand(u, **FINE) * m.square().mean(),
    "determinant": lambda m, u: ops.jacobian_determinant(u) * m.square().mean(),
    "folding": lambda m, u: ops.folding_determinants(u) * m.square().mean(),
    "bending": lambda m, u: ops.bending_energy(u, spacing=SPACING) * m.square().mean(),
    "diffusion": lambda m, u: ops.diffusion_energy(u, spacing=SPACING) * m.square().mean(),
}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


@pytest.fixture(autouse=True)
def _auto():
    with use_backend("auto"):
        yield


def assert_close(found, wanted, tolerance):
    scale = wanted.abs().max().clamp(min=1).item()
    torch.testing.assert_close(found.double(), wanted.double(), rtol=0, atol=tolerance * scale)


def second_derivatives(operator, tensors):
    """Differentiate, once and again, the product with noise of the first gradients."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    result = operator(*leaves)
    weight = noise(*result.shape, seed=8).to(result.dtype).requires_grad_()
    first = torch.autograd.grad(result, leaves, weight, create_graph=True)
    total = sum((g * noise(*g.shape, seed=9).to(g.dtype)).sum() for g in first)
    second = torch.autograd.grad(total, [*leaves, weight])
    return first, second


@every_operator
def test_second_derivatives_are_those_of_the_reference(operator):
    tensors = inputs()
    found = second_derivatives(operator, tensors)
    with use_backend("reference"):
        wanted = second_derivatives(operator, [tensor.double() for tensor in tensors])
    for order in (0, 1):
        for one, other in zip(found[order], wanted[order], strict=True):
            assert_close(one, other, 2e-4)


@every_operator
def test_first_derivatives_do_not_depend_on_being_differentiated_again(operator):
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    total = operator(*leaves).square().sum()
    plain = torch.autograd.grad(total, leaves, retain_graph=True)
    again = torch.autograd.grad(total, leaves, retain_graph=True)
    with_graph = torch.autograd.grad(total, leaves, create_graph=True)
    for one, same, other in zip(plain, again, with_graph, strict=True):
        assert torch.equal(one, same)
        assert not one.requires_grad
        assert other.requires_grad
        assert_close(one, other, 1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_exponentiate_can_be_differentiated_twice_in_the_same_graph(steps):
    velocity = smooth(SHAPE, 2.0).requires_grad_()
    total = ops.exponentiate(velocity, steps=steps).square().sum()
    first = torch.autograd.grad(total, velocity, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(total, velocity)[0])


@pytest.mark.parametrize("name", ["warp zeros", "push", "compose", "exponentiate"])
def test_float64_passes_gradgradcheck(name):
    shape = (2, 3, 4)
    image, field = (tensor.double().requires_grad_() for tensor in inputs(shape))
    operator = functools.partial(ops.push, shape=shape) if name == "push" else OPERATORS[name]
    assert torch.autograd.gradcheck(operator, (image[:1], field[:1]), fast_mode=True)
    assert torch.autograd.gradgradcheck(operator, (image[:1], field[:1]), fast_mode=True)


@forward_mode
@every_operator
def test_func_transforms(operator):
    image, field = inputs()
    leaf = field.clone().requires_grad_()
    wanted = torch.autograd.grad(operator(image, leaf).square().sum(), leaf)[0]
    found = torch.func.grad(lambda u: operator(image, u).square().sum())(field)
    assert_close(found, wanted, 1e-4)
    result, pull = torch.func.vjp(lambda u: operator(image, u), field)
    assert_close(pull(2 * result)[0], wanted, 1e-4)
    direction = noise(*field.shape, seed=3)
    _, along = torch.func.jvp(lambda u: operator(image, u), (field,), (direction,))
    products = (wanted * direction).double()
    error = (along * 2 * result).double().sum() - products.sum()
    assert error.abs() < 1e-5 * products.abs().sum()


@every_operator
def test_vmap(operator):
    image, field = noise(3, 2, 1, *SHAPE), exact(3, 2, 3, *SHAPE)
    found = torch.vmap(operator)(image, field)
    wanted = torch.stack([operator(m, u) for m, u in zip(image, field, strict=True)])
    assert_close(found, wanted, 1e-5)
    shared = torch.vmap(operator, in_dims=(None, 0))(image[0], field)
    assert_close(shared, torch.stack([operator(image[0], u) for u in field]), 1e-5)


@forward_mode
@every_operator
def test_forward_mode(operator):
    image, field = inputs()
    direction = noise(*field.shape, seed=4)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(field, direction)
        along = forward_ad.unpack_dual(operator(image, dual)).tangent
    leaf = field.clone().requires_grad_()
    result = operator(image, leaf)
    weight = noise(*result.shape, seed=5)
    slopes = torch.autograd.grad(result, leaf, weight)[0]
    assert_close((along * weight).sum(), (slopes * direction).sum(), 1e-4)


@every_operator
def test_many_gradients_in_one_backward(operator):
    """``is_grads_batched`` runs the backward pass itself under vmap."""
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    result = operator(*leaves)
    weights = noise(3, *result.shape, seed=6)
    found = torch.autograd.grad(result, leaves, weights, retain_graph=True, is_grads_batched=True)
    for k, weight in enumerate(weights):
        wanted = torch.autograd.grad(result, leaves, weight, retain_graph=True)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one[k], other, 1e-4)


@forward_mode
def test_hessian_vector_products():
    image, field = noise(1, 1, 2, 3, 4), exact(1, 3, 2, 3, 4)

    def energy(u):
        return ops.warp(image, u).square().sum()

    weight = noise(*field.shape, seed=3)
    _, found = torch.autograd.functional.hvp(energy, field, weight)
    wanted = torch.func.jvp(torch.func.grad(energy), (field,), (weight,))[1]
    assert_close(found, wanted, 1e-4)


@every_operator
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_compiled_by_dynamo_without_breaks(operator):
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    torch._dynamo.reset()
    compiled = torch.compile(operator, backend="eager", fullgraph=True)
    result, wanted = compiled(*leaves), operator(*leaves)
    assert_close(result, wanted, 1e-5)
    for one, other in zip(
        torch.autograd.grad(result.square().sum(), leaves),
        torch.autograd.grad(wanted.square().sum(), leaves),
        strict=True,
    ):
        assert_close(one, other, 1e-4)


@every_operator
def test_traced_by_modes_that_follow_operators(operator):
    """Kernels are no torch operators: a tracer would see empty memory alone."""
    image, field = inputs()
    wanted = operator(image, field)
    graph = make_fx(operator)(image, field)
    assert_close(graph(image, field), wanted, 1e-5)
    assert_close(graph(2 * image, field), operator(2 * image, field), 1e-5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = operator(image, field)
    assert isinstance(fake, FakeTensor)
    assert fake.shape == wanted.shape
    with FlopCounterMode(display=False):
        assert_close(operator(image, field), wanted, 1e-5)


def test_matrices_made_under_a_mode_do_not_outlive_it():
    image = noise(1, 1, *SHAPE)
    wanted = ops.gaussian(image.double(), 1.23).float()

    def smoothed(sigma):
        return ops.gaussian(image, sigma)

    with FakeTensorMode(allow_non_fake_inputs=True):
        smoothed(1.23)
    assert_close(smoothed(1.23), wanted, 1e-5)
    wanted = ops.gaussian(image.double(), 1.25).float()
    with torch.device("meta"), torch.inference_mode():
        assert_close(smoothed(1.25), wanted, 1e-5)
    assert_close(torch.func.grad(lambda m: ops.gaussian(m, 1.25).sum())(image).sum(),
                 torch.tensor(float(image.numel())), 1e-4)  # fmt: skip
    leaf = image.clone().requires_grad_()
    ops.gaussian(leaf, 1.25).square().sum().backward()
    assert leaf.grad.isfinite().all()


def test_random_blurs_do_not_fill_the_memory():
    image = noise(1, 1, *SHAPE)
    for k in range(300):
        ops.gaussian(image, 1 + k / 1000)
    kept = sum(type(thing) is AxisMatrix for thing in gc.get_objects())
    assert kept < 500


def test_nothing_to_do_returns_the_image_itself():
    image = noise(1, 1, *SHAPE).requires_grad_()
    same = ops.gaussian(image * 1, 0.0)
    same.add_(1)
    same.sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_by_jit():
    image, field = inputs()
    graph = torch.jit.trace(ops.warp, (image, field))
    assert_close(graph(image, 2 * field), ops.warp(image, 2 * field), 1e-5)


@every_operator
def test_checkpointed(operator):
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    wanted = torch.autograd.grad(operator(*leaves).square().sum(), leaves)
    result = checkpoint(operator, *leaves, use_reentrant=False)
    found = torch.autograd.grad(result.square().sum(), leaves)
    assert all(map(torch.equal, found, wanted))


@every_operator
def test_saved_tensors_may_come_back_in_another_layout(operator):
    def unpack(tensor):
        axes = tuple(range(tensor.ndim))[::-1]
        return tensor.permute(axes).contiguous().permute(axes)

    leaves = [tensor.requires_grad_() for tensor in inputs()]
    wanted = torch.autograd.grad(operator(*leaves).square().sum(), leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, unpack):
        found = torch.autograd.grad(operator(*leaves).square().sum(), leaves)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, 1e-6)


def test_inputs_changed_in_place_are_noticed():
    for changed in (0, 1):
        tensors = inputs()
        tensors[1 - changed].requires_grad_()
        result = ops.warp(*tensors)
        tensors[changed].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            result.sum().backward()


@every_operator
def test_inputs_and_arriving_gradients_are_not_written_to(operator):
    tensors = [tensor.requires_grad_() for tensor in inputs()]
    before = [tensor.detach().clone() for tensor in tensors]
    result = operator(*tensors)
    weight = noise(*result.shape, seed=7)
    kept, value = weight.clone(), result.detach().clone()
    torch.autograd.grad(result, tensors, weight)
    assert torch.equal(weight, kept)
    assert torch.equal(result, value)
    assert all(map(torch.equal, tensors, before))


def test_results_do_not_share_memory_with_inputs():
    velocity = smooth(SHAPE, 0.01)
    found = ops.exponentiate(velocity, steps=0)
    assert torch.equal(found, velocity)
    found.zero_()
    assert velocity.any()
    leaf = velocity.clone().requires_grad_()
    weight = torch.ones_like(velocity)
    ops.exponentiate(leaf, steps=0).backward(weight)
    leaf.grad.zero_()
    assert weight.all()


@every_operator
def test_grad_modes(operator):
    image, field = inputs()
    wanted = operator(image, field)
    leaves = [image.clone().requires_grad_(), field.clone().requires_grad_()]
    with torch.no_grad():
        result = operator(*leaves)
    assert not result.requires_grad
    assert torch.equal(result, wanted)
    with torch.inference_mode():
        result = operator(image.clone(), field.clone())
    assert result.is_inference()
    assert torch.equal(result, wanted)
    with torch.inference_mode():
        still = image.clone()
    assert torch.equal(operator(still, field), wanted)


def test_anomaly_mode_names_nan_gradients():
    image, field = inputs()
    field[0, 0, 1, 1, 1] = math.nan
    image.requires_grad_()
    with (
        pytest.warns(UserWarning, match="Anomaly Detection"),
        torch.autograd.detect_anomaly(),
        pytest.warns(UserWarning, match="Error detected in"),
        pytest.raises(RuntimeError, match="_FusedBackward' returned nan"),
    ):
        ops.warp(image, field).sum().backward()


@every_operator
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_bit(operator, dtype):
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    wanted = operator(*leaves)
    wanted_slopes = torch.autograd.grad(wanted.sum(), leaves)
    with torch.autocast("cpu", dtype=dtype):
        result = operator(*leaves)
        slopes = torch.autograd.grad(result.sum(), leaves)
    assert result.dtype == torch.float32
    assert torch.equal(result, wanted)
    assert all(map(torch.equal, slopes, wanted_slopes))


def test_autocast_leaves_matrix_products_alone():
    """Filters wider than a kernel takes are products of matrices."""
    leaf = noise(1, 1, 3, 4, 130).requires_grad_()
    wanted = torch.autograd.grad(ops.gaussian(leaf, 20.0).square().sum(), leaf)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(ops.gaussian(leaf, 20.0).square().sum(), leaf)[0]
    assert torch.equal(found, wanted)


@every_operator
def test_deterministic_mode_changes_no_bit(operator):
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    wanted = torch.autograd.grad(operator(*leaves).square().sum(), leaves)
    torch.use_deterministic_algorithms(True)
    try:
        found = torch.autograd.grad(operator(*leaves).square().sum(), leaves)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, found, wanted))


def test_defaults_of_torch_change_no_bit():
    image, field = inputs()
    wanted = ops.warp(image, field), ops.exponentiate(field, steps=3)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = ops.warp(image, field), ops.exponentiate(field, steps=3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, wanted))


def test_subclasses_and_parameters():
    image, field = inputs()
    parameter = torch.nn.Parameter(field.clone())
    wanted = ops.warp(image, field)
    assert torch.equal(ops.warp(image, parameter), wanted)

    class Tagged(torch.Tensor):
        pass

    found = ops.warp(image.as_subclass(Tagged), field)
    assert type(found) is Tagged
    assert_close(found.as_subclass(torch.Tensor), wanted, 1e-5)


def test_backward_in_another_backend_than_forward():
    leaves = [tensor.requires_grad_() for tensor in inputs()]
    result = ops.warp(*leaves).square().sum()
    wanted = torch.autograd.grad(result, leaves, retain_graph=True)
    with use_backend("reference"):
        assert all(map(torch.equal, torch.autograd.grad(result, leaves), wanted))
