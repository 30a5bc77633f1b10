"""The linear model: conditioning by the laws of probability, published means, refusals."""

import itertools

import numpy as np
import pytest
import torch

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.measure import check_mesh, reference
from cardiogen.models import (
    LinearModel,
    encode_condition,
    fit_linear,
    frame_phases,
    population_examples,
)
from cardiogen.models.cycle import decode_phenotypes
from cardiogen.population import phenotype_distribution

COMPLETE = Factors(age=62.0, sex="F", height=164.0, weight=68.0, sbp=131.0)
NAMES = ("age", "sex", "height", "weight", "sbp")


@pytest.fixture(scope="module")
def model(shipped):
    return shipped.model


def without(*names):
    return Factors(**{n: None if n in names else getattr(COMPLETE, n) for n in NAMES})


def prior(model, factors):
    return model.prior(encode_condition(factors))


@pytest.mark.parametrize(
    "missing", [c for k in range(6) for c in itertools.combinations(NAMES, k) if k in (0, 1, 5)]
)
def test_linear_prior_given_any_subset(model, missing):
    found = prior(model, without(*missing))
    assert found.weights.sum().item() == pytest.approx(1.0)
    assert len(found.weights) == (2 if "sex" in missing else 1)
    assert (torch.linalg.eigvalsh(found.covariance) > 0).all()
    assert found.mean.shape == (model.latent_size,)
    generator = torch.Generator().manual_seed(0)
    assert torch.isfinite(found.log_prob(found.sample(generator)))


def test_linear_prior_spread_grows_with_ignorance(model):
    """Less known, more spread: of every latent, since missing factors are integrated out."""
    full = prior(model, COMPLETE).covariance.diagonal()
    for name in ("height", "weight", "sbp"):
        assert (prior(model, without(name)).covariance.diagonal() >= full - 1e-9).all()
    none = prior(model, Factors()).covariance.diagonal()
    # What factors explain: most of the mass, little of the ejection fraction.
    explained = 1 - (full / none)[:4].numpy()
    assert explained[2] > explained[0] > explained[1] > 0.05


def test_linear_prior_obeys_total_expectation(model):
    """Averaged over the height given the rest, the prior is the prior without height."""
    w, sex = model.weights.latents, 0
    known = np.array([True, False, True, True])
    mean, covariance = w.factor_mean[sex], w.factor_covariance[sex]
    observed = np.array([COMPLETE.age, np.log(COMPLETE.weight), COMPLETE.sbp])
    gain = np.linalg.solve(covariance[np.ix_(known, known)], covariance[known, 1])
    center = mean[1] + gain @ (observed - mean[known])
    spread = np.sqrt(covariance[1, 1] - gain @ covariance[known, 1])
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    weights = weights / weights.sum()
    parts = [
        prior(model, Factors(**{n: getattr(COMPLETE, n) for n in NAMES if n != "height"},
                             height=float(np.exp(center + spread * x))))
        for x in nodes
    ]  # fmt: skip
    average = sum(p.mean * k for p, k in zip(parts, weights, strict=True))
    missing = prior(model, without("height"))
    torch.testing.assert_close(missing.mean, average, atol=1e-9, rtol=0)
    # And the law of total variance.
    within = sum(p.covariance * k for p, k in zip(parts, weights, strict=True))
    offsets = [p.mean - average for p in parts]
    between = sum(k * torch.outer(o, o) for o, k in zip(offsets, weights, strict=True))
    torch.testing.assert_close(missing.covariance, within + between, atol=1e-9, rtol=0)


def test_linear_prior_of_unknown_sex_is_the_mixture_of_both(model):
    unknown = prior(model, without("sex"))
    parts = [prior(model, Factors(**{n: getattr(COMPLETE, n) for n in NAMES if n != "sex"}, sex=s))
             for s in ("F", "M")]  # fmt: skip
    for k, part in enumerate(parts):
        torch.testing.assert_close(unknown.means[k], part.means[0])
        torch.testing.assert_close(unknown.factors[k], part.factors[0])


def test_linear_sex_posterior_follows_height(model):
    women = [prior(model, Factors(height=h)).weights[0].item() for h in (150, 160, 170, 180, 190)]
    assert (np.diff(women) < 0).all()
    assert women[0] > 0.97
    assert women[-1] < 0.02
    assert 0.4 < prior(model, Factors()).weights[0].item() < 0.65


def phenotypes_of(model, factors, count, seed=0):
    found = prior(model, factors)
    generator = torch.Generator().manual_seed(seed)
    drawn = [decode_phenotypes(model.cycle_vector(found.sample(generator))) for _ in range(count)]
    return np.array([[p.lvedv, p.lvesv, p.lvef, p.lvm, p.rvedv] for p in drawn])


@pytest.mark.parametrize("sex", ["F", "M"])
@pytest.mark.parametrize("age", [40.0, 70.0])
def test_shipped_model_has_published_means_and_spreads(model, sex, age):
    found = phenotypes_of(model, Factors(age=age, sex=sex), 600)
    for k, name in enumerate(("LVEDV", "LVESV", "LVEF", "LVM", "RVEDV")):
        wanted = reference(name, sex=sex, age=age)
        assert abs(found[:, k].mean() - wanted.mean) < 0.3 * wanted.sd, name
        assert 0.8 < found[:, k].std() / wanted.sd < 1.2, name


def test_shipped_model_follows_build_and_pressure(model):
    def mean(**changes):
        values = {n: getattr(COMPLETE, n) for n in NAMES} | changes
        return model.cycle_vector(prior(model, Factors(**values)).mean)[:5]

    truth = phenotype_distribution(COMPLETE)[0]
    np.testing.assert_allclose(mean()[:4], truth[:4], atol=0.05)
    assert mean(height=174.0)[0] > mean()[0]
    assert mean(weight=90.0)[2] > mean()[2]
    assert mean(sbp=165.0)[2] > mean()[2]
    assert mean(age=75.0)[0] < mean(age=45.0)[0]
    assert mean(sex="M")[2] > mean()[2]


def test_linear_random_latents_are_periodic_valid_hearts(model):
    found = prior(model, Factors())
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        latent = found.sample(generator)
        assert model.is_possible(latent)
        start, end, systole = model.decode(latent, [0.0, 1.0, model.end_systole(latent)])
        np.testing.assert_array_equal(start, end)
        assert check_mesh(np.stack([start, systole]), model.topology) == []


def test_linear_encode_is_the_inverse_of_decode(model):
    latent = prior(model, COMPLETE).sample(torch.Generator().manual_seed(6))
    again = model.encode_vector(model.cycle_vector(latent))
    # Modes are orthonormal up to the rounding of float32.
    torch.testing.assert_close(again, latent, atol=1e-4, rtol=0)


def test_linear_fit_recovers_the_population(cohort, small_weights):
    model = LinearModel(small_weights)
    for sex, age in (("F", 45.0), ("M", 70.0)):
        base = {"age": age, "sex": sex, "height": 168.0, "weight": 75.0, "sbp": 135.0}
        for change in ({}, {"sbp": 155.0}, {"weight": 85.0}, {"height": 176.0}):
            factors = Factors(**(base | change))
            found = prior(model, factors)
            vector = model.cycle_vector(found.mean)[:5]
            mean, covariance = phenotype_distribution(factors)
            off = (vector - mean) / np.sqrt(np.diag(covariance))
            assert np.abs(off[:4]).max() < 0.4, (factors, off)
        scale = model.weights.scale[:5]
        spread = np.sqrt(found.covariance.diagonal()[:5].numpy()) * scale
        np.testing.assert_allclose(spread[:4], np.sqrt(np.diag(covariance))[:4], rtol=0.15)
    assert len(cohort) == 1500


def test_linear_fit_keeps_shape_and_motion(cohort, small_weights):
    model = LinearModel(small_weights)
    vector = cohort[7].vector
    again = model.cycle_vector(model.encode_vector(vector))
    np.testing.assert_allclose(again[:5], vector[:5], atol=1e-9)
    off = (again - vector) / model.weights.scale
    assert np.sqrt(np.mean(off**2)) < 0.15


def test_linear_fit_is_a_pure_function_of_its_cohort(cohort):
    first, again = (fit_linear(cohort[:100]).tensors() for _ in range(2))
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, again[name])


def test_population_examples_are_a_prefix_of_more(cohort):
    for few, many in zip(population_examples(5, seed=3), cohort, strict=False):
        assert few.factors == many.factors
        np.testing.assert_array_equal(few.vector, many.vector)


def test_linear_fit_refuses_small_cohorts(cohort):
    with pytest.raises(
        CardiogenError, match=r"CG-C28 cohort: found .* women and .* men"
    ) as caught:
        fit_linear(cohort[:20])
    assert caught.value.exit_code == 3
    with pytest.raises(CardiogenError, match="and 0 men"):
        fit_linear([e for e in cohort if e.factors.sex == "F"])


@pytest.mark.parametrize("age", [18.0, 83.0])
def test_linear_takes_the_ages_that_it_promises(model, age):
    """No training subject is exactly 18: the range is that of whole years."""
    model.check_condition(encode_condition(Factors(age=age, sex="F")))


@pytest.mark.parametrize(
    ("factors", "name"),
    [
        (Factors(age=17.0), "age"),
        (Factors(age=101.0), "age"),
        (Factors(height=229.0), "height"),
        (Factors(weight=230.0), "weight"),
        (Factors(sbp=290.0), "sbp"),
    ],
)
def test_linear_refuses_factors_outside_the_data(model, factors, name):
    with pytest.raises(CardiogenError, match=f"CG-D01 {name}: .*range of the training") as caught:
        model.check_condition(encode_condition(factors))
    assert caught.value.exit_code == 5


def test_linear_refuses_unseen_combinations(model):
    odd = Factors(sex="F", height=200.0, weight=40.0)
    with pytest.raises(CardiogenError, match=r"CG-D02 factors: found height 200, weight 40"):
        model.check_condition(encode_condition(odd))
    # Each alone is seen, and the whole is seen for what most people are.
    for fine in (Factors(height=196.0), Factors(weight=45.0), COMPLETE, Factors()):
        model.check_condition(encode_condition(fine))


def test_condition_encoding():
    found = encode_condition(Factors(age=50.0, sex="M", weight=80.0))
    assert found.dtype == torch.float64
    assert found[[0, 1, 3]].tolist() == [50.0, 1.0, 80.0]
    assert torch.isnan(found[[2, 4]]).all()
    assert encode_condition(Factors(sex="F"))[1] == 0


def test_frame_phases():
    assert frame_phases(1) == [0.0]
    assert frame_phases(4) == [0.0, 0.25, 0.5, 0.75]
    with pytest.raises(ValueError, match="frames must be at least 1, got 0"):
        frame_phases(0)
