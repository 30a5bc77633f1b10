"""Divergence, free bits, active units and schedules have closed forms."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cardiogen.engine.fit import (
    FitConfig,
    active_units,
    draw_latent,
    gaussian_kl,
    kl_loss,
    kl_weight,
    learning_rate,
)


@pytest.fixture
def posterior():
    t = torch.arange(15.0).reshape(5, 3)
    return torch.sin(t), torch.cos(2 * t)


def test_divergence_is_that_of_normal_distributions(posterior):
    mean, log_var = posterior
    ours = gaussian_kl(mean, log_var)
    other = kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(ours, other)
    prior_mean, prior_log_var = 0.3 * mean.flip(0), 0.5 * log_var.flip(1) - 1
    ours = gaussian_kl(mean, log_var, prior_mean, prior_log_var)
    prior = Normal(prior_mean, (prior_log_var / 2).exp())
    torch.testing.assert_close(ours, kl_divergence(Normal(mean, (log_var / 2).exp()), prior))
    assert gaussian_kl(prior_mean, prior_log_var, prior_mean, prior_log_var).abs().max() == 0


def test_divergence_is_computed_in_float32():
    mean, log_var = torch.ones(2, 3, dtype=torch.float16), torch.full((2, 3), 12.0).half()
    kl = gaussian_kl(mean, log_var)
    assert kl.dtype == torch.float32
    torch.testing.assert_close(kl, torch.full((2, 3), (math.exp(12) - 12) / 2))


def test_divergence_is_summed_over_latents_and_averaged_over_the_batch(posterior):
    kl = gaussian_kl(*posterior)
    torch.testing.assert_close(kl_loss(kl), kl.sum() / 5)
    # Twice the latents, twice the divergence; twice the batch, the same.
    torch.testing.assert_close(kl_loss(torch.cat([kl, kl], dim=1)), 2 * kl_loss(kl))
    torch.testing.assert_close(kl_loss(torch.cat([kl, kl], dim=0)), kl_loss(kl))


def test_free_bits_cost_nothing_below_and_nothing_less_above():
    kl = torch.tensor([[0.0, 0.2, 1.0], [0.1, 0.4, 3.0]], requires_grad=True)
    loss = kl_loss(kl, free_bits=0.25)
    torch.testing.assert_close(loss, torch.tensor(0.25 + 0.3 + 2.0))
    loss.backward()
    torch.testing.assert_close(kl.grad, torch.tensor([[0.0, 0.5, 0.5]]).expand(2, 3))


def test_active_units_are_the_share_over_a_hundredth_of_a_nat():
    per_latent = torch.tensor([0.0, 0.009, 0.011, 2.0])
    assert active_units(per_latent) == 0.5
    assert active_units(per_latent, threshold=1.0) == 0.25
    assert active_units(torch.zeros(3)) == 0.0


def test_latents_are_drawn_from_their_posterior():
    mean, log_var = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 2.0]])
    generator = torch.Generator().manual_seed(4)
    drawn = draw_latent(mean.expand(40_000, 2), log_var.expand(40_000, 2), generator=generator)
    torch.testing.assert_close(drawn.mean(dim=0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(dim=0), log_var[0].exp(), atol=0.0, rtol=0.03)
    again = torch.Generator().manual_seed(4)
    repeated = draw_latent(mean.expand(40_000, 2), log_var.expand(40_000, 2), generator=again)
    assert torch.equal(drawn, repeated)
    half = draw_latent(mean.half(), log_var.half(), generator=again)
    assert half.dtype == torch.float32


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    config = FitConfig(steps=111, warmup_steps=10, learning_rate=0.2, final_share=0.1)
    assert learning_rate(config, 0) == pytest.approx(0.02)
    assert learning_rate(config, 9) == pytest.approx(0.2)
    assert learning_rate(config, 10) == pytest.approx(0.2)
    assert learning_rate(config, 60) == pytest.approx(0.2 * (0.1 + 0.9 * 0.5))
    assert learning_rate(config, 110) == pytest.approx(0.02)
    flat = config.model_copy(update={"schedule": "constant"})
    assert {learning_rate(flat, step) for step in range(10, 111)} == {0.2}
    short = FitConfig(steps=1, learning_rate=0.2)
    assert learning_rate(short, 0) == 0.2


def test_kl_weight_rises_linearly():
    config = FitConfig(beta_max=0.8, beta_warmup_steps=20)
    assert kl_weight(config, 0) == 0.0
    assert kl_weight(config, 5) == pytest.approx(0.2)
    assert kl_weight(config, 20) == kl_weight(config, 9999) == 0.8
    assert kl_weight(FitConfig(beta_max=0.3), 0) == 0.3
