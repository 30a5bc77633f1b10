"""The Gaussian of latents given factors: its spreads at every sex and age."""

import numpy as np
import pytest
import torch

from cardiogen.base import keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.models.conditional_fit import fit_conditional
from cardiogen.models.protocol import encode_condition
from cardiogen.population import sample_conditions

TELLING = np.array([[1.0, 1.0, 1.0, 0.0, 0.0], [1.0, -1.0, 0.5, 0.0, 0.2]])


@pytest.fixture(scope="module")
def subjects():
    """Factors, and latents whose two phenotypes are correlated and spread against each other."""
    rng = np.random.default_rng(0)
    factors = [sample_conditions(keyed_rng(1, "test/spread", k)) for k in range(4000)]
    age = (np.array([f.age for f in factors]) - 50) / 20
    male = np.array([f.sex == "M" for f in factors])
    told = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], len(factors))
    told *= np.exp(np.stack([0.3 * age + 0.2 * male, -0.3 * age - 0.2 * male], axis=1))
    rest = rng.normal(size=(len(factors), 3))
    # Latents of which the phenotypes are the first two sums.
    latents = np.linalg.solve(
        np.concatenate([TELLING, np.eye(5)[2:]]), np.hstack([told, rest]).T
    ).T
    return factors, latents


def spread(gaussian, sex, age):
    condition = encode_condition(Factors(sex=sex, age=age, height=170.0, weight=75.0, sbp=130.0))
    covariance = gaussian.prior(condition).covariance.numpy()
    return np.sqrt(np.diag(TELLING @ covariance @ TELLING.T))


@pytest.mark.parametrize("sex", ["F", "M"])
@pytest.mark.parametrize("age", [30.0, 50.0, 70.0])
def test_phenotypes_told_have_their_spread_at_every_sex_and_age(subjects, sex, age):
    factors, latents = subjects
    gaussian = fit_conditional(latents, factors, telling=TELLING)
    way = 0.3 * (age - 50) / 20 + 0.2 * (sex == "M")
    np.testing.assert_allclose(spread(gaussian, sex, age), np.exp([way, -way]), rtol=0.12)


def test_by_default_latents_have_theirs_and_mixtures_do_not(subjects):
    factors, latents = subjects
    plain = fit_conditional(latents, factors)
    np.testing.assert_array_equal(plain.residual_axes, np.eye(5))
    way = np.exp([0.3 + 0.2, -0.3 - 0.2])
    assert np.abs(spread(plain, "M", 70.0) / way - 1).max() > 0.2


def test_pooled_covariance_does_not_depend_on_axes(subjects):
    factors, latents = subjects
    unknown = torch.full((5,), float("nan"), dtype=torch.float64)
    found = [
        fit_conditional(latents, factors, **told).prior(unknown).covariance
        for told in ({}, {"telling": TELLING})
    ]
    np.testing.assert_allclose(found[0], np.cov(latents.T), atol=0.15)
    np.testing.assert_allclose(found[1], np.cov(latents.T), atol=0.15)


def test_phenotypes_that_others_tell_change_nothing(subjects):
    factors, latents = subjects
    found = [
        fit_conditional(latents, factors, telling=np.concatenate([TELLING, more]))
        for more in (TELLING[:0], TELLING.sum(axis=0)[None])
    ]
    np.testing.assert_allclose(found[1].residual_axes, found[0].residual_axes, atol=1e-9)
