"""Scores given meshes: the laws of Gaussians, any pose, and label maps."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence
from cardiogen.models import encode_condition
from cardiogen.models.fit_noise import FitNoise, MeshNoise
from cardiogen.models.mesh_posterior import Frames, condition_on_meshes
from cardiogen.population.pose import Pose
from cardiogen.population.render import render_sequence, short_axis_grid

UNKNOWN = encode_condition(Factors())
SCORES = np.array([0.8, -1.1, 0.4, 0.9, -0.6])
AXES = Rotation.from_rotvec([0.4, -0.9, 1.3]).as_matrix()
ORIGIN = np.array([31.0, -12.0, 140.0])
NEAR = Rotation.from_rotvec([0.02, -0.03, 0.05]).as_matrix()


def conditioned(model, pose, phases, *, start=None, noise=None):
    vertices = pose.to_world(model.modes.decode(SCORES, phases))
    prior = model.prior(UNKNOWN)
    return condition_on_meshes(
        model.modes.designs(phases), noise or model.noise,
        Frames(vertices, np.array(phases), [0.5] * len(phases)), start or pose,
        prior.mean.numpy(), prior.covariance.numpy(),
    )  # fmt: skip


@pytest.mark.parametrize("mirrored", [False, True])
def test_all_vertices_of_two_frames_give_scores_and_pose(small_pca, mirrored):
    axes = AXES * np.array([1.0, 1.0, -1.0 if mirrored else 1.0])
    pose = Pose(axes, ORIGIN)
    start = Pose(axes @ NEAR, ORIGIN + np.array([2.0, -3.0, 1.0]))
    exact = MeshNoise(np.zeros((0, small_pca.modes.ed_mean.size)), 0.01)
    sharp = FitNoise(exact, exact, 1.0)
    mean, covariance, found = conditioned(small_pca, pose, [0.0, 0.4], start=start, noise=sharp)
    np.testing.assert_allclose(mean, SCORES, atol=1e-3)
    assert np.sqrt(np.diag(covariance)).max() < 0.01
    np.testing.assert_allclose(found.axes, pose.axes, atol=1e-4)
    np.testing.assert_allclose(found.origin, ORIGIN, atol=1e-2)
    assert found.mirrored == mirrored


def test_end_diastole_alone_leaves_motion_to_the_prior(small_pca):
    pose = Pose(AXES, ORIGIN)
    mean, covariance, _ = conditioned(small_pca, pose, [0.0])
    prior = small_pca.prior(UNKNOWN)
    before = prior.covariance.numpy()
    np.testing.assert_allclose(mean[:3], SCORES[:3], atol=0.05)
    # Motion moves by its regression on shape, and keeps the rest of its spread.
    gain = before[3:, :3] @ np.linalg.inv(before[:3, :3])
    np.testing.assert_allclose(
        mean[3:], (prior.mean.numpy()[3:] + gain @ (mean - prior.mean.numpy())[:3]), atol=1e-6
    )
    left = before[3:, 3:] - gain @ before[:3, 3:]
    rest = covariance[3:, 3:] - gain @ covariance[:3, :3] @ gain.T
    np.testing.assert_allclose(rest, left, atol=1e-6)


def test_more_frames_and_better_fits_tell_more(small_pca):
    pose = Pose(AXES, ORIGIN)
    spreads = [
        np.linalg.slogdet(conditioned(small_pca, pose, phases)[1])[1]
        for phases in ([0.0], [0.0, 0.3], [0.0, 0.3, 0.5])
    ]
    assert (np.diff(spreads) < 0).all()
    matrix = small_pca.modes.design(0.0)[1]
    typical, poor = (
        matrix.T @ small_pca.noise.weighted(matrix, 0.0, rms_mm=rms)
        for rms in (small_pca.noise.rms_mm, 3 * small_pca.noise.rms_mm)
    )
    np.testing.assert_allclose(typical, 9 * poor)


def test_noise_weighs_as_the_inverse_of_its_covariance():
    rng = np.random.default_rng(0)
    errors = (
        rng.normal(size=(40, 6))
        @ np.diag([3.0, 2.0, 1.0, 0.5, 0.3, 0.2])
        @ rng.normal(size=(6, 15))
    )
    noise = MeshNoise.of(errors)
    covariance = noise.floor_mm**2 * np.eye(15) + noise.modes.T @ noise.modes
    found = noise.weighted(np.eye(15))
    np.testing.assert_allclose(found, np.linalg.inv(covariance), rtol=1e-6, atol=1e-8)
    # Along the errors' own directions it has their second moments.
    values, vectors = np.linalg.eigh(errors.T @ errors / 40)
    seen = vectors[:, -6:]
    np.testing.assert_allclose(
        np.diag(seen.T @ covariance @ seen), np.maximum(values[-6:], noise.floor_mm**2)
    )
    np.testing.assert_allclose(noise.floor_mm**2, values[-6])


@pytest.mark.parametrize(("phase", "sd"), [(0.0, 0.8), (0.97, 0.8), (0.4, 2.4)])
def test_noise_of_a_model_holds_the_errors_it_was_shown(small_pca, phase, sd):
    """Fits were off to the apex by 0.8 mm at end diastole, by 2.4 mm later; never to a side."""
    size = small_pca.modes.ed_mean.size
    shifts = np.tile(np.eye(3), (size // 3, 1))
    along, across = (
        shifts[:, k] @ small_pca.noise.weighted(shifts[:, k : k + 1], phase, rms_mm=0.1)[:, 0]
        for k in (2, 0)
    )
    # Eight errors tell a variance to about one half.
    assert 0.3 < along * sd**2 < 4.0
    assert across > 100 * along


@pytest.mark.slow
def test_label_maps_give_the_heart_back(small_pca):
    latent = torch.from_numpy(SCORES)
    pose = Pose(AXES, ORIGIN)
    phases = np.array([0.0, 0.4])
    truth = small_pca.decode(latent, phases)
    world = pose.to_world(truth)
    grid = short_axis_grid(world, pose, (2.5, 2.0, 2.0))
    seen = Sequence(
        phases=phases, grid=grid, labels=render_sequence(world, small_pca.topology, grid)
    )
    found = small_pca.posterior(seen, UNKNOWN)
    assert found.margin is None
    meshes = found.pose.to_world(small_pca.decode(found.latents.mean, phases))
    assert np.sqrt(((meshes - world) ** 2).sum(-1).mean()) < 1.0
    with pytest.raises(CardiogenError, match="CG-L37"):
        small_pca.posterior(seen.with_(labels=np.minimum(seen.labels, 1)), UNKNOWN)
