"""Completion: what one label map tells of a heart that the model never saw."""

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.models import encode_condition
from cardiogen.models.completion import any_health
from cardiogen.models.cycle import decode_phenotypes, encode_cycle
from cardiogen.models.disease import disease_covariance
from cardiogen.population import (
    heart_vertices,
    render_labels,
    sample_heart,
    short_axis_grid,
    template_topology,
)

TOPOLOGY = template_topology()
TRAINING = np.arange(40) / 40


@pytest.fixture(scope="module")
def heart():
    return sample_heart(777, 5)


@pytest.fixture(scope="module")
def observed(heart):
    """The end-diastolic label map of a clinical stack."""
    vertices = heart.vertices([0.0])
    grid = short_axis_grid(vertices, heart.pose, (8.0, 1.5, 1.5))
    labels = render_labels(vertices[0], TOPOLOGY, grid)[None]
    return Sequence(phases=np.zeros(1), labels=labels, grid=grid, factors=heart.factors)


@pytest.fixture(scope="module")
def posterior(shipped, heart, observed):
    condition = encode_condition(heart.factors)
    return shipped.model.posterior(observed, condition, healthy=True)


def test_posterior_finds_the_volumes_of_ed(shipped, heart, posterior):
    found = decode_phenotypes(shipped.model.cycle_vector(posterior.latents.mean))
    truth = heart.phenotypes
    for name in ("lvedv", "lvm", "rvedv"):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.04), name
    # ED alone says little of the ejection fraction: it stays near what the factors tell.
    assert abs(found.lvef - truth.lvef) < 15.0


def test_posterior_finds_the_ed_mesh(shipped, heart, posterior):
    mesh = posterior.pose.to_world(shipped.model.decode(posterior.latents.mean, [0.0]))[0]
    error = np.linalg.norm(mesh - heart.vertices([0.0])[0], axis=1)
    assert np.sqrt(np.mean(error**2)) < 3.0
    assert np.linalg.norm(posterior.pose.origin - heart.pose.origin) < 4.0


def test_posterior_knows_more_than_the_prior(shipped, heart, posterior):
    prior = shipped.model.prior(encode_condition(heart.factors)).covariance
    after = posterior.latents.covariance
    ratio = (after.diagonal() / prior.diagonal()).sqrt()
    assert (ratio < 1.0 + 1e-6).all()
    assert ratio[[0, 2, 3]].max() < 0.5, "volumes and mass were seen"
    # As matrices: no direction is known less than before.
    gain = torch.linalg.eigvalsh(prior - after)
    assert gain.min() > -1e-6 * gain.max()


def test_posterior_covers_the_truth(shipped, heart, posterior):
    vector = encode_cycle(TRAINING, heart.coordinates(TRAINING))
    truth = shipped.model.encode_vector(vector)
    spread = posterior.latents.covariance.diagonal().sqrt()
    off = ((truth - posterior.latents.mean) / spread).abs()
    assert off[:4].max() < 4.0
    assert (off < 2.0).double().mean() > 0.8


def test_posterior_refuses_incomplete_frames(shipped, observed):
    broken = observed.labels.copy()
    broken[broken == Structure.RV] = 0
    with pytest.raises(CardiogenError, match="CG-L37 heart, frame 0: found no voxel of RV"):
        shipped.model.posterior(observed.with_(labels=broken), encode_condition(Factors()))


def test_disease_widens_and_lowers_ejection(shipped):
    model = shipped.model
    prior = model.prior(encode_condition(Factors(age=60.0, sex="M")))
    mean, covariance = any_health(model, prior.mean.numpy(), prior.covariance.numpy())
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert np.linalg.eigvalsh(covariance - prior.covariance.numpy()).min() > -1e-8
    healthy, ill = (
        decode_phenotypes(model.cycle_vector(torch.as_tensor(m))) for m in (prior.mean, mean)
    )
    assert ill.lvef < healthy.lvef - 5.0
    assert ill.lvedv == pytest.approx(healthy.lvedv, rel=0.02)
    assert np.isfinite(
        heart_vertices(model.coordinates(torch.from_numpy(mean), [0.0, 0.36]))
    ).all()


def test_a_large_left_ventricle_ejects_as_much_as_the_right_one():
    spread = disease_covariance()
    assert np.linalg.eigvalsh(spread).min() > 0
    # Twice the volume beside a right ventricle of usual size: ln LVEDV, ln RVEDV.
    tells = spread[[1, 4]][:, [0, 3]] @ np.linalg.inv(spread[np.ix_([0, 3], [0, 3])])
    odds, ratio = tells @ np.array([np.log(2.0), 0.0])
    assert odds < -0.9
    assert abs(ratio) < 0.3
    # A small right one alone says that both are small of stroke.
    assert (tells @ np.array([0.0, -np.log(2.0)]))[0] < -0.3
