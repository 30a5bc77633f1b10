"""Triton's Jacobians, energies and filters against the torch reference and dense matrices."""

import os
import subprocess
import sys

import pytest
import torch

from cardiogen import ops
from cardiogen.ops import use_backend
from cardiogen.ops.kernels import cuda

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.usefixtures("triton_device")
needs_gpu = pytest.mark.usefixtures("gpu")
# The interpreter computes in numpy, which warns of inf - inf and of NaN.
strange = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")
# How the interpreter of Triton 3.6 reads its scalars.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning")

# A tile is 8 lines of 32 voxels: more than one tile, axes of one and two voxels.
SHAPES = [(3, 9, 5), (3, 1, 4), (2, 3, 1), (1, 2, 2), (9, 34), (1, 5), (2, 2)]
SPACINGS = {3: (8.0, 1.4, 1.9), 2: (0.7, 1.9)}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(got, wanted, **options):
    torch.testing.assert_close(got.cpu(), wanted, **{"atol": 1e-5, "rtol": 1e-5} | options)


@needs_triton
@pytest.mark.parametrize("shape", SHAPES)
def test_determinants_and_their_gradients_agree_with_the_reference(shape):
    u = (0.4 * random(2, len(shape), *shape)).requires_grad_()
    with use_backend("reference"):
        wanted = ops.jacobian_determinant(u)
        folds = ops.folding_determinants(u.detach())
    grad = random(*wanted.shape, seed=1)
    wanted.backward(grad)
    field = u.detach().to(DEVICE)
    close(cuda.jacobian_determinant(field), wanted.detach())
    close(cuda.jacobian_determinant_backward(grad.to(DEVICE), field), u.grad)
    close(cuda.folding_determinants(field), folds)


def differences(shape, axis, order):
    """Forward or second differences along one axis as a dense matrix, float64."""
    factors = [torch.eye(n, dtype=torch.float64) for n in shape]
    for _ in range(order):
        factors[axis] = factors[axis].diff(dim=0)
    matrix = torch.ones(1, 1, dtype=torch.float64)
    for factor in factors:
        matrix = torch.kron(matrix, factor.contiguous())
    return matrix


def mixed(shape, first, second):
    lower = list(shape)
    lower[first] = max(lower[first] - 1, 0)
    return differences(lower, second, 1) @ differences(shape, first, 1)


def dense_stiffness(shape, order, spacing):
    """Q of every component, from the sums of squares that define the energy."""
    ndim, voxels = len(shape), torch.Size(shape).numel()
    matrix = torch.zeros(voxels, voxels, dtype=torch.float64)
    for j in range(ndim):
        operator = differences(shape, j, order)
        matrix += 2 * operator.T @ operator / spacing[j] ** (2 * order)
        for k in range(j + 1, ndim if order == 2 else 0):
            operator = mixed(shape, j, k)
            matrix += 4 * operator.T @ operator / (spacing[j] * spacing[k]) ** 2
    return [matrix * s**2 for s in spacing]


@needs_triton
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 4, 3), (4, 3)])
def test_stiffness_agrees_with_dense_matrices(shape, order):
    ndim, spacing = len(shape), SPACINGS[len(shape)]
    u = random(2, ndim, *shape)
    flat = u.flatten(2).double()
    wanted = torch.stack(
        [flat[:, i] @ matrix for i, matrix in enumerate(dense_stiffness(shape, order, spacing))], 1
    )
    energy, force = cuda.stiffness(u.to(DEVICE), order=order, spacing=spacing)
    largest = max(1.0, wanted.abs().max().item())
    close(force.double(), wanted.view(u.shape), atol=1e-6 * largest)
    close(energy.double(), (flat * wanted).sum(dim=(1, 2)) / 2)


@needs_triton
@pytest.mark.parametrize("order", [1, 2])
def test_stiffness_of_fields_without_strain_is_zero(order):
    shape = (3, 5, 6)
    lines = torch.stack([n * torch.ones(shape).cumsum(n) for n in range(3)]).unsqueeze(0)
    field = lines if order == 2 else torch.full((1, 3, *shape), 7.5)
    energy, force = cuda.stiffness(field.to(DEVICE), order=order, spacing=(8.0, 1.4, 1.9))
    assert energy.abs().max() == 0
    assert force.abs().max() == 0


@needs_triton
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4, 5, 6), 0), ((4, 5, 6), 1), ((4, 5, 6), 2), ((4, 5, 1), 1), ((9, 34), 0), ((9, 34), 1)],
)
@pytest.mark.parametrize("rows", [1, 7])
def test_banded_is_a_product_with_a_matrix(shape, axis, rows):
    taps, size = 3, shape[axis]
    first = torch.randint(-2, size, (rows,), generator=torch.Generator().manual_seed(2))
    columns = first.unsqueeze(1) + torch.arange(taps)
    inside = (columns >= 0) & (columns < size)
    weights = torch.where(inside, random(rows, taps, seed=3), 0.0)
    matrix = torch.zeros(rows, size).scatter_add_(1, columns.clamp(0, size - 1), weights)
    tensor = random(2, 3, *shape)
    got = cuda.banded(tensor.to(DEVICE), axis, first.int().to(DEVICE), weights.to(DEVICE))
    close(got, (tensor.movedim(axis + 2, -1) @ matrix.T).movedim(-1, axis + 2))


@needs_triton
@strange
@pytest.mark.parametrize("shape", [(3, 4, 5), (5, 6)])
def test_nothing_outside_a_tensor_is_read_and_nan_stays_local(shape):
    """A field lies between guards of NaN; results are finite but next to its own NaN."""
    ndim = len(shape)
    block = torch.full((2000 + ndim * torch.Size(shape).numel(),), torch.nan, device=DEVICE)
    u = block[1000:-1000].view(1, ndim, *shape)
    u.copy_(0.3 * random(1, ndim, *shape))
    grad = torch.ones(1, 1, *shape, device=DEVICE)
    first = torch.tensor([-1, *range(shape[-1] - 1)], dtype=torch.int32, device=DEVICE)
    weights = torch.ones(shape[-1], 2, device=DEVICE)
    weights[0, 0] = 0
    results = {
        "determinant": lambda: cuda.jacobian_determinant(u),
        "gradient": lambda: cuda.jacobian_determinant_backward(grad, u),
        "folding": lambda: cuda.folding_determinants(u),
        "diffusion": lambda: cuda.stiffness(u, order=1, spacing=SPACINGS[ndim])[1],
        "bending": lambda: cuda.stiffness(u, order=2, spacing=SPACINGS[ndim])[1],
        "banded": lambda: cuda.banded(u, ndim - 1, first, weights),
    }
    for name, compute in results.items():
        assert compute().isfinite().all(), name
    u[(0, 0, *[0] * ndim)] = torch.nan
    for name, compute in results.items():
        got = compute()
        assert got.isnan().any(), name
        assert got[(0, 0, *[-1] * ndim)].isfinite(), name
    with use_backend("reference"):
        torch.testing.assert_close(
            cuda.jacobian_determinant(u).isnan().cpu(), ops.jacobian_determinant(u.cpu()).isnan()
        )
    energy, _ = cuda.stiffness(u, order=1, spacing=SPACINGS[ndim])
    assert energy.isnan().all()


@needs_triton
def test_empty_batches_give_empty_results():
    none = torch.zeros(0, 3, 4, 5, 6, device=DEVICE)
    assert cuda.jacobian_determinant(none).shape == (0, 1, 4, 5, 6)
    assert cuda.folding_determinants(none).shape == (0, 10, 3, 4, 5)
    energy, force = cuda.stiffness(none, order=2, spacing=(1.0, 1.0, 1.0))
    assert energy.shape == (0,)
    assert force.shape == none.shape
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        cuda.stiffness(none, order=3, spacing=(1.0, 1.0, 1.0))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from cardiogen.ops.kernels.cuda import (
    lattice_kernels, push_kernels, sampling_kernels, stencil_kernels,
)

POINTERS = {"image", "coords", "out", "grad", "values", "u", "energy", "weights", "tensor"}
FLOATS = {"scale", "inverse_d", "inverse_h", "inverse_w", "squared_d", "squared_h", "squared_w"}
TYPES = {"fixed": "*i64", "units": "*fp64", "first": "*i32"}
TYPES |= {name: "*fp32" for name in POINTERS} | {name: "fp32" for name in FLOATS}
CONSTANTS = {"BLOCK": 256, "WIDTH": 32, "WIDE": True, "FADE": True, "RELATIVE": True,
             "COMPOSE": True, "FIXED": True, "ORDER": 2, "DEEP": True, "LAST": True, "NDIM": 3}
count = 0
for module in (sampling_kernels, push_kernels, lattice_kernels, stencil_kernels):
    for name, kernel in vars(module).items():
        if name.endswith("_kernel"):
            names = kernel.arg_names
            constants = {(names.index(key),): value for key, value in CONSTANTS.items()
                         if key in names}
            signature = {key: "constexpr" if key in CONSTANTS else TYPES.get(key, "i32")
                         for key in names}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            options = {"num_warps": 8, "enable_fp_fusion": True}
            made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
            assert made.asm["cubin"], name
            count += 1
assert count == 8, count
"""


@needs_triton
def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    """The interpreter forgives what the compiler does not, such as types that change in a loop."""
    folder = {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=os.environ | folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]


@needs_gpu
def test_full_size_volumes_agree_with_the_reference_on_the_gpu():
    u = (0.3 * random(2, 3, 60, 97, 128)).to(DEVICE).requires_grad_()
    with use_backend("reference"):
        wanted = ops.jacobian_determinant(u)
        folds = ops.folding_determinants(u.detach())
    grad = random(*wanted.shape, seed=4).to(DEVICE)
    wanted.backward(grad)
    close(cuda.jacobian_determinant(u.detach()), wanted.detach().cpu())
    close(cuda.jacobian_determinant_backward(grad, u.detach()), u.grad.cpu())
    close(cuda.folding_determinants(u.detach()), folds.cpu(), atol=1e-4)
    first, again = (cuda.stiffness(u.detach(), order=2, spacing=(8.0, 1.4, 1.9)) for _ in "ab")
    assert torch.equal(first[0], again[0])
    close(first[0], (u.detach() * first[1]).double().sum(dim=(1, 2, 3, 4)).cpu().float() / 2)
