"""A flow on a Gaussian prior: bananas that no Gaussian is, and laws that hold for any speed."""

import numpy as np
import pytest
import torch

from cardiogen.base import keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.engine.config import FlowConfig
from cardiogen.measure.distribution.phenotypes import energy_distance
from cardiogen.models import encode_condition, guided_prior
from cardiogen.models.conditional_fit import fit_conditional
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.flow import FlowPrior, FlowTask, fit_flow, flow_examples, new_flow
from cardiogen.population import sample_conditions

HEARTS, DRAWS = 1200, 400
CONFIG = FlowConfig(steps=4, updates=1000)
PEOPLE = [sample_conditions(keyed_rng(5, "test/flow", k)) for k in range(HEARTS)]
UNKNOWN = encode_condition(Factors())
WOMAN = encode_condition(Factors(age=55.0, sex="F", height=165.0, weight=66.0, sbp=120.0))
TOLD = [
    Factors(),
    Factors(sex="F"),
    Factors(age=50.0, height=180.0),
    Factors(age=70.0, sex="M", height=178.0, weight=80.0, sbp=130.0),
]


def bananas(people, rng):
    """Latents ``(N, 2)`` on parabolas that open up at high pressure and down at low pressure."""
    x, e = rng.normal(size=(2, len(people)))
    age = np.array([(f.age - 60.0) / 8.0 for f in people])
    bend = np.array([np.tanh((f.sbp - 137.0) / 8.0) for f in people])
    return np.stack([x + 0.5 * age, 0.4 * age + 0.6 * bend * (x**2 - 1.0) + 0.2 * e], axis=1)


@pytest.fixture(scope="module")
def latents():
    return bananas(PEOPLE, np.random.default_rng(0))


@pytest.fixture(scope="module")
def gaussian(latents):
    return fit_conditional(latents, PEOPLE)


@pytest.fixture(scope="module")
def flow(gaussian, latents):
    return fit_flow(gaussian, latents, PEOPLE, CONFIG)


def still(steps=3):
    """An untrained flow of two latents."""
    return new_flow(np.full(5, 50.0), np.full(5, 10.0), latents=2, width=8, steps=steps,
                    seed=1).finished()  # fmt: skip


def drawn(prior, seed):
    return prior.sample(torch.Generator().manual_seed(seed))


def draws(gaussian, conditions, flow=None, first=0):
    found = []
    for seed, condition in enumerate(conditions, first):
        prior = gaussian.prior(condition)
        prior = prior if flow is None else FlowPrior(prior, flow, condition)
        found.append(drawn(prior, seed).numpy())
    return np.stack(found)


@pytest.mark.parametrize("sbp", [115.0, 160.0])
def test_flow_draws_bananas_that_the_gaussian_cannot(gaussian, flow, sbp):
    told = Factors(age=60.0, sex="F", height=164.0, weight=70.0, sbp=sbp)
    real = bananas([told] * DRAWS, np.random.default_rng(3))
    conditions = [encode_condition(told)] * DRAWS
    flowing, plain = (energy_distance(real, draws(gaussian, conditions, f)) for f in (flow, None))
    assert flowing < 0.5 * plain


def test_a_missing_factor_gives_the_marginal(gaussian, flow):
    """Parabolas of unknown pressure open both ways: folded, they are one again."""
    new = [sample_conditions(keyed_rng(6, "test/flow", k)) for k in range(DRAWS)]
    age = np.array([[(f.age - 60.0) / 8.0] for f in new]) * [0.5, 0.4]
    real = bananas(new, np.random.default_rng(4))
    told = [encode_condition(Factors(age=f.age, sex=f.sex)) for f in new]
    flowing, plain = (
        energy_distance(np.abs(real - age), np.abs(draws(gaussian, told, f) - age))
        for f in (flow, None)
    )
    assert flowing < 0.6 * plain
    flowing, plain = (
        energy_distance(real, draws(gaussian, [UNKNOWN] * DRAWS, f)) for f in (flow, None)
    )
    assert flowing < 0.8 * plain


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("steps", [1, 8])
def test_an_untrained_flow_is_the_gaussian_prior(gaussian, told, steps):
    condition = encode_condition(told)
    prior = gaussian.prior(condition)
    flowing = FlowPrior(prior, still(steps), condition)
    for seed in range(5):
        assert torch.equal(drawn(flowing, seed), drawn(prior, seed))
    points = torch.tensor([[0.3, -1.0], [2.0, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(flowing.log_prob(points), prior.log_prob(points))
    assert torch.equal(flowing.mean, prior.mean)
    assert torch.equal(flowing.covariance, prior.covariance)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("told", TOLD)
def test_a_constant_speed_moves_the_gaussian_by_a_quarter_of_a_circle(gaussian, told, steps):
    flow = still(steps)
    flow.leave.bias.copy_(torch.tensor([0.7, -0.4]))
    condition = encode_condition(told)
    prior = gaussian.prior(condition)
    size = prior.means.shape[1]
    moves = prior.factors[:, :, :size] @ (torch.pi / 2 * flow.leave.bias)
    moved = GaussianMixture(prior.weights, prior.means + moves, prior.factors)
    flowing = FlowPrior(prior, flow, condition)
    for seed in range(5):
        torch.testing.assert_close(drawn(flowing, seed), drawn(moved, seed))
    points = torch.tensor([[[0.3, -1.0], [2.0, 0.4], [0.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(flowing.log_prob(points), moved.log_prob(points))


@pytest.mark.parametrize("told", [Factors(), Factors(sbp=110.0, sex="M")])
def test_density_is_one_in_all_and_that_of_draws(gaussian, flow, told):
    condition = encode_condition(told)
    prior = FlowPrior(gaussian.prior(condition), flow, condition)
    step = 0.22
    x = torch.arange(-5.5, 5.5, step, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(x, x, indexing="ij"), dim=-1)
    with torch.no_grad():
        density = prior.log_prob(points).exp() * step**2
    assert density.sum().item() == pytest.approx(1.0, abs=0.02)
    mean = (density[..., None] * points).sum(dim=(0, 1)).numpy()
    samples = draws(gaussian, [condition] * DRAWS, flow)
    error = samples.std(axis=0) / np.sqrt(DRAWS)
    assert (np.abs(samples.mean(axis=0) - mean) < 4 * error + 0.03).all()


def test_draws_are_the_same_bits_in_any_order_and_on_any_number_of_threads(gaussian, flow):
    conditions = [encode_condition(f) for f in PEOPLE[:6]] + [UNKNOWN] * 2
    state = torch.get_rng_state()
    forth = draws(gaussian, conditions, flow)
    assert torch.equal(torch.get_rng_state(), state)
    prior = FlowPrior(gaussian.prior(conditions[3]), flow, conditions[3])
    np.testing.assert_array_equal(drawn(prior, 3).numpy(), forth[3])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        np.testing.assert_array_equal(draws(gaussian, conditions[5:], flow, first=5), forth[5:])
    finally:
        torch.set_num_threads(threads)


class Model:
    def __init__(self, gaussian, flow=None):
        self.gaussian, self.flow = gaussian, flow

    def prior(self, condition):
        prior = self.gaussian.prior(condition)
        return prior if self.flow is None else FlowPrior(prior, self.flow, condition)


@pytest.mark.parametrize("strength", [0.0, 0.5, 3.0])
def test_guidance_of_a_still_flow_is_that_of_the_gaussian(gaussian, strength):
    found = guided_prior(Model(gaussian, still()), WOMAN, strength)
    wanted = guided_prior(Model(gaussian), WOMAN, strength)
    assert torch.equal(drawn(found, 4), drawn(wanted, 4))


def test_guidance_goes_beyond_what_factors_do_to_the_flow(gaussian, flow):
    model = Model(gaussian, flow)
    assert torch.equal(drawn(guided_prior(model, WOMAN, 1.0), 2), drawn(model.prior(WOMAN), 2))
    # Where nothing is known there is nothing to go beyond, and at 0 nothing is known.
    assert torch.equal(drawn(guided_prior(model, UNKNOWN, 5.0), 2), drawn(model.prior(UNKNOWN), 2))
    bends = []
    for strength in (0.0, 1.0, 1.5):
        prior = guided_prior(model, WOMAN, strength)
        x, y = torch.stack([drawn(prior, k) for k in range(200)]).T.numpy()
        bends.append(np.polyfit(x, y, 2)[0])
    assert bends[2] < bends[1] < bends[0] - 0.2


def test_gradients_reach_every_weight(gaussian, latents):
    examples = flow_examples(gaussian, latents[:50], PEOPLE[:50], seed=0)
    flow = new_flow(np.full(5, 50.0), np.full(5, 10.0), latents=2, width=8, steps=4, seed=1)
    for last in (flow.leave, flow.stretch):
        torch.nn.init.normal_(last.weight, generator=torch.Generator().manual_seed(0))
    task = FlowTask(flow, examples)
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(range(len(task)), generator)
    task.loss(batch, step=None, generator=generator)["loss"].backward()
    for name, weight in flow.named_parameters():
        assert weight.grad.abs().sum() > 0, name


def test_gaussian_latents_get_no_flow():
    rng = np.random.default_rng(2)
    latents = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3))
    gaussian = fit_conditional(latents, PEOPLE[:200])
    assert fit_flow(gaussian, latents, PEOPLE[:200], FlowConfig(updates=200)) is None


def test_same_seed_same_flow(gaussian, latents, flow):
    again = fit_flow(gaussian, latents, PEOPLE, CONFIG)
    for weight, other in zip(flow.parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, other)
    sizes = {"latents": 2, "width": 32, "steps": 4}
    start, other = (new_flow(np.zeros(5), np.ones(5), **sizes, seed=s) for s in (1, 2))
    assert not torch.equal(start.enter.weight, other.enter.weight)


@pytest.mark.parametrize("steps", [0.0, 2.5, 9.0, float("nan")])
def test_steps_that_are_none_are_refused(steps):
    flow = still()
    flow.require_sound()
    flow.steps.fill_(steps)
    with pytest.raises(ValueError, match="steps, not 1 to 8"):
        flow.require_sound()
