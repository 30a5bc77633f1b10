"""Laws of the conditions: published marginals, exact conditioning, given factors kept."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError, keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.population import sample_conditions
from cardiogen.population.conditions import (
    AGE_RANGE,
    CORRELATION,
    MEAN,
    SD,
    SHARE_OF_WOMEN,
    ConditionModel,
    condition_posterior,
    condition_vector,
)


def draw(count, given=None, seed=0):
    return [sample_conditions(keyed_rng(seed, "test", i), given) for i in range(count)]


@pytest.mark.parametrize("sex", ["F", "M"])
def test_conditions_marginals(sex):
    found = draw(4000, Factors(sex=sex))
    table = np.array([[f.age, f.height, f.bmi, f.sbp] for f in found])
    error = SD[sex] / np.sqrt(len(table))
    np.testing.assert_array_less(np.abs(table.mean(axis=0) - MEAN[sex]), 4 * error)
    np.testing.assert_allclose(table.std(axis=0), SD[sex], rtol=0.05)
    np.testing.assert_allclose(np.corrcoef(table.T), CORRELATION, atol=0.06)


def test_conditions_share_of_women():
    share = np.mean([f.sex == "F" for f in draw(3000)])
    assert abs(share - SHARE_OF_WOMEN) < 4 * np.sqrt(0.25 / 3000)


def test_conditions_keep_what_is_given_to_the_bit():
    given = Factors(age=43.21, sex="M", height=181.3, weight=77.7)
    for found in draw(20, given):
        assert found.missing == ()
        assert (found.age, found.sex, found.height, found.weight) == (43.21, "M", 181.3, 77.7)
    assert draw(1, Factors(sbp=118.9))[0].sbp == 118.9
    complete = Factors(age=50.0, sex="F", height=160.0, weight=60.0, sbp=120.0)
    assert draw(1, complete) == [complete]


def test_conditions_weight_alone_shifts_height_and_bmi():
    # One observation w = a^T x of a Gaussian: x | w has mean m + C a (w - a^T m) / (a^T C a).
    model, weight = ConditionModel.of("F"), 95.0
    a = np.array([0.0, 2.0, 1.0, 0.0])
    offset = np.log(weight) + 2 * np.log(100.0) - a @ model.mean
    gain = model.covariance @ a / (a @ model.covariance @ a)
    mean, covariance = condition_posterior("F", Factors(weight=weight))
    np.testing.assert_allclose(mean, model.mean + gain * offset, rtol=1e-12)
    wanted = model.covariance - np.outer(gain, a @ model.covariance)
    np.testing.assert_allclose(covariance, wanted, atol=1e-12)
    vectors = np.array([condition_vector(f) for f in draw(1500, Factors(sex="F", weight=weight))])
    error = np.sqrt(np.diag(covariance) / len(vectors))
    np.testing.assert_array_less(np.abs(vectors.mean(axis=0) - mean), 4 * error + 1e-9)


def test_conditions_height_and_weight_give_their_bmi():
    mean, covariance = condition_posterior("M", Factors(height=180.0, weight=81.0))
    assert mean[1] == pytest.approx(np.log(180.0))
    assert mean[2] == pytest.approx(np.log(25.0))
    np.testing.assert_allclose(covariance[1:3], 0, atol=1e-12)
    assert covariance[3, 3] > 0


def test_conditions_of_one_key_do_not_depend_on_others():
    alone = sample_conditions(keyed_rng(3, "test", 7))
    assert draw(9, seed=3)[7] == alone
    assert draw(9, seed=3)[:4] == draw(4, seed=3)
    assert alone != sample_conditions(keyed_rng(4, "test", 7))


@pytest.mark.parametrize("age", [17.9, 83.1, 101.0])
def test_conditions_refuse_ages_outside_the_data(age):
    with pytest.raises(CardiogenError, match="CG-D01 age") as caught:
        draw(1, Factors(age=age))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("age", AGE_RANGE)
def test_conditions_take_the_ends_of_the_range(age):
    assert draw(1, Factors(age=age))[0].age == age
