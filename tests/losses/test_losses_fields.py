"""Regularizers of known fields in mm, normalizers by dense determinants, prox by minimization."""

import math

import pytest
import torch

from cardiogen.losses import (
    Bending,
    CycleClosure,
    Diffusion,
    Divergence,
    Elastic,
    Folding,
    Incompressibility,
    TemporalSmoothness,
    TotalVariation,
)
from cardiogen.ops import folding, folding_determinants

SPACINGS = [(8.0, 1.4, 1.9), (2.0, 2.5, 1.0), (1.4, 1.9)]


def coords_mm(shape, spacing):
    axes = [torch.arange(n, dtype=torch.float64) * s for n, s in zip(shape, spacing, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def in_voxels(field_mm, spacing):
    return field_mm / torch.tensor(spacing, dtype=torch.float64).view(1, -1, *[1] * len(spacing))


def linear(matrix, shape, spacing):
    """Return the field ``u(x) = M x`` in voxels, x and u in mm."""
    moved = torch.einsum("ij,bj...->bi...", matrix, coords_mm(shape, spacing))
    return in_voxels(moved, spacing)


def random_matrix(ndim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(ndim, ndim, generator=generator, dtype=torch.float64)


def shape_of(spacing):
    return (4, 6, 5)[-len(spacing) :]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_linear_fields_cost_the_same_on_all_voxels(spacing):
    """A physical strain has its textbook energy on any spacing, borders included."""
    matrix = random_matrix(len(spacing))
    field = linear(matrix, shape_of(spacing), spacing)
    strain = (matrix + matrix.T) / 2
    trace = matrix.trace()
    determinant = torch.linalg.det(matrix + torch.eye(len(matrix)))
    cases = {
        Elastic(mu=0.7, lam=1.3): 0.7 * strain.square().sum() + 1.3 / 2 * trace**2,
        Divergence(): trace**2,
        Incompressibility(): (determinant - 1) ** 2,
        Incompressibility(form="log"): determinant.log() ** 2,
        TotalVariation(eps=0.02): (matrix.square().sum() + 0.02**2).sqrt() - 0.02,
        Folding(margin=3.0): 3 - determinant,
    }
    for term, wanted in cases.items():
        found = term.map(field, spacing=spacing)
        if isinstance(term, Folding):  # cells are shared out, so the border has fewer
            found = found[(..., *[slice(1, -1)] * len(spacing))]
        torch.testing.assert_close(found, wanted.expand_as(found), msg=repr(term))
    inner = Diffusion().map(field, spacing=spacing)[(..., *[slice(1, -1)] * len(spacing))]
    torch.testing.assert_close(inner, matrix.square().sum().expand_as(inner))
    assert Bending().map(field, spacing=spacing).max() < 1e-24


@pytest.mark.parametrize("spacing", SPACINGS)
def test_small_rotations_are_free_of_elastic_energy(spacing):
    matrix = random_matrix(len(spacing))
    field = linear(matrix - matrix.T, shape_of(spacing), spacing)
    assert Elastic().map(field, spacing=spacing).max() < 1e-24
    assert Divergence().map(field, spacing=spacing).max() < 1e-24
    assert Diffusion().value(field, spacing=spacing) > 1e-3


def test_quadratic_field_in_mm():
    """u = (0, b h w, 0) mm: divergence b w, shear b h / 2, second derivative b."""
    spacing, shape, b = (8.0, 1.4, 1.9), (3, 6, 7), 0.05
    x = coords_mm(shape, spacing)
    h, w = x[:, 1:2], x[:, 2:3]
    field = in_voxels(torch.cat([torch.zeros_like(h), b * h * w, torch.zeros_like(h)], 1), spacing)
    torch.testing.assert_close(Divergence().map(field, spacing=spacing), (b * w) ** 2)
    torch.testing.assert_close(
        Elastic(mu=2.0, lam=0.5).map(field, spacing=spacing),
        2.0 * ((b * w) ** 2 + 2 * (b * h / 2) ** 2) + 0.25 * (b * w) ** 2,
    )
    inner = Bending().map(field, spacing=spacing)[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 2 * b**2))


@pytest.mark.parametrize("term", [Diffusion(), Elastic(), TotalVariation()], ids=repr)
def test_no_checkerboard_is_free(term):
    signs = (-1.0) ** coords_mm((4, 6, 5), (1.0, 1.0, 1.0)).sum(dim=1, keepdim=True)
    field = 0.1 * signs.expand(1, 3, 4, 6, 5)
    assert term.value(field, spacing=(8.0, 1.4, 1.9)) > 1e-2


def test_incompressible_motion_is_free_and_expansion_is_not():
    spacing = (1.5, 1.5, 1.5)
    stretch = torch.diag(torch.tensor([1.25, 0.8, 1.0], dtype=torch.float64)) - torch.eye(3)
    field = linear(stretch, (4, 6, 5), spacing)
    for form in ("square", "log"):
        assert Incompressibility(form=form).map(field, spacing=spacing).max() < 1e-24
    assert Divergence().value(field, spacing=spacing) > 1e-3
    double, half = (
        linear(torch.eye(3).double() * (f ** (1 / 3) - 1), (4, 6, 5), spacing) for f in (2, 0.5)
    )
    term = Incompressibility(form="log")
    for field in (double, half):
        torch.testing.assert_close(
            term.value(field, spacing=spacing), torch.tensor([math.log(2) ** 2]).double()
        )


def test_log_volume_of_folds_is_finite_and_undoes_them():
    scale = torch.tensor(-1.2, dtype=torch.float64, requires_grad=True)
    field = scale * coords_mm((4, 5), (1.0, 1.0)) * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    price = Incompressibility(form="log").value(field, spacing=(1.0, 1.0))
    assert price.isfinite().all()
    assert torch.autograd.grad(price.sum(), scale)[0] < 0


def test_folding_is_zero_exactly_where_nothing_folds():
    generator = torch.Generator().manual_seed(0)
    rough = torch.randn(1, 3, 4, 6, 5, generator=generator).double()
    spacing, term = (8.0, 1.4, 1.9), Folding()
    for size in (0.05, 0.4):
        price = term.value(size * rough, spacing=spacing)
        assert (price > 0) == (folding(size * rough).fraction > 0)
    wanted = (-folding_determinants(0.4 * rough)).clamp(min=0).mean(1).sum()
    found = term.value(0.4 * rough, spacing=spacing, reduction="sum")
    torch.testing.assert_close(found.sum(), wanted)


@pytest.mark.parametrize("size", [1e-6, 1e4])
def test_total_variation_is_quadratic_below_and_linear_above_eps(size):
    matrix = random_matrix(2)
    norm = (size * matrix).square().sum().sqrt()
    field = linear(size * matrix, (6, 5), (1.4, 1.9))
    found = TotalVariation(eps=0.1).value(field, spacing=(1.4, 1.9))
    wanted = norm**2 / 0.2 if size < 1 else norm - 0.1
    torch.testing.assert_close(found, wanted.expand(1), rtol=1e-4, atol=0)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (1, 3, 4)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("term", "affine"), [(Diffusion(), False), (Bending(), True)], ids=repr)
def test_normalizer_is_the_dense_determinant(term, affine, reduction, shape):
    """Take the Hessian of the energy by autograd and drop its null space."""
    ndim = len(shape)
    spacing = (8.0, 1.4, 1.9)[-ndim:]
    weight = 0.3

    def energy(flat):
        field = flat.view(1, ndim, *shape)
        return term.value(field, spacing=spacing, weight=weight, reduction=reduction).sum()

    zero = torch.zeros(ndim * math.prod(shape), dtype=torch.float64)
    values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(energy, zero))
    null = ndim * (1 + affine * sum(n > 1 for n in shape))
    assert values[:null].abs().max() < 1e-9 * values.max()
    assert values[null] > 1e-6 * values.max()
    wanted = 0.5 * torch.log(2 * torch.pi / values[null:]).sum()
    found = term.log_normalizer(
        (ndim, *shape), spacing=spacing, weight=weight, reduction=reduction
    )
    torch.testing.assert_close(found, wanted)


def test_normalizer_teaches_a_weight():
    """The weight that minimizes E + log Z of a draw is the free values over twice its energy."""
    shape, spacing = (2, 9, 11), (1.4, 1.9)
    field = torch.randn(1, *shape, generator=torch.Generator().manual_seed(2)).double()
    plain = Diffusion().value(field, spacing=spacing, reduction="sum")
    best = (2 * (9 * 11 - 1) / (2 * plain)).requires_grad_()
    total = Diffusion().value(field, spacing=spacing, weight=best, reduction="sum")
    total = total + Diffusion().log_normalizer(shape, spacing=spacing, weight=best)
    assert torch.autograd.grad(total.sum(), best)[0].abs() < 1e-9 * plain


def test_normalizers_name_their_limits():
    with pytest.raises(ValueError, match="known for up to 2048 voxels, got 27000"):
        Bending().log_normalizer((3, 30, 30, 30), spacing=(1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="log_normalizer is not known for a weight map"):
        Diffusion().log_normalizer((2, 3, 4), spacing=(1.0, 1.0), weight=torch.ones(1, 1, 3, 4))


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 5), (1, 4, 3)])
def test_prox_of_diffusion_is_the_minimizer(shape):
    """The energy is convex, so a vanishing slope is enough."""
    ndim = len(shape)
    spacing = (8.0, 1.4, 1.9)[-ndim:]
    given = torch.randn(2, ndim, *shape, generator=torch.Generator().manual_seed(3)).double()
    step = torch.tensor([0.3, 5.0], dtype=torch.float64)
    found = Diffusion().prox(given, spacing=spacing, step=step).requires_grad_()
    price = Diffusion().value(found, spacing=spacing, weight=step, reduction="sum").sum()
    total = price + (found - given).square().sum() / 2
    (slope,) = torch.autograd.grad(total, found)
    assert slope.abs().max() < 1e-12
    torch.testing.assert_close(found.flatten(2).mean(2), given.flatten(2).mean(2))
    alone = Diffusion().prox(given[1:], spacing=spacing, step=5.0)
    torch.testing.assert_close(found[1:].detach(), alone)


@pytest.mark.parametrize("frames", [24, 48])
def test_harmonic_motion_has_its_speed_and_acceleration(frames):
    phase = torch.arange(frames).double() / frames * 2 * torch.pi
    spacing, amplitude = (8.0, 1.4, 1.9), 3.0
    motion = torch.zeros(1, frames, 3, 2, 4, 3, dtype=torch.float64)
    motion[:, :, 1] = (amplitude * phase.sin() / spacing[1]).view(1, -1, 1, 1, 1)
    for order in (1, 2):
        found = TemporalSmoothness(order=order).value(motion, spacing=spacing)
        wanted = amplitude**2 * (2 * math.pi) ** (2 * order) / 2
        assert found == pytest.approx(wanted, rel=0.02)
    still = motion[:, :1].expand(-1, frames, -1, -1, -1, -1) + 1
    assert TemporalSmoothness().value(still, spacing=spacing) == 0
    drift = (
        torch.linspace(0, 1, frames, dtype=torch.float64).view(1, -1, 1, 1, 1, 1).expand_as(motion)
    )
    assert TemporalSmoothness(periodic=False).value(drift, spacing=spacing) < 1e-18
    assert TemporalSmoothness().value(drift, spacing=spacing) > 1


def test_closure_is_the_way_left_after_a_cycle():
    spacing = (8.0, 1.4, 1.9)
    steps = torch.tensor([[1.0, 0.5, 0.0], [-0.5, 1.0, 1.0], [-0.5, -1.5, 0.0]]).double()
    field = steps.view(1, 3, 3, 1, 1, 1).expand(1, 3, 3, 4, 6, 5)
    torch.testing.assert_close(
        CycleClosure().value(field, spacing=spacing), torch.tensor([1.9**2]).double()
    )
    closed = torch.cat([field[:, :2], -field[:, :2].sum(1, keepdim=True)], dim=1)
    assert CycleClosure().value(closed, spacing=spacing) < 1e-20
    path = CycleClosure(given="path").value(field, spacing=spacing)
    torch.testing.assert_close(path, torch.tensor([4.0**2 + 2.1**2]).double())


def test_unusable_constants_are_refused():
    for make, message in (
        (lambda: Elastic(mu=-1.0), "mu and lam must not be negative"),
        (lambda: Incompressibility(form="abs"), "form must be square or log, got 'abs'"),
        (lambda: TotalVariation(eps=0.0), "eps must be positive, got 0.0"),
        (lambda: TemporalSmoothness(order=3), "order must be 1 or 2, got 3"),
        (lambda: CycleClosure(given="loop"), "given must be steps or path, got 'loop'"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    few = torch.zeros(1, 2, 2, 4, 5)
    with pytest.raises(ValueError, match="displacements must have more than 2 frames, got 2"):
        TemporalSmoothness().value(few, spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"displacements must have shape \(B, T, 2, H, W\)"):
        CycleClosure().value(few[0], spacing=(1.0, 1.0))
