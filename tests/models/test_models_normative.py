"""Normative deviation: closed forms, its parts, and hearts that are healthy or are not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.measure.distribution import conformal_p_values
from cardiogen.models import encode_condition
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.normative import (
    LatentParts,
    Setting,
    deviation,
    expected_deviations,
    healthy_heart,
    latent_parts,
    norm_latents,
    observe,
    outward_shift,
    reference_deviation,
    score_posterior,
    z_scores,
)
from cardiogen.models.protocol import Posterior
from cardiogen.population import Pose, heart_vertices, short_axis_grid, typical_pose

WOMAN = Factors(age=60, sex="F", height=164, weight=68, sbp=130)


def spd(size, seed):
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T + 0.1 * np.eye(size)


@pytest.fixture(scope="module")
def parts():
    """Seven latents, of which the first four act at end diastole."""
    size = np.zeros((3, 7))
    size[:, :4] = np.random.default_rng(2).normal(size=(3, 4))
    return LatentParts(size, np.arange(7) < 4)


def test_what_was_not_seen_does_not_deviate(parts):
    covariance = spd(7, 0)
    found = deviation(np.ones(7), covariance, np.ones(7), covariance, parts)
    assert np.array_equal(found, np.zeros(4))


def test_exactly_seen_it_is_the_mahalanobis_distance(parts):
    covariance, mean, z = spd(7, 0), np.arange(7.0), np.linspace(-2, 3, 7)
    found = deviation(mean, covariance, z, np.zeros((7, 7)), parts)
    exact = (z - mean) @ np.linalg.solve(covariance, z - mean)
    assert found[0] == pytest.approx(exact / 1.1)


def test_parts_are_not_negative_and_add_up(parts):
    z = np.random.default_rng(3).normal(size=(50, 7))
    found = deviation(np.zeros(7), spd(7, 1), z, 0.3 * spd(7, 1), parts)
    assert found.shape == (50, 4)
    assert (found > -1e-9).all()
    assert np.allclose(found[:, 1:].sum(axis=1), found[:, 0])


def test_it_does_not_depend_on_the_units_of_latents(parts):
    change = np.diag([2.0, 0.1, 5.0, 1.0, 3.0, 0.5, 7.0])
    covariance, uncertainty = spd(7, 1), 0.2 * spd(7, 1)
    z, inverse = np.linspace(-1, 1, 7), np.linalg.inv(change)
    other = LatentParts(parts.size @ inverse, parts.ed)
    before = deviation(np.zeros(7), covariance, z, uncertainty, parts)
    after = deviation(
        np.zeros(7), change @ covariance @ change, change @ z, change @ uncertainty @ change, other
    )
    assert np.allclose(before, after)


@pytest.fixture(scope="module")
def seen(shipped):
    """A posterior that knows the ED latents by half their variance, and what they act on."""
    model, condition = shipped.model, encode_condition(WOMAN)
    prior = model.prior(condition)
    found = latent_parts(model, prior.mean)
    root = np.linalg.cholesky(prior.covariance.numpy())
    latents = GaussianMixture(
        torch.ones(1, dtype=torch.float64), prior.mean[None],
        torch.from_numpy(np.sqrt(0.5) * root)[None],
    )  # fmt: skip
    return Posterior(latents, typical_pose()), found


def test_latent_parts_of_the_linear_model(shipped, seen):
    _, parts = seen
    # Ejection fraction, ratio of strokes and motion do not show at end diastole.
    ed_modes = len(shipped.model.weights.ed_modes)
    assert parts.ed.sum() == ed_modes - 2
    assert not parts.ed[ed_modes:].any()
    scale = shipped.model.weights.scale
    expected = np.zeros_like(parts.size)
    expected[0, 0], expected[1, 2], expected[2, 3] = scale[[0, 2, 3]]
    assert np.abs(parts.size - expected).max() < 0.02


def test_expected_deviations_match_their_chi_squares(shipped, seen):
    posterior, parts = seen
    found = expected_deviations(
        shipped.model, posterior, encode_condition(WOMAN), parts, draws=400, seed=1
    )
    # With half of the variance seen every latent counts 0.5 / 0.6.
    sizes = [shipped.model.latent_size, 3, parts.ed.sum() - 3, (~parts.ed).sum()]
    for values, size in zip(found.T, sizes, strict=True):
        assert values.mean() == pytest.approx(size * 0.5 / 0.6, abs=5 * np.sqrt(2 * size / 400))
    again = expected_deviations(
        shipped.model, posterior, encode_condition(WOMAN), parts, draws=400, seed=1
    )
    assert np.array_equal(found, again)
    score = score_posterior(shipped.model, posterior, encode_condition(WOMAN), parts)
    assert np.abs(score).max() < 1e-12


def test_norm_latents_are_a_prefix_of_more(shipped):
    few, more = (
        norm_latents(shipped.model, encode_condition(WOMAN), draws=n, seed=2) for n in (2, 5)
    )
    assert all(torch.equal(a, b) for a, b in zip(few, more, strict=False))


def test_z_scores_and_percentiles():
    draws = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]])
    z, percentile = z_scores([3.0, 2.0], draws)
    assert z[0] == 0
    assert percentile[0] == 50
    assert np.isnan([z[1], percentile[1]]).all()
    z, percentile = z_scores([7.0, 2.0], draws)
    assert z[0] == 2
    assert percentile[0] == 100 * 3.5 / 4


def test_outward_shift_of_a_swollen_tetrahedron():
    mean = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    shift = outward_shift(np.stack([1.1 * mean, 0.8 * mean]), mean, faces)
    assert np.allclose(np.abs(shift), np.sqrt(3) * np.array([[0.1], [0.2]]))
    assert (shift[0] * shift[1] < 0).all()


@pytest.fixture(scope="module")
def setting():
    """End diastole on a coarse stack around a healthy heart."""
    heart, pose = healthy_heart(WOMAN, seed=4, index=0), typical_pose()
    vertices = pose.to_world(heart_vertices(heart.coordinates([0.0])))
    grid = short_axis_grid(vertices, pose, (9.0, 3.0, 3.1))
    return Setting(factors=WOMAN, grid=grid, pose=pose, phases=np.zeros(1))


def test_healthy_hearts_have_the_known_factors_and_lie_on_the_grid(setting):
    hearts = [healthy_heart(Factors(age=60), seed=4, index=k) for k in range(8)]
    assert {h.factors.age for h in hearts} == {60.0}
    assert {h.factors.sex for h in hearts} == {"F", "M"}
    seen = observe(healthy_heart(WOMAN, seed=4, index=0), setting)
    assert seen.orientation == "trusted"
    volume = (seen.labels[0] == Structure.LV).sum() * setting.grid.voxel_volume_ml
    truth = healthy_heart(WOMAN, seed=4, index=0).phenotypes.lvedv
    assert volume == pytest.approx(truth, rel=0.05)
    axes = setting.pose.axes * np.array([1.0, -1.0, 1.0])
    turned = replace(setting, pose=Pose(axes, setting.pose.origin))
    assert observe(healthy_heart(WOMAN, seed=4, index=0), turned).orientation == "mirrored"


def test_a_reference_heart_is_scored_and_a_lost_one_is_told(shipped, seen, setting):
    _, parts = seen
    found = reference_deviation(shipped.model, setting, parts, seed=4, index=0)
    assert found.shape == (4,)
    assert found[0] > 0
    assert found[3] == pytest.approx(0, abs=1e-6), "motion was not seen"
    away = replace(setting, pose=Pose(setting.pose.axes, np.array([500.0, 0, 0])))
    assert reference_deviation(shipped.model, away, parts, seed=4, index=0) is None
    with pytest.raises(CardiogenError, match="D01"):
        reference_deviation(
            shipped.model, replace(setting, factors=Factors(age=90)), parts, seed=4, index=0
        )


def test_ranks_of_hearts_from_the_norm_are_uniform(parts):
    rng = np.random.default_rng(5)
    covariance, uncertainty = spd(7, 1), 0.4 * spd(7, 1)
    root = np.linalg.cholesky(covariance - uncertainty)
    scores = deviation(
        np.zeros(7), covariance, rng.normal(size=(700, 7)) @ root.T, uncertainty, parts
    )[:, 0]
    p = conformal_p_values(scores[:200], scores[200:])
    assert 0.01 < (p <= 0.05).mean() < 0.1
