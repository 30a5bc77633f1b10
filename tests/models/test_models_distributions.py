"""The mixture of Gaussians against torch.distributions, and with its own generator only."""

import pytest
import torch

from cardiogen.models.distributions import GaussianMixture


@pytest.fixture
def mixture():
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64).tril()
    factors = factors + 2.0 * torch.eye(4, dtype=torch.float64) * factors.sign()
    factors = factors * factors.diagonal(dim1=1, dim2=2).sign()[:, None, :]
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    means = 3.0 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    return GaussianMixture(weights, means, factors)


@pytest.fixture
def oracle(mixture):
    parts = torch.distributions.MultivariateNormal(mixture.means, scale_tril=mixture.factors)
    return torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(mixture.weights), parts
    )


def test_mixture_log_prob(mixture, oracle):
    points = torch.randn(5, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mixture.log_prob(points), oracle.log_prob(points))
    assert mixture.log_prob(points[0, 0]).shape == ()


def test_mixture_moments(mixture, oracle):
    torch.testing.assert_close(mixture.mean, oracle.mean)
    torch.testing.assert_close(mixture.covariance.diagonal(), oracle.variance)
    torch.testing.assert_close(mixture.covariance, mixture.covariance.T)


def test_mixture_samples_have_its_moments(mixture):
    generator = torch.Generator().manual_seed(2)
    drawn = torch.stack([mixture.sample(generator) for _ in range(6000)])
    error = (mixture.covariance.diagonal() / len(drawn)).sqrt()
    assert ((drawn.mean(dim=0) - mixture.mean).abs() < 4 * error).all()
    scale = torch.outer(*[mixture.covariance.diagonal().sqrt()] * 2)
    off = (torch.cov(drawn.T) - mixture.covariance) / scale
    assert off.abs().max() < 0.08


def test_mixture_uses_its_generator_alone(mixture):
    state = torch.get_rng_state()
    first = mixture.sample(torch.Generator().manual_seed(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(10)
    assert torch.equal(mixture.sample(torch.Generator().manual_seed(3)), first)
    assert not torch.equal(mixture.sample(torch.Generator().manual_seed(4)), first)


def test_mixture_takes_one_component_too():
    one = GaussianMixture(
        torch.ones(1), torch.tensor([[1.0, -2.0]]), torch.tensor([[[1e-6, 0.0], [0.0, 1e-6]]])
    )
    drawn = one.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, torch.tensor([1.0, -2.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.mean, torch.tensor([1.0, -2.0]))


def test_mixture_last_component_takes_what_rounding_leaves():
    weights = torch.tensor([0.0, 1.0 - 1e-9])
    mixture = GaussianMixture(weights, torch.tensor([[0.0], [9.0]]), 1e-6 * torch.ones(2, 1, 1))
    for seed in range(20):
        assert mixture.sample(torch.Generator().manual_seed(seed)).item() == pytest.approx(9.0)
