"""Conditioning on targets: closed forms where phenotypes are linear, hits where they are not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.mesh import Surface, Topology
from cardiogen.measure.volumes import measure_sequence
from cardiogen.models import encode_condition, load_model
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.target_solver import measure_latent
from cardiogen.models.target_values import MEASURED, TOLERANCE, parse_targets
from cardiogen.models.targets import LIMITS, condition_on_targets, guided_prior
from cardiogen.population.pose import typical_pose
from cardiogen.synthesis import decode_sequence

CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
CUBE = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7],
                 [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
SIZE = 6


class Cubes:
    """Three cubes for a heart: logs of EDVs and mass and logits of EFs are linear in z."""

    def __init__(self, prior):
        rng = np.random.default_rng(4)
        self.slopes = rng.normal(size=(5, SIZE)) * 0.1
        self.offset = np.log([150.0, 1.5, 100.0, 160.0, 1.4])
        self.given = prior
        surfaces = {Surface.LV_ENDO: CUBE, Surface.LV_EPI: CUBE + 8, Surface.RV_ENDO: CUBE + 16}
        none = np.zeros(24, np.uint8)
        self.topology = Topology(surfaces, {}, none, none, ("heart",))

    def logs(self, latent):
        return self.offset + self.slopes @ latent.numpy()

    def is_possible(self, latent):
        return bool(torch.isfinite(latent).all())

    def prior(self, condition):
        return self.given(condition)

    def decode(self, latent, phases):
        left, odds, mass, right, right_odds = np.exp(self.logs(latent))
        # Ejection at once and for half of the cycle: one end systole, whatever the frames.
        empty = (np.asarray(phases) >= 0.25) & (np.asarray(phases) < 0.75)
        lv = left * np.where(empty, 1 / (1 + odds), 1.0)
        rv = right * np.where(empty, 1 / (1 + right_odds), 1.0)
        sides = np.cbrt(1000.0 * np.stack([lv, lv + mass / 1.05, rv], axis=1))
        return (sides[:, :, None, None] * CORNERS).reshape(len(sides), 24, 3)


def mixture(weights=(0.3, 0.7), seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(2, SIZE))
    # More columns than latents, as where unknown factors stand beside the residual.
    factors = rng.normal(size=(2, SIZE, SIZE + 2))
    parts = (torch.from_numpy(x)[: len(weights)] for x in (np.array(weights), means, factors))
    return GaussianMixture(*parts)


TEXTS = ("lvedv=170", "lvef=52", "lvm=115")
ROWS = [0, 1, 2]


@pytest.fixture(scope="module")
def cubes():
    return Cubes(None)


@pytest.fixture(scope="module")
def linear():
    return load_model("linear").model


def exact(cubes, prior, k, targets):
    """Return mean, covariance, log evidence and squared distance of a conditioned Gaussian."""
    mean, root = prior.means[k].numpy(), prior.factors[k].numpy()
    slopes, covariance = cubes.slopes[ROWS], root @ root.T
    miss = targets.goal - (cubes.offset[ROWS] + slopes @ mean)
    seen = slopes @ covariance @ slopes.T
    gain = covariance @ slopes.T @ np.linalg.inv(seen)
    distance = miss @ np.linalg.solve(seen, miss)
    evidence = -0.5 * (distance + np.linalg.slogdet(seen)[1])
    return mean + gain @ miss, covariance - gain @ slopes @ covariance, evidence, distance


def targets_of(texts=TEXTS, factors=None):
    return parse_targets(texts, factors or Factors())


def test_limits_are_the_quantiles_that_factors_are_judged_by():
    assert np.allclose(LIMITS, chi2.ppf(0.9999, np.arange(1, 8)), atol=1e-4)


def test_most_probable_heart_and_distance_are_those_of_exact_conditioning(cubes):
    prior, targets = mixture((1.0,)), targets_of()
    found = condition_on_targets(cubes, prior, targets)
    mean, _, _, distance = exact(cubes, prior, 0, targets)
    assert np.allclose(found.mean.numpy(), mean, atol=2e-3)
    assert found.squared_distance == pytest.approx(distance, rel=2e-3)


def test_components_are_weighed_by_how_well_they_explain_the_targets(cubes):
    prior, targets = mixture(), targets_of()
    found = condition_on_targets(cubes, prior, targets)
    logs = np.log(prior.weights.numpy()) + [exact(cubes, prior, k, targets)[2] for k in (0, 1)]
    shares = np.exp(logs - logs.max())
    assert np.allclose(found.weights, shares / shares.sum(), atol=2e-3)


def test_draws_have_the_spread_of_exact_conditioning(cubes):
    prior, targets = mixture((1.0,)), targets_of()
    found = condition_on_targets(cubes, prior, targets)
    generator = torch.Generator().manual_seed(3)
    draws = np.stack([found.sample(generator).numpy() for _ in range(1500)])
    mean, covariance, _, _ = exact(cubes, prior, 0, targets)
    sd = np.sqrt(np.diag(covariance))
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * sd / math.sqrt(len(draws))).all()
    assert np.allclose(np.cov(draws.T), covariance, atol=0.12 * np.outer(sd, sd).max())
    logs = np.stack([cubes.logs(torch.from_numpy(z))[ROWS] for z in draws])
    assert np.abs(logs - targets.goal).max() < TOLERANCE


def test_a_draw_is_moved_by_the_shortest_step(cubes):
    prior, targets = mixture((1.0,)), targets_of()
    found = condition_on_targets(cubes, prior, targets)
    generator = torch.Generator().manual_seed(8)
    moved = found.sample(generator).numpy()
    again = torch.Generator().manual_seed(8)
    torch.rand((), generator=again, dtype=torch.float64)
    root = prior.factors[0].numpy()
    start = torch.randn(root.shape[1], generator=again, dtype=torch.float64).numpy()
    # What the step leaves alone is all that the targets say nothing of.
    slopes = cubes.slopes[ROWS] @ root
    step = np.linalg.pinv(slopes) @ (
        targets.goal - cubes.offset[ROWS] - cubes.slopes[ROWS] @ prior.means[0].numpy()
        - slopes @ start
    )  # fmt: skip
    assert np.allclose(moved, prior.means[0].numpy() + root @ (start + step), atol=5e-3)


def test_guidance_moves_the_mean_along_what_factors_do():
    everyone, given = mixture(seed=1), mixture(seed=2)
    model = Cubes(lambda c: everyone if torch.isnan(c).all() else given)
    condition = encode_condition(Factors(age=50.0))
    for strength in (0.0, 0.5, 2.5):
        found = guided_prior(model, condition, strength)
        wanted = everyone.mean + strength * (given.mean - everyone.mean)
        assert torch.allclose(found.mean, wanted)
        assert torch.equal(found.factors, given.factors)
    assert guided_prior(model, condition, 1.0) is given
    unknown = guided_prior(model, encode_condition(Factors()), 3.0)
    assert torch.allclose(unknown.means, everyone.means)


def test_hearts_of_the_shipped_model_measure_what_was_asked(linear):
    factors = Factors(age=70.0, sex="F")
    targets = targets_of(("lvedv=150", "lvef=55", "lvm=95", "rvesv=75"), factors)
    found = condition_on_targets(linear, linear.prior(encode_condition(factors)), targets)
    found.check_domain()
    generator = torch.Generator().manual_seed(1)
    hearts = [found.sample(generator) for _ in range(2)]
    for latent in (found.mean, *hearts):
        heart = decode_sequence(linear, latent, np.arange(25) / 25, pose=typical_pose())
        row, _ = measure_sequence(heart, source="mesh")
        names = {"lvedv": "LVEDV (mL)", "lvef": "LVEF (%)", "lvm": "LVM (g)",
                 "rvesv": "RVESV (mL)"}  # fmt: skip
        for name, value in targets.wanted:
            assert row[names[name]] == pytest.approx(value, rel=TOLERANCE), name
    # Where targets say nothing hearts differ as ever.
    assert float((hearts[0] - hearts[1]).abs().max()) > 1.0


def test_a_draw_is_a_function_of_its_generator(cubes):
    prior = mixture()
    found = condition_on_targets(cubes, prior, targets_of(), frames=5)
    assert len(found.phases) == 25  # five frames could miss the end of systole
    first, second = (found.sample(torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(found.log_prob(first), prior.log_prob(first))
    measures, _ = measure_latent(cubes, first, found.phases)
    assert measures[MEASURED.index("lvedv")] == pytest.approx(170.0, rel=TOLERANCE)


def test_what_hardly_any_heart_shows_is_outside_the_domain(cubes):
    far = condition_on_targets(cubes, mixture((1.0,)), targets_of(("lvedv=150", "lvef=8")))
    with pytest.raises(CardiogenError, match=r"CG-D07 --target: .*lvef=8 %.*allow-extrapolation"):
        far.check_domain()
    assert condition_on_targets(cubes, mixture((1.0,)), targets_of()).check_domain() is None


def test_what_no_heart_shows_is_said(cubes):
    prior = mixture((1.0,))
    # A prior of one heart reaches nothing else.
    still = replace(prior, factors=prior.factors * 1e-9)
    with pytest.raises(
        CardiogenError, match=r"CG-D08 --target: .*no heart of the model"
    ) as caught:
        condition_on_targets(cubes, still, targets_of())
    assert caught.value.exit_code == 5


def test_targets_that_a_model_ties_together_are_said_to_be_out_of_reach(cubes):
    tied = Cubes(None)
    tied.slopes[2] = 0.0  # every heart has the same mass
    with pytest.raises(CardiogenError, match=r"CG-D08 --target: .*lvm=115 g"):
        condition_on_targets(tied, mixture(), targets_of())


def test_models_of_another_kind_are_refused(cubes):
    with pytest.raises(CardiogenError, match=r"CG-U44 --target: .*kind str"):
        condition_on_targets(cubes, "no prior", targets_of())
    labels = Cubes(None)
    labels.topology = None
    with pytest.raises(CardiogenError, match="CG-U44 --target: found a model of label maps"):
        condition_on_targets(labels, mixture(), targets_of())
    model = Cubes(lambda _: "no prior")
    with pytest.raises(CardiogenError, match="CG-U44 --guidance"):
        guided_prior(model, encode_condition(Factors()), 2.0)
