"""Triton's sample, push and compose against the torch reference; in its interpreter if no GPU."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from cardiogen import ops
from cardiogen.ops import use_backend
from cardiogen.ops.kernels import cuda
from cardiogen.ops.kernels.cuda import sampling, status

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.usefixtures("triton_device")
needs_gpu = pytest.mark.usefixtures("gpu")
# The interpreter computes in numpy, which warns of inf - inf and of NaN.
strange = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
# How the interpreter of Triton 3.6 reads its scalars.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

# A tile is 16 lines of 32 points: more than one tile, exactly one, axes of one and two voxels.
CASES = [
    ((3, 17, 14), 1, (2, 2)),
    ((1, 5, 8), 3, (1, 3)),
    ((7, 40), 3, (2, 4)),
    ((5, 1, 2), 2, (3, 1)),
    ((4, 3, 1), 1, (1, 1)),
    ((16, 32), 1, (4, 2)),
    ((1, 6), 1, (1, 2)),
]


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator)


def random_coords(batch, shape, *, beyond=1.5, seed=1):
    """Positions on a lattice of the shape's size, uniform up to ``beyond`` voxels outside."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(batch, len(shape), *shape, generator=generator)
    size = torch.tensor(shape).view(1, -1, *[1] * len(shape)) - 1
    coords = unit * (size + 2 * beyond) - beyond
    coords.view(-1)[::5] = coords.view(-1)[::5].round()  # voxel centers and the ends of fades
    return coords


def on_device(*tensors):
    moved = tuple(t.to(DEVICE) for t in tensors)
    return moved[0] if len(moved) == 1 else moved


def shared(tensor, batch):
    return tensor.repeat_interleave(batch // tensor.shape[0], dim=0)


def reference_sample(image, coords, fade, relative):
    batch = max(image.shape[0], coords.shape[0])
    if relative:
        coords = ops.displaced_coords(coords)
    with use_backend("reference"):
        return ops.sample(
            shared(image, batch), shared(coords, batch), padding="zeros" if fade else "border"
        )


def positions(batch, shape, relative, beyond=1.5):
    coords = random_coords(batch, shape, beyond=beyond)
    return coords - ops.identity_coords(shape) if relative else coords


def close(got, wanted, **options):
    torch.testing.assert_close(got.cpu(), wanted, atol=1e-5, rtol=1e-5, **options)


@needs_triton
@pytest.mark.parametrize(
    ("case", "fade", "relative"),
    [(case, fade, not fade) for case in CASES for fade in (False, True)]
    + [(case, same, same) for case in CASES[1:3] for same in (False, True)],
)
def test_sample_and_its_gradients_agree_with_the_reference(case, fade, relative):
    shape, channels, batches = case
    image = random(batches[0], channels, *shape).requires_grad_()
    coords = positions(batches[1], shape, relative).requires_grad_()
    wanted = reference_sample(image, coords, fade, relative)
    grad = random(*wanted.shape, seed=2)
    wanted.backward(grad)

    on = on_device(grad, image.detach(), coords.detach())
    close(cuda.sample(*on[1:], fade=fade, relative=relative), wanted.detach())
    got = cuda.sample_backward(*on, fade=fade, relative=relative, wants=(True, True))
    close(got[0], image.grad)
    close(got[1], coords.grad)


@needs_triton
def test_coords_of_any_shape_and_gradients_that_are_not_wanted():
    image = random(2, 3, 4, 5, 6)
    for out in [(600,), (2, 3), (2, 17, 33), (3, 1, 2, 4)]:
        coords = 4 * torch.rand(2, 3, *out, generator=torch.Generator().manual_seed(3))
        got = cuda.sample(*on_device(image, coords), fade=False, relative=False)
        close(got, reference_sample(image, coords, False, False))
    grad = on_device(random(2, 3, 2, 3))
    options = {"fade": False, "relative": False}
    none = cuda.sample_backward(grad, *on_device(image, coords), **options, wants=(False, False))
    assert none == (None, None)
    empty = on_device(torch.zeros(2, 3, 0))
    assert cuda.sample(on_device(image), empty, **options).shape == (2, 3, 0)
    assert not cuda.push(empty, empty, (4, 5, 6), fade=False).any()


@needs_triton
def test_lattice_and_image_may_differ_in_shape_for_relative_coords():
    image, u = random(1, 2, 5, 6, 7), 3 * random(1, 3, 4, 9, 8)
    got = cuda.sample(*on_device(image, u), fade=True, relative=True)
    close(got, reference_sample(image, u, True, True))


def guarded(tensor):
    """Return the tensor between guards of NaN in one block of memory, and that block."""
    block = torch.full((tensor.numel() + 2000,), torch.nan, device=DEVICE)
    inside = block[1000 : 1000 + tensor.numel()].view(tensor.shape)
    inside.copy_(tensor)
    return inside, block


STRANGE = [torch.nan, torch.inf, -torch.inf, 3e38, -3e38, 2.0**31, -(2.0**31), 1e9, -1e-45, -0.0]


@needs_triton
@strange
@pytest.mark.parametrize("fade", [False, True])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 7), (5, 6)])
def test_strange_positions_stay_inside_memory_and_agree_with_the_reference(shape, fade):
    ndim = len(shape)
    coords = 2 * torch.rand(1, ndim, 3 * len(STRANGE) * ndim)
    for axis in range(ndim):
        block = slice(3 * len(STRANGE) * axis, 3 * len(STRANGE) * (axis + 1))
        coords[0, axis, block] = torch.tensor(STRANGE).repeat(3)
    image = random(1, 2, *shape)
    leaves = image.clone().requires_grad_(), coords.clone().requires_grad_()
    wanted = reference_sample(*leaves, fade, False)
    assert wanted.isnan().any()
    grad = random(*wanted.shape)
    wanted.backward(grad)

    inside, block = guarded(image)
    got = cuda.sample(inside, on_device(coords), fade=fade, relative=False)
    close(got, wanted.detach(), equal_nan=True)
    options = {"fade": fade, "relative": False, "wants": (True, True)}
    got = cuda.sample_backward(on_device(grad), inside, on_device(coords), **options)
    close(got[0], leaves[0].grad, equal_nan=True)
    close(got[1], leaves[1].grad, equal_nan=True)
    assert block.isnan().sum() == 2000


@needs_triton
@strange
@pytest.mark.parametrize("deterministic", [False, True])
def test_strange_positions_and_values_write_inside_memory(deterministic, monkeypatch):
    values, coords = random(1, 1, 300), 4 * torch.rand(1, 3, 300)
    for axis in range(3):
        block = slice(len(STRANGE) * axis, len(STRANGE) * (axis + 1))
        coords[0, axis, block] = torch.tensor(STRANGE)
    values[0, 0, 200:203] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    shape = (4, 5, 6)
    with use_backend("reference"):
        wanted = ops.push(values, coords, shape)
    inside, block = guarded(torch.zeros(1, 1, *shape))
    with determinism(deterministic):
        sampling._add_pushed(inside, *on_device(values, coords), fade=False, relative=False)
    close(inside, wanted, equal_nan=True)
    assert wanted.isnan().any()
    assert block[:1000].isnan().all()
    assert block[-1000:].isnan().all()


@contextmanager
def determinism(wanted=True):
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@needs_triton
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("shape", "channels", "batches"), CASES[:4])
def test_push_agrees_with_the_reference_and_is_the_adjoint(
    shape, channels, batches, deterministic
):
    fade = len(shape) == 2
    values = random(batches[0], channels, *shape)
    coords = random_coords(batches[1], shape)
    wide = max(batches)
    into = tuple(n + 1 for n in shape)
    with use_backend("reference"):
        wanted = ops.push(
            shared(values, wide), shared(coords, wide), into, padding="zeros" if fade else "border"
        )
    with determinism(deterministic):
        got = cuda.push(*on_device(values, coords), into, fade=fade)
        relative = coords - ops.identity_coords(shape)
        same = cuda.push(*on_device(values, relative), into, fade=fade, relative=True)
    close(got, wanted)
    torch.testing.assert_close(same, got, atol=3e-5, rtol=0)

    image = random(wide, channels, *into, seed=4)
    sampled = cuda.sample(*on_device(image, coords), fade=fade, relative=False).cpu()
    left = (sampled.double() * shared(values, wide).double()).sum()
    right = (image.double() * got.cpu().double()).sum()
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-4)


@needs_triton
def test_deterministic_push_gives_the_same_bits_in_any_order():
    count = 5000 if DEVICE == "cuda" else 600
    values, coords = random(2, 1, count) * 10.0 ** random(2, 1, count), 3 * torch.rand(2, 2, count)
    values[1] = 0.0
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5))
    with determinism():
        first = cuda.push(*on_device(values, coords), (4, 4), fade=False)
        again = cuda.push(*on_device(values, coords), (4, 4), fade=False)
        other = cuda.push(*on_device(values[..., order], coords[..., order]), (4, 4), fade=False)
    assert torch.equal(first, again)
    assert torch.equal(first, other)
    assert not first[1].any()
    with use_backend("reference"):
        wanted = ops.push(values.double(), coords.double(), (4, 4))
    largest = values.abs().max().item()
    torch.testing.assert_close(first.double().cpu(), wanted, atol=1e-6 * largest, rtol=1e-6)


@needs_triton
def test_deterministic_gradient_of_an_image_shared_by_frames():
    image, u = random(2, 1, 5, 6), random(4, 2, 5, 6)
    grad = random(4, 1, 5, 6, seed=6)
    options = {"fade": False, "relative": True, "wants": (True, False)}
    plain, _ = cuda.sample_backward(*on_device(grad, image, u), **options)
    with determinism():
        fixed, _ = cuda.sample_backward(*on_device(grad, image, u), **options)
        again, _ = cuda.sample_backward(*on_device(grad, image, u), **options)
    close(fixed, plain.cpu())
    assert torch.equal(fixed, again)


@needs_triton
@pytest.mark.parametrize(("shape", "channels", "batches"), CASES[:4])
def test_compose_scales_and_shares(shape, channels, batches):
    a, b = (4 * random(n, len(shape), *shape, seed=n) for n in batches)
    wide = max(batches)
    with use_backend("reference"):
        wanted = ops.compose(shared(0.25 * a, wide), shared(0.25 * b, wide))
    out = on_device(torch.full_like(wanted, torch.nan))
    got = cuda.compose(*on_device(a, b), scale=0.25, out=out)
    assert got is out
    close(got, wanted)
    with use_backend("reference"):
        close(cuda.compose(*on_device(a, b)), ops.compose(shared(a, wide), shared(b, wide)))


@needs_triton
@pytest.mark.parametrize(
    ("shape", "scale", "deterministic"),
    [
        ((3, 7, 9), 1.0, False),
        ((3, 7, 9), 0.5, True),
        ((18, 11), 0.5, False),
        ((18, 11), 1.0, True),
        ((1, 4, 5), 0.5, False),
    ],
)
def test_self_composition_backward_agrees_with_autograd(shape, scale, deterministic):
    u = 2 * random(2, len(shape), *shape)
    field = (scale * u).requires_grad_()
    with use_backend("reference"):
        composed = ops.compose(field, field)
    grad = random(*composed.shape, seed=7)
    composed.backward(grad)
    with determinism(deterministic):
        close(cuda.compose_backward_self(*on_device(grad, u), scale=scale), field.grad)


@needs_triton
def test_public_operators_run_on_these_kernels_with_their_gradients(monkeypatch):
    monkeypatch.setattr("cardiogen.ops.kernels._kernels", lambda device: cuda)
    moving, velocity = random(1, 2, 9, 7), 2 * random(2, 2, 9, 7)
    grad = random(2, 2, 9, 7, seed=3)

    def gradients(backend):
        leaves = [leaf.to(DEVICE).requires_grad_() for leaf in (moving, velocity)]
        with use_backend(backend):
            field = ops.exponentiate(leaves[1], steps=3)
            moved = ops.warp(leaves[0].expand(2, -1, -1, -1), ops.compose(field, field))
            pushed = ops.push(moved, ops.displaced_coords(field), (9, 7))
        (pushed * grad.to(DEVICE)).sum().backward()
        return moved.detach().cpu(), leaves[0].grad.cpu(), leaves[1].grad.cpu()

    for got, wanted in zip(gradients("auto"), gradients("reference"), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@needs_triton
def test_wrong_batches_and_outputs_are_refused():
    image, u = on_device(random(2, 2, 4, 5), random(3, 2, 4, 5))
    with pytest.raises(ValueError, match="batches must divide one another, got 2 and 3"):
        cuda.sample(image, u, fade=False, relative=True)
    with pytest.raises(ValueError, match="out must not be one of the fields"):
        cuda.compose(u, u, out=u)
    with pytest.raises(ValueError, match=r"out must be contiguous of shape \(3, 2, 4, 5\), got"):
        cuda.compose_backward_self(u, u, out=image)


def test_availability_is_told_with_a_reason(monkeypatch):
    ask = status.available.__wrapped__
    monkeypatch.setattr(status.importlib.util, "find_spec", lambda name: None)
    assert ask() == "triton is not installed"
    monkeypatch.setattr(status.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(status, "_version", lambda: "3.5.1")
    assert ask() == "triton 3.5.1 is older than 3.6"
    monkeypatch.setattr(status, "_version", lambda: None)
    assert ask() == "the version of triton is not known"
    monkeypatch.setattr(status, "_version", lambda: "3.10.0+git1")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert ask() is None
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert ask() == "triton needs a C compiler, and neither CC, gcc nor clang was found"
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr(status.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    assert ask() == "triton needs the C headers of Python, and /nowhere has no Python.h"


def test_importing_the_package_does_not_import_triton():
    code = (
        "import sys, cardiogen.ops.kernels.cuda as cuda; cuda.available(); "
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs_gpu
def test_offsets_beyond_32_bits():
    channels, shape = 40, (384, 384, 384)
    free, _ = torch.cuda.mem_get_info()
    if free < 4 * 4 * channels * 384**3:
        pytest.skip("needs 36 GB of GPU memory")
    image = torch.zeros(1, channels, *shape, device=DEVICE)
    image[0, :, -1, -1, -5:] = torch.arange(channels, device=DEVICE).unsqueeze(1) + 1.0
    still = torch.zeros(1, 3, *shape, device=DEVICE)
    assert torch.equal(cuda.sample(image, still, fade=False, relative=True), image)
    pushed = cuda.push(image, still, shape, fade=False, relative=True)
    assert torch.equal(pushed, image)


@needs_gpu
@pytest.mark.parametrize("shape", [(60, 256, 256), (96, 97, 101), (512, 511)])
def test_full_size_volumes_agree_with_the_reference_on_the_gpu(shape):
    image = random(2, 2, *shape).to(DEVICE).requires_grad_()
    u = (5 * random(2, len(shape), *shape, seed=8)).to(DEVICE).requires_grad_()
    with use_backend("reference"):
        wanted = ops.warp(image, u)
    grad = random(*wanted.shape, seed=9).to(DEVICE)
    wanted.backward(grad)
    options = {"fade": False, "relative": True}
    got = cuda.sample(image.detach(), u.detach(), **options)
    close(got, wanted.detach().cpu())
    got = cuda.sample_backward(grad, image.detach(), u.detach(), **options, wants=(True, True))
    # Hundreds of values meet in a voxel of the border, in another order each time.
    torch.testing.assert_close(got[0], image.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got[1], u.grad, atol=1e-4, rtol=1e-4)
