"""The plain baseline: exact on linear populations, periodic, and whole in its bundle."""

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.cli.train import train
from cardiogen.data.factors import Factors
from cardiogen.engine.config import PcaTraining
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models import encode_condition, load_model, save_model
from cardiogen.models.pca import (
    CYCLE_PHASES,
    CycleModes,
    Cycles,
    cycle_basis,
    fit_pca,
    motion_series,
    pca_from_population,
    population_cycles,
)
from cardiogen.models.principal import directions, principal
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import sample_heart

UNKNOWN = encode_condition(Factors())


def saved(model, folder, **changes):
    settings = {
        "name": "small", "training_data": {"cohort": "population", "n": 70, "seed": 1},
        "licence": "Apache-2.0", "card": "# small\n",
    }  # fmt: skip
    return save_model(folder, model, **(settings | changes))


def test_functions_of_time_are_orthonormal_and_vanish_at_end_diastole():
    times = np.arange(90) / 90.0
    basis = cycle_basis(times)
    np.testing.assert_allclose(basis.T @ basis / 90, np.eye(16), atol=1e-12)
    assert not cycle_basis([0.0, 1.0, -3.0]).any()


def test_series_of_a_cycle_gives_the_cycle_back(hearts):
    series = motion_series(CYCLE_PHASES, hearts[0])
    moved = np.einsum("tk,kp->tp", cycle_basis(CYCLE_PHASES), series)
    back = hearts[0, 0] + moved.reshape(hearts[0].shape)
    # Nineteen frames, sixteen functions.
    assert np.sqrt(((back - hearts[0]) ** 2).sum(-1).mean()) < 0.05


@pytest.mark.parametrize(("rows", "columns"), [(7, 40_000), (30, 11)])
def test_principal_components_are_those_of_the_covariance(rows, columns):
    rng = np.random.default_rng(5)
    plain = rng.normal(size=(rows, 4)) * [9.0, 5.0, 2.0, 1.0] @ rng.normal(size=(4, columns)) + 3.0
    mean, modes, scale = principal(plain.astype(np.float32), 20)
    # No more components than the rank; float32 rows leave some of their rounding beside them.
    modes, scale = modes[:4], scale[:4]
    np.testing.assert_allclose(modes @ modes.T, np.eye(4), atol=1e-6)
    centered = plain - plain.mean(axis=0)
    np.testing.assert_allclose(mean, plain.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(centered @ modes.T @ modes, centered, atol=1e-4)
    found = (centered @ modes.T).std(axis=0, ddof=1)
    np.testing.assert_allclose(scale, found, rtol=1e-5)
    assert (np.diff(scale) < 0).all()
    assert len(directions(plain, 20)[0]) == 5  # the mean is a direction of uncentered rows


def test_modes_recover_a_linear_population_exactly(cohort):
    modes = CycleModes.fit(cohort.ed, cohort.motion, ed_modes=3, motion_modes=2)
    scores = modes.encode(cohort.ed, cohort.motion)
    np.testing.assert_allclose(scores.mean(axis=0), 0.0, atol=1e-9)
    block = np.cov(scores[:, :3].T)
    np.testing.assert_allclose(block, np.eye(3), atol=1e-9)
    phases = [0.0, 0.13, 0.41, 0.8]
    wanted = cohort.ed[4] + np.einsum("tk,kp->tp", cycle_basis(phases), cohort.motion[4])
    found = modes.decode(scores[4], phases)
    np.testing.assert_allclose(found.reshape(4, -1), wanted, atol=1e-8)


def test_design_is_the_derivative_of_decoding(small_pca):
    modes = small_pca.modes
    scores = np.array([0.4, -1.0, 0.2, 0.9, -0.3])
    for phase in (0.0, 0.37):
        mean, matrix = modes.design(phase)
        np.testing.assert_allclose(
            mean + matrix @ scores, modes.decode(scores, [phase]).ravel(), atol=1e-9
        )


def test_decoding_gives_the_same_bits_for_any_frames_and_closes(small_pca):
    latent = small_pca.prior(UNKNOWN).sample(torch.Generator().manual_seed(4))
    phases = np.array([0.0, 0.21, 0.5, 0.77, 1.0])
    together = small_pca.decode(latent, phases)
    alone = np.concatenate([small_pca.decode(latent, [p]) for p in phases])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[0], together[-1])
    assert together.dtype == np.float64
    assert small_pca.decode(latent, []).shape == (0, *together.shape[1:])


def test_prior_follows_the_factors_of_a_linear_population(small_pca):
    young, old = (
        small_pca.prior(encode_condition(Factors(age=age, sex="F"))).mean.numpy()
        for age in (30.0, 80.0)
    )
    # 0.05 times 50 years, in units of the first shape of the cohort.
    direction = small_pca.modes.decode(old, [0.0]) - small_pca.modes.decode(young, [0.0])
    assert np.sqrt((direction**2).sum(-1).mean()) > 1.0
    assert small_pca.is_possible(torch.from_numpy(old))


def test_end_systole_is_the_least_volume(small_pca):
    latent = small_pca.prior(UNKNOWN).mean
    systole = small_pca.end_systole(latent)
    volumes = mesh_volumes(small_pca.decode(latent, np.arange(50) / 50), small_pca.topology)
    for left in list(volumes.values())[:1]:
        assert left[round(50 * systole)] < left.min() + 0.02 * (left[0] - left.min())
    assert 0.2 < systole < 0.6


def test_hearts_turned_inside_out_are_not_possible(small_pca):
    latent = small_pca.prior(UNKNOWN).mean
    assert small_pca.is_possible(latent)
    assert not small_pca.is_possible(latent + 500.0)
    assert not small_pca.is_possible(latent * np.nan)


def test_bundle_keeps_every_bit(small_pca, tmp_path):
    loaded = load_model(saved(small_pca, tmp_path / "b"))
    assert loaded.facts["kind"] == "pca"
    latent = small_pca.prior(UNKNOWN).sample(torch.Generator().manual_seed(1))
    again = loaded.model.prior(UNKNOWN).sample(torch.Generator().manual_seed(1))
    assert torch.equal(latent, again)
    phases = [0.0, 0.3]
    np.testing.assert_array_equal(
        small_pca.decode(latent, phases), loaded.model.decode(latent, phases)
    )
    assert loaded.model.architecture() == small_pca.architecture()
    assert loaded.model.condition_ranges() == small_pca.condition_ranges()


@pytest.mark.parametrize("name", ["ed_mean", "motion_modes", "motion_scale", "rest_noise_modes"])
def test_bundle_of_tensors_that_do_not_fit_is_refused(small_pca, tmp_path, monkeypatch, name):
    tensors = small_pca.tensors()
    axis = -1 if name != "motion_scale" else 0
    tensors[name] = np.take(tensors[name], range(tensors[name].shape[axis] - 1), axis=axis)
    monkeypatch.setattr(small_pca, "tensors", lambda: tensors, raising=True)
    folder = saved(small_pca, tmp_path / "b")
    with pytest.raises(CardiogenError, match=f"CG-M04 .*{name} of shape"):
        load_model(folder)


def test_bundle_without_a_noise_is_refused(small_pca, tmp_path, monkeypatch):
    facts = small_pca.architecture() | {"beat_floor_mm": 0.0}
    monkeypatch.setattr(small_pca, "architecture", lambda: facts)
    with pytest.raises(CardiogenError, match=r"CG-M04 .*beat_floor_mm.*positive"):
        load_model(saved(small_pca, tmp_path / "b"))


def test_factors_outside_the_data_are_refused(small_pca):
    ranges = small_pca.condition_ranges()
    with pytest.raises(CardiogenError, match="CG-D01 age"):
        small_pca.check_condition(encode_condition(Factors(age=120.0)))
    # Each alone was seen.
    odd = Factors(sex="M", height=ranges["height"][0], weight=ranges["weight"][1])
    with pytest.raises(CardiogenError, match="CG-D02 factors"):
        small_pca.check_condition(encode_condition(odd))


def test_small_cohorts_are_refused(cohort, held, fitted):
    few = Cycles(cohort.ed[:20], cohort.motion[:20], cohort.factors[:20])
    with pytest.raises(CardiogenError, match=r"CG-C28 cohort: found .* women and .* men"):
        fit_pca(few, held, fitted, ed_modes=3, motion_modes=2)


def test_population_hearts_are_those_of_the_other_models():
    from cardiogen.models.linear_fit import population_example

    cycles = population_cycles(2, 5, first=3)
    for k in range(2):
        wanted = population_example(5, 3 + k).factors
        assert cycles.factors[k] == wanted
        heart = sample_heart(5, 3 + k, Factors(age=wanted.age))
        np.testing.assert_allclose(
            cycles.ed[k], heart_vertices(heart.coordinates([0.0])).ravel(), atol=1e-4
        )
    np.testing.assert_array_equal(population_cycles(1, 5, first=4).motion[0], cycles.motion[1])


def test_command_trains_and_says_what_it_is(cohort, held, fitted, tmp_path, monkeypatch):
    seen = []

    def drawn(n, seed, *, first=0, jobs):
        seen.append((n, seed, first, jobs))
        return held if first else cohort

    def fits(n, seed, *, first, jobs):
        seen.append((n, seed, first, jobs))
        return fitted

    monkeypatch.setattr("cardiogen.models.pca.training.population_cycles", drawn)
    monkeypatch.setattr("cardiogen.models.pca.training.fitted_population", fits)
    folder = train(tmp_path / "b", model="pca", n=70, seed=9, jobs=3)
    # The hearts that tell the noise are not those that the modes come from.
    assert seen == [(32, 9, 70, 3), (32, 9, 70, 3), (70, 9, 0, 3)]
    assert load_model(folder).model.latent_size == 5
    assert "3 end-diastolic and 2 motion scores" in (folder / "card.md").read_text()


def test_settings_have_the_defaults_of_the_function():
    settings = PcaTraining()
    default = pca_from_population.__kwdefaults__
    told = (settings.ed_modes, settings.motion_modes, settings.fits)
    assert told == tuple(default[name] for name in ("ed_modes", "motion_modes", "fits"))
