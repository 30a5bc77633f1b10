"""Diffusion and bending energies: sums over edges by loops, quadratics in mm, affine is free."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from cardiogen.ops import (
    bending_energy,
    bending_map,
    diffusion_energy,
    diffusion_map,
)

SPACING = {2: (1.4, 1.9), 3: (8.0, 1.4, 1.9)}
SHAPES = [(5, 6, 4), (7, 9), (1, 6, 5), (2, 3, 4), (1, 1, 1)]
ENERGIES = [(diffusion_map, diffusion_energy), (bending_map, bending_energy)]


def random_field(shape, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, len(shape), *shape, generator=generator, dtype=torch.float64)


def edges_by_loop(field, spacing):
    """Sum over edges of the squared slope of one sample, in mm per mm."""
    total = 0.0
    for here in np.ndindex(field.shape[1:]):
        for j, step in enumerate(spacing):
            there = tuple(x + (a == j) for a, x in enumerate(here))
            if there[j] < field.shape[1 + j]:
                for i, length in enumerate(spacing):
                    total += (length / step * (field[i][there] - field[i][here])) ** 2
    return total


def bends_by_loop(field, spacing):
    """Sum over voxels and cells of the squared second differences of one sample, 1/mm^2."""
    total, shape = 0.0, field.shape[1:]

    def value(i, here, **moves):
        there = tuple(x + moves.get(f"a{a}", 0) for a, x in enumerate(here))
        inside = all(0 <= x < n for x, n in zip(there, shape, strict=True))
        return spacing[i] * field[i][there] if inside else None

    for here, i in product(np.ndindex(shape), range(len(spacing))):
        for j, step in enumerate(spacing):
            ends = value(i, here, **{f"a{j}": -1}), value(i, here, **{f"a{j}": 1})
            if None not in ends:
                total += ((ends[0] + ends[1] - 2 * value(i, here)) / step**2) ** 2
        for j, k in combinations(range(len(spacing)), 2):
            corner = value(i, here, **{f"a{j}": 1, f"a{k}": 1})
            if corner is not None:
                sides = value(i, here, **{f"a{j}": 1}) + value(i, here, **{f"a{k}": 1})
                mixed = (corner - sides + value(i, here)) / (spacing[j] * spacing[k])
                total += 2 * mixed**2
    return total


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("energy", "loop"), [(diffusion_energy, edges_by_loop),
                                              (bending_energy, bends_by_loop)])  # fmt: skip
def test_energy_is_the_sum_over_edges_and_cells(energy, loop, shape):
    field, spacing = random_field(shape), SPACING[len(shape)]
    wanted = [loop(sample.numpy(), spacing) / np.prod(shape) for sample in field]
    np.testing.assert_allclose(energy(field, spacing=spacing), wanted, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("voxels", "energy"), ENERGIES)
def test_map_averages_to_the_energy(voxels, energy, shape):
    field, spacing = random_field(shape), SPACING[len(shape)]
    found = voxels(field, spacing=spacing)
    assert found.shape == (2, 1, *shape)
    wanted = energy(field, spacing=spacing)
    torch.testing.assert_close(found.flatten(1).mean(1), wanted, rtol=1e-12, atol=1e-300)
    ones = torch.ones(1, 1, *shape)
    weighted = energy(field, spacing=spacing, weight=ones)
    torch.testing.assert_close(weighted, wanted, rtol=1e-12, atol=1e-300)


def test_edges_and_cells_are_shared_equally():
    field = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    field[0, 1, :, 3:] = 2.0  # a step between columns 2 and 3
    found = diffusion_map(field, spacing=(3.0, 0.5))
    wanted = torch.zeros(5, 6, dtype=torch.float64)
    wanted[:, 2:4] = 0.5 * 2.0**2
    torch.testing.assert_close(found[0, 0], wanted)

    corner = torch.zeros(1, 2, 5, 6, dtype=torch.float64)
    corner[0, 0, 3:, 4:] = 1.0  # bends at one cell, and along the edges of the quadrant
    mixed = 2 / 4 * (3.0 / (3.0 * 0.5)) ** 2
    along = bending_map(corner, spacing=(3.0, 0.5))[0, 0]
    rows, columns = (3.0 / 3.0**2) ** 2, (3.0 / 0.5**2) ** 2
    torch.testing.assert_close(along[2, 3].item(), mixed)
    torch.testing.assert_close(along[2, 4].item(), mixed + rows)
    torch.testing.assert_close(along[3, 3].item(), mixed + columns)
    torch.testing.assert_close(along[3, 4].item(), mixed + rows + columns)
    assert torch.count_nonzero(along[:2, :3]) == 0


def test_quadratic_field_has_its_analytic_energy():
    """u_h = a h^2 + b h w + c w^2 in mm has E = (2a)^2 + 2 b^2 + (2c)^2 where it is complete."""
    spacing, (a, b, c) = (8.0, 1.4, 1.9), (0.03, -0.02, 0.05)
    d, h, w = (torch.arange(n, dtype=torch.float64) * s
               for n, s in zip((5, 7, 9), spacing, strict=True))  # fmt: skip
    h, w = h[:, None], w[None, :]
    field = torch.zeros(1, 3, 5, 7, 9, dtype=torch.float64)
    field[0, 1] = (a * h**2 + b * h * w + c * w**2) / spacing[1]
    inner = bending_map(field, spacing=spacing)[0, 0, :, 1:-1, 1:-1]
    wanted = 4 * a**2 + 2 * b**2 + 4 * c**2
    torch.testing.assert_close(inner, torch.full_like(inner, wanted))

    field[0, 1] = (0.1 * d[:, None, None] + 0.2 * h - 0.3 * w) / spacing[1]
    inner = diffusion_map(field, spacing=spacing)[0, 0, 1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.01 + 0.04 + 0.09))


@pytest.mark.parametrize("shape", SHAPES)
def test_affine_fields_do_not_bend(shape):
    ndim = len(shape)
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(ndim, ndim, generator=generator, dtype=torch.float64)
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    field = torch.einsum("ij,j...->i...", matrix, coords)[None] + 5
    assert bending_map(field, spacing=SPACING[ndim]).max() < 1e-22
    assert bending_energy(field, spacing=SPACING[ndim]).max() < 1e-22


@pytest.mark.parametrize(("power", "energy"), [(0, diffusion_energy), (2, bending_energy)])
def test_energies_are_physical(power, energy):
    """Doubling every length in the world divides 1/mm^2 by 4 and leaves a ratio alone."""
    field = random_field((4, 5, 6))
    small = energy(field, spacing=(8.0, 1.4, 1.9))
    large = energy(field, spacing=(16.0, 2.8, 3.8))
    torch.testing.assert_close(large, small / 2.0**power)


@pytest.mark.parametrize(("voxels", "energy"), ENERGIES)
def test_two_derivatives_and_batch(voxels, energy):
    field = random_field((3, 4, 3)).requires_grad_()
    weight = torch.rand(1, 1, 3, 4, 3, dtype=torch.float64)
    spacing = SPACING[3]
    for function in (
        lambda u: energy(u, spacing=spacing),
        lambda u: energy(u, spacing=spacing, weight=weight),
        lambda u: voxels(u, spacing=spacing),
    ):
        assert torch.autograd.gradcheck(function, field, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, field, fast_mode=True)
    alone = energy(field[1:], spacing=spacing)
    torch.testing.assert_close(energy(field, spacing=spacing)[1:], alone, rtol=0, atol=0)


@pytest.mark.parametrize(("voxels", "energy"), ENERGIES)
def test_half_precision_sums_in_float32(voxels, energy):
    field = random_field((4, 5, 6)).half()
    assert energy(field, spacing=SPACING[3]).dtype == torch.float32
    torch.testing.assert_close(
        energy(field, spacing=SPACING[3]), energy(field.float(), spacing=SPACING[3])
    )
    assert voxels(field, spacing=SPACING[3]).dtype == torch.float32


def test_errors_name_argument_wanted_and_got():
    field = torch.zeros(2, 3, 4, 5, 6)
    with pytest.raises(ValueError, match="spacing must have 3 values, one per axis, got 2"):
        diffusion_energy(field, spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match=r"weight must have shape \(B or 1, 1, \*S\)"):
        diffusion_energy(field, spacing=SPACING[3], weight=torch.ones(4, 5, 6))
    with pytest.raises(ValueError, match="weight must have the batch size of displacement"):
        bending_energy(field, spacing=SPACING[3], weight=torch.ones(3, 1, 4, 5, 6))
    with pytest.raises(ValueError, match="weight must have the spatial shape of displacement"):
        bending_energy(field, spacing=SPACING[3], weight=torch.ones(1, 1, 4, 5, 5))
