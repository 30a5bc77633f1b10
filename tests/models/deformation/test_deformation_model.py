"""The deformation model: scores to hearts and back, the protocol, bundles, completion."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models import encode_condition, load_model, save_model
from cardiogen.models.deformation.linearized import linearized
from cardiogen.models.deformation.modes import fit_modes, fourier_series
from cardiogen.models.deformation.patient_prior import any_health, follow_sizes
from cardiogen.models.deformation.phenotypes import mesh_sizes
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import Posterior
from cardiogen.population.pose import typical_pose
from cardiogen.population.render import render_labels, short_axis_grid

UNKNOWN = encode_condition(Factors())


@pytest.fixture(scope="module")
def latent(small_model):
    generator = torch.Generator().manual_seed(5)
    return small_model.prior(encode_condition(Factors(sex="M", age=50.0))).sample(generator)


def test_modes_round_trip_and_have_unit_variance(cohort):
    ed, motion = cohort.ed.astype(float), cohort.motion.astype(float)
    modes = fit_modes(ed, motion, ed_modes=4, fields=40, motion_modes=4)
    scores = modes.encode(ed, motion)
    np.testing.assert_allclose(scores.std(axis=0, ddof=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(scores.mean(axis=0), 0.0, atol=1e-6)
    again = modes.ed_velocity(torch.from_numpy(scores)).flatten(1).numpy()
    np.testing.assert_allclose(again, ed, atol=1e-3 * np.abs(ed).max())
    phases = np.array([0.0, 0.31, 0.62, 1.0])
    moved, told = (x.flatten(2).numpy() for x in modes.motion(torch.from_numpy(scores), phases))
    assert (moved[:, 0] == 0).all()
    np.testing.assert_allclose(moved[:, 3], 0.0, atol=1e-9)
    alone = modes.heart_velocities(scores[3], phases)
    np.testing.assert_allclose(alone[0].ravel(), again[3], atol=1e-9)
    np.testing.assert_allclose(alone[1].reshape(4, -1), moved[3], atol=1e-9)
    velocity, found = modes.heart_motion(scores[3], phases)
    np.testing.assert_array_equal(velocity, alone[1])
    np.testing.assert_allclose(found, told[3], atol=1e-7)
    # Fields are orthonormal: velocities have their coefficients.
    np.testing.assert_allclose(found, moved[3] @ modes.fields.T, atol=1e-7)


def test_fourier_series_recovers_its_coefficients():
    rng = np.random.default_rng(1)
    series = rng.normal(size=(2, 16, 5))
    phases = np.arange(24) / 24
    angle = 2 * np.pi * phases[:, None] * np.arange(1, 9)
    basis = np.concatenate([np.cos(angle) - 1, np.sin(angle)], axis=1)
    found = fourier_series(phases, np.einsum("tk,nkp->ntp", basis, series))
    np.testing.assert_allclose(found, series, atol=1e-9)


def test_decode_is_the_same_bits_for_any_phases_and_closes_exactly(small_model, latent):
    phases = np.arange(7) / 7
    whole = small_model.decode(latent, phases)
    for k in (0, 3, 6):
        np.testing.assert_array_equal(small_model.decode(latent, [phases[k]])[0], whole[k])
    np.testing.assert_array_equal(small_model.decode(latent, [1.0])[0], whole[0])
    scores = torch.from_numpy(small_model.scores(latent.numpy())).float()
    many = small_model.decoder.meshes(scores[None], phases)[0].double().numpy()
    np.testing.assert_allclose(many, whole, atol=1e-3)


def test_draws_of_this_prior_beat_and_do_not_fold(small_model):
    decoder = small_model.decoder
    prior = small_model.prior(UNKNOWN)
    for seed in range(3):
        z = prior.sample(torch.Generator().manual_seed(seed))
        ed, beat = decoder.modes.heart_velocities(z.numpy(), [0.35])
        fields = decoder.template.displacement(
            torch.from_numpy(np.concatenate([ed[None], beat])).float()
        )
        assert float(ops.folding(fields).fraction.max()) == 0.0
        volumes = mesh_volumes(small_model.decode(z, [0.0, 0.35]), small_model.topology)
        assert all((v > 0).all() for v in volumes.values())
        assert volumes[Structure.LV][1] < volumes[Structure.LV][0]


def test_end_systole_has_emptied_the_ventricle(small_model, latent):
    phase = small_model.end_systole(latent)
    assert 0.2 < phase < 0.6
    cycle = small_model.decode(latent, np.arange(50) / 50)
    volumes = mesh_volumes(cycle, small_model.topology)[Structure.LV]
    at = mesh_volumes(small_model.decode(latent, [phase]), small_model.topology)[Structure.LV][0]
    assert at <= volumes.min() + 0.0051 * (volumes[0] - volumes.min())


def test_gradients_reach_every_score(small_model, latent):
    scores = latent.float()[None].requires_grad_()
    mesh = small_model.decoder.meshes(scores, [0.0, 0.3])
    (mesh.square().mean()).backward()
    assert (scores.grad != 0).all()


def test_bundle_round_trip(small_model, latent, tmp_path):
    path = save_model(
        tmp_path / "b", small_model, name="d", training_data={"n": 80}, licence="x", card="# d\n"
    )
    again = load_model(path).model
    assert again.kind == "deformation"
    np.testing.assert_allclose(
        again.decode(latent, [0.2]), small_model.decode(latent, [0.2]), atol=1e-2
    )
    torch.testing.assert_close(again.prior(UNKNOWN).mean, small_model.prior(UNKNOWN).mean,
                               atol=1e-5, rtol=0)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"), [({"control_mm": 12.0}, "control points"), ({"spacing_mm": "x"}, "float")]
)
def test_bundle_of_another_lattice_is_refused(small_model, tmp_path, change, words):
    architecture = small_model.architecture()
    small_model_like = type("M", (), {
        "kind": "deformation", "tensors": small_model.tensors,
        "condition_ranges": small_model.latents.condition_ranges,
        "architecture": lambda self: architecture | change,
    })()  # fmt: skip
    path = save_model(tmp_path / "b", small_model_like, name="d", training_data={}, licence="x",
                      card="#")  # fmt: skip
    json.loads((path / "model.json").read_text())
    with pytest.raises(CardiogenError, match=f"CG-M04 .*{words}"):
        load_model(path)


def observed_at(model, latent, phases):
    """Label maps of a decoded heart on a stack of 6 mm slices."""
    pose = typical_pose()
    meshes = pose.to_world(model.decode(latent, phases))
    grid = short_axis_grid(meshes, pose, (6.0, 1.6, 1.6))
    labels = np.stack([render_labels(mesh, model.topology, grid) for mesh in meshes])
    return Sequence(phases=np.asarray(phases), labels=labels, grid=grid, orientation="trusted")


@pytest.mark.parametrize("phases", [[0.0], [0.0, 0.3]])
def test_linearized_hearts_have_the_derivatives_of_decoding(small_model, latent, phases):
    z, way = latent.numpy() * 0.5, np.random.default_rng(0).normal(size=len(latent))
    meshes, slopes = linearized(small_model, phases)(z)
    np.testing.assert_allclose(meshes, small_model.decode(torch.from_numpy(z), phases), atol=1e-4)
    ahead, behind = (
        small_model.decode(torch.from_numpy(z + step * way), phases) for step in (0.1, -0.1)
    )
    measured = ((ahead - behind) / 0.2).reshape(len(phases), -1)
    np.testing.assert_allclose(slopes @ way, measured, atol=0.1 * np.abs(measured).max())


def test_posterior_finds_the_heart_that_was_observed(small_model, latent):
    observed = observed_at(small_model, latent, [0.0, 0.3])
    found = small_model.posterior(observed, UNKNOWN, healthy=True)
    prior, spread = small_model.prior(UNKNOWN).covariance, found.latents.covariance
    assert float(spread.trace()) < 0.25 * float(prior.trace())
    mean = found.latents.mean
    truth = typical_pose().to_world(small_model.decode(latent, [0.0, 0.3, 0.6]))
    guess = found.pose.to_world(small_model.decode(mean, [0.0, 0.3, 0.6]))
    assert np.sqrt(((guess - truth) ** 2).sum(-1).mean()) < 1.5


def test_disease_widens_the_prior_and_lowers_ejection(small_model):
    prior = small_model.prior(UNKNOWN)
    mean, covariance = prior.mean.numpy(), prior.covariance.numpy()
    maps, shapes = small_model.phenotypes, small_model.decoder.modes.ed_size
    wall = 0.02 * np.random.default_rng(1).normal(size=len(mean))
    ill = any_health(maps, wall, mean, covariance, shapes)
    np.linalg.cholesky(ill.covariance)
    weights = maps.phenotype_weights
    before, after = weights @ mean, weights @ ill.mean
    assert after[1] < before[1] - 0.2
    lvef = weights[1]
    assert np.sqrt(lvef @ ill.covariance @ lvef) > np.sqrt(lvef @ covariance @ lvef)
    # Muscle is not compressed, however large or odd a heart is.
    assert wall @ ill.mean == pytest.approx(wall @ mean, abs=1e-6)
    assert np.sqrt(wall @ ill.covariance @ wall) < np.sqrt(wall @ covariance @ wall) + 0.04
    far = np.random.default_rng(0).normal(size=shapes) * 10
    tells = ill.covariance[shapes:, :shapes] @ np.linalg.inv(ill.covariance[:shapes, :shapes])
    assert abs(wall[:shapes] @ far + wall[shapes:] @ tells @ far) < 0.02


def test_motion_follows_sizes_that_scores_tell_badly(small_model):
    prior = small_model.prior(UNKNOWN)
    maps, shapes = small_model.phenotypes, small_model.decoder.modes.ed_size
    ill = any_health(maps, None, prior.mean.numpy(), prior.covariance.numpy(), shapes)
    factor = torch.from_numpy(np.linalg.cholesky(ill.covariance))[None]
    before = Posterior(GaussianMixture(torch.ones(1).double(), torch.tensor(ill.mean)[None],
                                       factor), typical_pose())  # fmt: skip
    # Sizes are told by shape alone.
    shown = np.arange(len(ill.mean)) < shapes
    rest = small_model.decode(before.latents.mean, [0.0])[0]
    sizes = mesh_sizes(rest, small_model.topology)
    told = maps.phenotype_bias + maps.phenotype_weights @ ill.healthy
    told = (told + (maps.phenotype_weights * shown) @ (ill.mean - ill.healthy))[[0, 2, 3]]
    after = follow_sizes(small_model, before, ill)
    moved = (after.latents.mean - before.latents.mean).numpy()
    np.testing.assert_allclose(moved, ill.by_sizes @ (sizes - told), atol=1e-6)
    assert np.abs(moved[:shapes]).max() < 1e-9
    # What was seen stays as it was seen.
    sure = np.linalg.inv(np.linalg.inv(ill.covariance) + 1e6 * np.eye(len(ill.mean)))
    seen = replace(before.latents, factors=torch.from_numpy(np.linalg.cholesky(sure))[None])
    held = follow_sizes(small_model, replace(before, latents=seen), ill).latents.mean
    assert np.abs((held - before.latents.mean).numpy()).max() < 0.01 * np.abs(moved).max()
    # A left ventricle larger than it is told to be ejects less of itself.
    assert maps.phenotype_weights[1] @ ill.by_sizes[:, 0] < -0.2


def test_shapes_that_fold_are_no_hearts(small_model):
    latent = small_model.prior(UNKNOWN).mean
    assert small_model.is_possible(latent)
    far = latent.clone()
    far[:4] = 60.0
    assert not small_model.is_possible(far)
    far[:4] = torch.nan
    assert not small_model.is_possible(far)
