"""Solvers lower their energies, pair by pair, and find what is known."""

import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.losses import Bending, Diffusion, Weighted
from cardiogen.transforms import SVF, Affine, Displacement, Rigid
from registration import register
from registration.problem import Problem, pyramid
from registration.solvers import SOLVERS
from registration.solvers.spectrum import Spectrum
from registration.unfold import unfold

SMOOTH = {"similarity": "mse", "smoothness": ("diffusion", 1e-3)}
EVERY = [("gauss_newton", kind) for kind in ("svf", "displacement")]
EVERY += [(solver, kind) for solver in ("adam", "lbfgs")
          for kind in ("rigid", "affine", "displacement", "svf", "ffd", "svffd")]  # fmt: skip


def far(found, truth, grid, inner=4):
    """Return the mean endpoint error in mm, away from the border of the plane."""
    lengths = torch.tensor(grid.spacing).view(1, 3, 1, 1, 1)
    error = ((found - truth) * lengths).square().sum(dim=1).sqrt()
    return float(error[:, :, inner:-inner, inner:-inner].mean())


@pytest.mark.parametrize(("solver", "kind"), EVERY)
def test_energy_never_rises(pair, grid, make_config, solver, kind):
    fixed, moving, _ = pair
    terms = {"similarity": "mse"} if kind in ("rigid", "affine") else SMOOTH
    config = make_config(solver=solver, transform=kind, iterations=(4, 3), terms=terms,
                         control_spacing=8.0, learning_rate=0.02)  # fmt: skip
    result = register(fixed, moving, grid, config=config)
    for _, rows in result.energies.groupby(["level", "pair"]):
        energies = rows["energy"].to_numpy()
        assert (energies[1:] <= energies[:-1] * (1 + 1e-6)).all()
        assert energies[-1] < energies[0]
    assert result.folds == (0.0,)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("in_plane", [True, False])
def test_gauss_newton_finds_a_known_velocity(grid, make_image, make_velocity, make_config,
                                             symmetric, in_plane):  # fmt: skip
    moving = make_image(grid)
    truth = SVF(grid, make_velocity(grid, through=0.0)).displacement()
    fixed = ops.warp(moving, truth)
    config = make_config(iterations=(12, 12), in_plane=in_plane, symmetric=symmetric,
                         tolerance=1e-4)  # fmt: skip
    found = register(fixed, moving, grid, config=config).displacement
    # Motion through thick slices, where there is none, stays for the prior to hold down.
    assert far(found, truth, grid) < 0.45 * far(0 * truth, truth, grid)
    moved = ops.warp(moving, found)
    assert (moved - fixed).square().mean() < 0.05 * (moving - fixed).square().mean()


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("kind", [Affine, Rigid])
def test_linear_transforms_are_recovered(grid, make_image, make_config, solver, kind):
    moving = make_image(grid, width_mm=9.0)
    params = torch.tensor([[0.04, -0.03, 0.05, 1.0, -1.5, 0.8]])
    if kind is Affine:
        params = torch.zeros(1, 3, 4)
        params[0, :, 3] = torch.tensor([1.0, -1.5, 0.8])
        params[0, 0, 1], params[0, 1, 0], params[0, 2, 2] = 0.05, -0.04, 0.03
    truth = kind(grid, params).displacement()
    fixed = ops.warp(moving, truth)
    config = make_config(solver=solver, transform=kind.__name__.lower(), iterations=(60, 20),
                         tolerance=1e-6, terms={"similarity": "mse"},
                         learning_rate=0.2)  # fmt: skip
    found = register(fixed, moving, grid, config=config).displacement
    assert far(found, truth, grid, inner=6) < 0.15


def test_swapping_the_images_inverts_a_symmetric_result(pair, grid, make_config):
    fixed, moving, _ = pair
    config = make_config(iterations=(8, 8))
    there = register(fixed, moving, grid, config=config).transform
    back = register(moving, fixed, grid, config=config).transform
    torch.testing.assert_close(there.params, -back.params, atol=2e-3, rtol=0)


def test_translated_pairs_give_translated_fields(make_grid, make_image, make_config):
    grid = make_grid(shape=(5, 48, 48), spacing=(6.0, 1.5, 1.5))
    middle = torch.zeros(1, 1, *grid.shape)
    small = make_grid(shape=(5, 24, 24), spacing=(6.0, 1.5, 1.5))
    images = []
    for seed in (0, 1):
        blob = make_image(small, seed=seed, count=4, width_mm=4.0)
        h = torch.sin(torch.linspace(0, torch.pi, 24)).square()
        image = middle.clone()
        image[..., 12:36, 12:36] = blob * h.view(-1, 1) * h
        images.append(image)
    config = make_config(iterations=(6,), terms={"a": "mse", "b": ("diffusion", 0.02)})
    still = register(*images, grid, config=config).displacement
    shifted = [image.roll((5, -4), dims=(3, 4)) for image in images]
    other = register(*shifted, grid, config=config).displacement.roll((-5, 4), dims=(3, 4))
    part = (..., slice(12, 36), slice(12, 36))
    assert (still[part] - other[part]).abs().max() < 0.03 * still.abs().max()


def test_lbfgs_line_search_minimizes_a_quadratic_energy_fully(grid, make_image, make_config):
    image = make_image(grid)
    config = make_config(solver="lbfgs", transform="displacement", iterations=(30,),
                         terms={"a": "mse", "b": ("diffusion", 10.0)}, tolerance=0.0)  # fmt: skip
    noise = torch.randn(1, 3, *grid.shape, generator=torch.Generator().manual_seed(0))
    start = Displacement(grid, 0.2 * noise)
    result = register(image, image, grid, config=config, initial=start)
    energies = result.energies["energy"]
    assert energies.iloc[-1] < 1e-3 * energies.iloc[0]


def test_spectrum_is_the_diffusion_energy(grid):
    field = torch.randn(2, 3, *grid.shape, generator=torch.Generator().manual_seed(0))
    spectrum = Spectrum(grid.shape, spacing=grid.spacing, axes=(0, 1, 2),
                        terms={"s": Weighted(term=Diffusion(), weight=0.7)},
                        device=field.device)  # fmt: skip
    waves = spectrum.forward(field)
    expected = 0.7 * Diffusion().mean(field, spacing=grid.spacing)
    torch.testing.assert_close(spectrum.energy(waves), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(spectrum.backward(waves), field, atol=1e-5, rtol=0)


def test_spectrum_is_the_bending_energy_of_fields_that_are_flat_at_the_border(make_grid):
    grid = make_grid(shape=(11, 21, 23), spacing=(3.0, 1.5, 1.2))
    windows = [torch.sin(torch.linspace(0, torch.pi, n)) ** 4 for n in grid.shape]
    flat = windows[0].view(-1, 1, 1) * windows[1].view(-1, 1) * windows[2]
    noise = torch.randn(1, 3, *grid.shape, generator=torch.Generator().manual_seed(0))
    field = flat * ops.gaussian(noise, 1.5)
    spectrum = Spectrum(grid.shape, spacing=grid.spacing, axes=(0, 1, 2),
                        terms={"s": Weighted(term=Bending(), weight=2.0)},
                        device=field.device)  # fmt: skip
    expected = 2 * Bending().mean(field, spacing=grid.spacing)
    found = spectrum.energy(spectrum.forward(field))
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0)


def test_gauss_newton_names_the_terms_it_cannot_take(pair, grid, make_config):
    fixed, moving, _ = pair
    for terms, words in (({"a": "mi"}, "MI"), ({"a": "mse", "b": "elastic"}, "Elastic")):
        with pytest.raises(CardiogenError, match=rf"CG-M07 .*{words}.*adam or lbfgs"):
            register(fixed, moving, grid, config=make_config(terms=terms))


def test_pyramid_goes_from_coarse_to_the_problem_itself(pair, grid):
    problem = Problem(grid=grid, fixed=pair[0], moving=pair[1])
    levels = pyramid(problem, 3)
    assert levels[-1].grid.matches(grid)
    assert [p.grid.shape[0] for p in levels] == [7, 7, 7]
    assert all(p.grid.matches(grid.resized(p.grid.shape)) for p in levels)
    assert set(SOLVERS) == {"gauss_newton", "adam", "lbfgs"}


def test_unfold_removes_folds_and_leaves_other_pairs_alone(grid):
    calm = 0.1 * torch.ones(1, 3, *grid.shape)
    wild = torch.zeros(1, 3, *grid.shape)
    wild[:, 2, 3, 16, 16] = 3.0
    wild[:, 1, 3, 15, 17] = -3.0
    both = SVF(grid, torch.cat([calm, wild]), steps=1)
    assert ops.folding(both.displacement()).fraction[1] > 0
    flat, rounds = unfold(both)
    assert rounds > 0
    assert ops.folding(flat.displacement()).fraction.tolist() == [0.0, 0.0]
    assert torch.equal(flat.params[:1], calm)
    far_away = (..., slice(0, 8), slice(0, 8))
    assert torch.equal(flat.params[1:][far_away], wild[far_away])
