"""Counterfactuals: identity is kept, the population's differences are what moves."""

import numpy as np
import pytest
import torch

from cardiogen.base import keyed_seed
from cardiogen.data.factors import Factors
from cardiogen.measure.reference import reference
from cardiogen.models import encode_condition
from cardiogen.models.conditional import residual_scale
from cardiogen.models.counterfactual import counterfactual, likely_sex, standard_residual
from cardiogen.models.cycle import decode_phenotypes

MAN = Factors(age=50, sex="M", height=178, weight=80, sbp=130)


def at(age, **others):
    return encode_condition(Factors(age=age, **others))


def draws(model, condition, count, start=0):
    prior = model.prior(condition)
    return [
        prior.sample(torch.Generator().manual_seed(keyed_seed(5, "counterfactual", start + k)))
        for k in range(count)
    ]


@pytest.fixture(scope="module")
def model(shipped):
    return shipped.model


def test_same_factors_give_the_same_bits(model):
    given = encode_condition(MAN)
    (latent,) = draws(model, given, 1)
    moved = counterfactual(model.latents, latent, given=given, wanted=given.clone())
    assert torch.equal(moved, latent)
    assert moved is not latent


@pytest.mark.parametrize("known", [{"sex": "M"}, {"sex": "F", "height": 160.0, "sbp": 120.0}])
def test_there_and_back(model, known):
    given, wanted = at(45, **known), at(77, **known)
    for latent in draws(model, given, 3):
        there = counterfactual(model.latents, latent, given=given, wanted=wanted)
        back = counterfactual(model.latents, there, given=wanted, wanted=given)
        assert (there - latent).abs().max() > 0.05
        assert (back - latent).abs().max() < 1e-9


def test_two_steps_are_one(model):
    steps = [at(age, sex="F") for age in (30, 55, 80)]
    (latent,) = draws(model, steps[0], 1)
    middle = counterfactual(model.latents, latent, given=steps[0], wanted=steps[1])
    twice = counterfactual(model.latents, middle, given=steps[1], wanted=steps[2])
    once = counterfactual(model.latents, latent, given=steps[0], wanted=steps[2])
    assert (twice - once).abs().max() < 1e-9


def test_with_all_factors_known_it_is_the_ratio_of_residual_scales(model):
    given = encode_condition(MAN)
    wanted = given.clone()
    wanted[0] = 75.0
    (latent,) = draws(model, given, 1)
    moved = counterfactual(model.latents, latent, given=given, wanted=wanted)
    log = np.array([50.0, np.log(178), np.log(80), 130.0])
    older = log + np.array([25.0, 0, 0, 0])
    ratio = residual_scale(1, older, model.latents) / residual_scale(1, log, model.latents)
    means = [model.prior(condition).means[0].numpy() for condition in (given, wanted)]
    expected = means[1] + ratio * (latent.numpy() - means[0])
    assert np.abs(moved.numpy() - expected).max() < 1e-6


def test_residual_is_kept_and_standard(model):
    given, wanted = at(40, sex="F"), at(70, sex="F")
    residuals = []
    for latent in draws(model, given, 60):
        moved = counterfactual(model.latents, latent, given=given, wanted=wanted)
        residuals.append(standard_residual(model.latents, latent, given))
        after = standard_residual(model.latents, moved, wanted)
        assert np.abs(after - residuals[-1]).max() < 1e-9
    squares = np.square(residuals).sum(axis=1)
    size = model.latent_size
    assert squares.mean() == pytest.approx(size, abs=5 * np.sqrt(2 * size / 60))


@pytest.mark.parametrize("sex", ["F", "M"])
def test_mean_change_is_that_between_people(model, sex):
    given, wanted = at(40, sex=sex), at(70, sex=sex)
    changes = []
    for latent in draws(model, given, 200):
        moved = counterfactual(model.latents, latent, given=given, wanted=wanted)
        young, old = (decode_phenotypes(model.cycle_vector(z)) for z in (latent, moved))
        changes.append([old.lvedv - young.lvedv, old.lvm - young.lvm, old.rvedv - young.rvedv])
    found = np.mean(changes, axis=0)
    for change, name in zip(found, ("LVEDV", "LVM", "RVEDV"), strict=True):
        old, young = (reference(name, sex=sex, age=age).mean for age in (70, 40))
        assert change == pytest.approx(old - young, abs=0.25 * abs(old - young) + 1.5), name


def test_a_heart_stays_nearer_to_itself_than_to_others(model):
    given, wanted = at(45, sex="F"), at(75, sex="F")
    latents, others = draws(model, given, 6), draws(model, wanted, 12, start=100)
    older = [counterfactual(model.latents, z, given=given, wanted=wanted) for z in latents]
    meshes = [[model.decode(z, [0.0])[0] for z in group] for group in (latents, older, others)]
    nearer = []
    for own, aged in zip(meshes[0], meshes[1], strict=True):
        strangers = np.array([np.linalg.norm(own - other, axis=1).mean() for other in meshes[2]])
        itself = np.linalg.norm(own - aged, axis=1).mean()
        nearer.append(strangers < itself)
        assert itself < 0.6 * strangers.mean()
    # Age itself moves a heart, so that a stranger who happens to be alike may be as near.
    assert np.mean(nearer) < 0.1


def test_unknown_sex_is_the_likelier_one(model):
    unknown = at(50)
    right = 0
    for sex in ("F", "M"):
        for latent in draws(model, at(50, sex=sex), 15):
            filled = likely_sex(model.latents, latent, unknown)
            right += float(filled[1]) == float(sex == "M")
            moved = counterfactual(model.latents, latent, given=unknown, wanted=at(80))
            told = counterfactual(model.latents, latent, given=filled, wanted=at(80))
            assert torch.equal(moved, told)
    assert right >= 23
    known = at(50, sex="F")
    assert likely_sex(model.latents, latent, known) is known


def test_sex_can_change(model):
    given, wanted = at(50, sex="F"), at(50, sex="M")
    (latent,) = draws(model, given, 1)
    moved = counterfactual(model.latents, latent, given=given, wanted=wanted)
    woman, man = (decode_phenotypes(model.cycle_vector(z)) for z in (latent, moved))
    assert man.lvm > 1.1 * woman.lvm


def test_a_factor_known_on_one_side_only_is_refused(model):
    (latent,) = draws(model, at(50, sex="F"), 1)
    with pytest.raises(ValueError, match="got age on one side"):
        counterfactual(
            model.latents, latent, given=encode_condition(Factors(sex="F")), wanted=at(50)
        )
    with pytest.raises(ValueError, match="must know the sex"):
        standard_residual(model.latents, latent, at(50))
