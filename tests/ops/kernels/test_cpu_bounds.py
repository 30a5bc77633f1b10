"""Kernels stay inside the memory they were given, whatever the positions say.

Inputs lie between guards of NaN, which would show in the result if they were read; results, and
the memory that threads work in, lie between guards that are looked at afterwards.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cardiogen import ops
from cardiogen.ops import use_backend
from cardiogen.ops.kernels import cpu
from cardiogen.ops.kernels.cpu import launch

_GUARD = 4096  # items before and after
_MARK = 0x5A
_FUZZ = settings(max_examples=60, derandomize=True, deadline=None, database=None)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def between_nan(tensor):
    """Return the same values in memory that NaN surrounds."""
    memory = torch.full((tensor.numel() + 2 * _GUARD,), math.nan)
    inner = memory[_GUARD:-_GUARD].view(tensor.shape)
    return inner.copy_(tensor)


class Guards:
    """Gives out memory between marks and looks at these afterwards."""

    def __init__(self):
        self.given = []

    def tensor(self, shape, dtype, fill):
        size = math.prod(shape) * torch.empty(0, dtype=dtype).element_size()
        memory = torch.full((size + 2 * _GUARD,), _MARK, dtype=torch.uint8)
        inner = memory[_GUARD : _GUARD + size]
        inner.fill_(fill)
        self.given.append((memory.numpy(), size))
        return inner.view(dtype).view(shape)

    def array(self, size):
        memory = np.full(size + 2 * _GUARD, _MARK, np.uint8)
        self.given.append((memory, size))
        return memory[_GUARD : _GUARD + size]

    def check(self):
        assert self.given
        for memory, size in self.given:
            assert (memory[:_GUARD] == _MARK).all()
            assert (memory[_GUARD + size :] == _MARK).all()


@pytest.fixture
def guards(monkeypatch):
    """Puts guards around all that the kernels allocate; new memory holds NaN, not what was."""
    found = Guards()

    def new_empty(tensor, *shape, dtype=None):
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return found.tensor(shape, dtype or tensor.dtype, 0xFF)

    def new_zeros(tensor, *shape, dtype=None):
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return found.tensor(shape, dtype or tensor.dtype, 0)

    class Numpy:
        """numpy as the launcher sees it."""

        def __getattr__(self, name):
            return getattr(np, name)

        @staticmethod
        def empty(size, dtype):
            assert dtype == np.uint8
            return found.array(size)

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    monkeypatch.setattr(torch.Tensor, "new_zeros", new_zeros)
    monkeypatch.setattr(torch, "empty_like", lambda t: found.tensor(t.shape, t.dtype, 0xFF))
    monkeypatch.setattr(torch, "zeros_like", lambda t: found.tensor(t.shape, t.dtype, 0))
    monkeypatch.setattr(launch, "np", Numpy())
    # Without room between threads the first item too much is seen.
    monkeypatch.setattr(launch, "_APART", 0)
    before = torch.get_num_threads()
    with use_backend("auto"):
        yield found
    torch.set_num_threads(before)


def raw_kernels(image, field, other, fade):
    """Run every raw kernel on an image and displacements of its lattice."""
    shape, ndim = tuple(image.shape[2:]), field.shape[1]
    grad = torch.ones(max(len(image), len(field)), *image.shape[1:])
    options = {"fade": fade, "relative": True}
    yield cpu.sample(image, field, **options)
    yield from cpu.sample_backward(grad, image, field, wants=(True, True), **options)
    options["relative"] = False
    yield cpu.sample(image, field, **options)
    yield cpu.push(image, field, tuple(n + 2 for n in shape), fade=fade)
    yield from cpu.sample_backward(grad, image, field, wants=(True, True), **options)
    yield cpu.compose(field, other)
    yield cpu.compose(other, field, scale=0.5)
    yield cpu.compose_backward_self(other, field)
    yield cpu.compose_backward_self(other, field, scale=0.25)
    yield cpu.jacobian_determinant(field)
    yield cpu.jacobian_determinant_backward(image[:, :1].expand(len(field), -1, *shape), other)
    yield cpu.folding_determinants(field)
    for order in (1, 2):
        yield from cpu.stiffness(field, order=order, spacing=(1.0,) * ndim)


WILD = {
    "calm": lambda u: 0.3 * u,
    "rough": lambda u: 4 * u,
    "huge": lambda u: 1e3 * u,
    "vast": lambda u: 1e30 * u,
    "nan": lambda u: torch.where(u > 0, math.nan, u),
    "inf": lambda u: torch.where(u > 0.5, math.inf, torch.where(u < -0.5, -math.inf, u)),
    "largest": lambda u: torch.where(u > 0, torch.finfo(u.dtype).max, torch.finfo(u.dtype).min),
    "integer limits": lambda u: torch.where(u > 0, 2.0**31, -(2.0**31)),
    "just outside": lambda u: torch.where(u > 0, torch.tensor(u.shape[-1]) - 1 + 1e-6, -1e-6),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("wild", WILD.values(), ids=WILD.keys())
@pytest.mark.parametrize(
    "shape",
    [(4, 9, 34), (7, 1, 3), (1, 5, 40), (9, 4, 1), (1, 1, 1), (2, 2, 2), (9, 34), (1, 2), (40, 1)],
)
def test_nothing_outside_is_written(guards, shape, wild, threads):
    torch.set_num_threads(threads)
    field = wild(noise(2, len(shape), *shape))
    other = noise(2, len(shape), *shape, seed=1)
    for fade in (False, True):
        for result in raw_kernels(noise(2, 2, *shape), field, other, fade):
            assert result is not None
    guards.check()


@pytest.mark.parametrize("wild", ["calm", "rough", "huge", "vast", "largest", "integer limits"])
@pytest.mark.parametrize("shape", [(4, 9, 34), (1, 5, 40), (9, 4, 1), (1, 1, 1), (9, 34), (1, 2)])
def test_nothing_outside_is_read(shape, wild):
    image, field = noise(1, 2, *shape), WILD[wild](noise(1, len(shape), *shape))
    other = noise(1, len(shape), *shape, seed=1)
    for fade in (False, True):
        wanted = raw_kernels(image, field, other, fade)
        found = raw_kernels(between_nan(image), between_nan(field), between_nan(other), fade)
        for one, same in zip(found, wanted, strict=True):
            assert torch.equal(one.nan_to_num(123.0), same.nan_to_num(123.0))
            assert not one[..., :1].isnan().any() or wild in ("largest", "vast")


@pytest.mark.parametrize("size", [1, 2, 7, 40, 1025])
@pytest.mark.parametrize("taps", [1, 3, 4, 7, 9])
def test_filters_stay_inside(guards, size, taps):
    taps = min(taps, size)
    rows = size + 3
    first = (torch.arange(rows) - 2).clamp(0, size - taps).int()
    weights = noise(rows, taps)
    for axis, shape in enumerate([(size, 3, 5), (3, size, 5), (3, 5, size)]):
        found = cpu.banded(between_nan(noise(2, 1, *shape)), axis, first, weights)
        assert not found.isnan().any()
        assert found.shape[axis + 2] == rows
    guards.check()


@st.composite
def lattices(draw):
    """A shape, batches that may share, channels, an amplitude and a seed."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=2, max_size=2)))
    if draw(st.booleans()):
        shape = (draw(st.integers(1, 9)), *shape)
    batch = draw(st.integers(1, 3))
    images, fields = draw(st.sampled_from([(batch, batch), (1, batch), (batch, 1)]))
    amplitude = draw(st.sampled_from([0.0, 0.02, 0.3, 2.0, 40.0]))
    return shape, images, fields, draw(st.integers(1, 4)), amplitude, draw(st.integers(0, 999))


def value_and_slopes(operator, tensors):
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    # One voxel alone has no slopes, and the reference no graph.
    result = operator(*leaves) + 0 * sum(leaf.sum() for leaf in leaves)
    weight = noise(*result.shape, seed=9).to(result.dtype)
    return (result.detach(), *torch.autograd.grad(result, leaves, weight))


def assert_agrees(operator, *tensors):
    with use_backend("auto"):
        found = value_and_slopes(operator, tensors)
    with use_backend("reference"):
        wanted = value_and_slopes(operator, [tensor.double() for tensor in tensors])
    for k, (one, other) in enumerate(zip(found, wanted, strict=True)):
        scale = max(1.0, other.abs().max().item())
        bound = (1e-5 if k == 0 else 1e-4) * scale
        torch.testing.assert_close(one.double(), other, rtol=0, atol=bound)


def exact(shape, batch, amplitude, seed):
    """Displacements that float32 holds exactly and that put nothing on the edge of a cell.

    Smooth ones move whole stretches of a line alike, which kernels read in another way.
    """
    field = noise(batch, len(shape), *shape, seed=seed) * amplitude
    if seed % 2:
        field = field.mean(dim=-1, keepdim=True) + 0.01 * field
    return (field * 1024).floor() / 1024 + 2**-11


@_FUZZ
@given(lattices(), st.sampled_from(["border", "zeros"]))
def test_warps_of_any_lattice_agree_with_the_reference(lattice, padding):
    shape, images, fields, channels, amplitude, seed = lattice
    image = noise(images, channels, *shape, seed=seed + 1)
    field = exact(shape, fields, amplitude, seed)
    assert_agrees(lambda m, u: ops.warp(m, u, padding=padding), image, field)
    coords = (field + ops.identity_coords(shape)).flatten(2)
    assert_agrees(
        lambda v, y: ops.push(v, y, shape[::-1], padding=padding),
        image.flatten(2), coords.flip(1),
    )  # fmt: skip
    assert_agrees(lambda m, y: ops.sample(m, y, padding=padding), image, coords)


@_FUZZ
@given(lattices())
def test_fields_of_any_lattice_agree_with_the_reference(lattice):
    shape, first, second, _, amplitude, seed = lattice
    a, b = exact(shape, first, amplitude, seed), exact(shape, second, amplitude, seed + 2)
    assert_agrees(ops.compose, a, b)
    assert_agrees(lambda v: ops.exponentiate(v, steps=1), 2 * a)
    assert_agrees(ops.jacobian_determinant, a)
    assert_agrees(ops.folding_determinants, a)
    spacing = (8.0, 1.4, 1.9)[-len(shape) :]
    assert_agrees(lambda u: ops.diffusion_energy(u, spacing=spacing), a)
    assert_agrees(lambda u: ops.bending_energy(u, spacing=spacing), a)


@_FUZZ
@given(lattices(), st.floats(0.0, 12.0), st.integers(0, 9))
def test_filters_of_any_lattice_agree_with_the_reference(lattice, sigma, radius):
    shape, images, _, channels, _, seed = lattice
    image = noise(images, channels, *shape, seed=seed)
    assert_agrees(lambda m: ops.gaussian(m, sigma), image)
    assert_agrees(lambda m: ops.box(m, radius), image)
    spacing = (8.0, 1.4, 1.9)[-len(shape) :]
    lengths = {"spacing": spacing, "control_spacing": tuple((1 + sigma) * s for s in spacing)}
    control = noise(images, channels, *ops.control_shape(shape, **lengths), seed=seed)
    assert_agrees(lambda c: ops.expand(c, shape, **lengths), control)
