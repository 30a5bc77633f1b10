"""Laws of the phenotypes: published marginals, published slopes, a proper covariance."""

import numpy as np
import pytest

from cardiogen.base import keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.measure import reference
from cardiogen.population import (
    Phenotypes,
    marginal,
    phenotype_distribution,
    sample_conditions,
    sample_phenotypes,
)


def measures(p):
    return {
        "LVEDV": p.lvedv,
        "LVESV": p.lvesv,
        "LVEF": p.lvef,
        "LVM": p.lvm,
        "RVEDV": p.rvedv,
        "RVEF": 100.0 * (1.0 - p.rvesv / p.rvedv),
    }


@pytest.mark.parametrize(("sex", "age"), [("F", 45.0), ("M", 70.0)])
def test_phenotypes_marginals_are_published(sex, age):
    rows = []
    for index in range(4000):
        rng = keyed_rng(1, f"{sex}{age}", index)
        factors = sample_conditions(rng, Factors(sex=sex, age=age))
        rows.append(measures(sample_phenotypes(rng, factors)))
    for name in rows[0]:
        wanted = reference(name, sex=sex, age=age)
        values = np.array([row[name] for row in rows])
        # 0.06 SD of the mean is 4 standard errors; LVESV and RVEF follow from the others.
        tolerance = 0.06 if name in ("LVEDV", "LVEF", "LVM", "RVEDV") else 0.2
        assert abs(values.mean() - wanted.mean) < tolerance * wanted.sd, name
        assert 0.9 < values.std() / wanted.sd < 1.1, name
        inside = np.mean((values > wanted.lower) & (values < wanted.upper))
        assert 0.93 < inside < 0.97, name


@pytest.mark.parametrize("sex", ["F", "M"])
@pytest.mark.parametrize("age", [18.0, 30.0, 45.0, 60.0, 75.0, 83.0])
def test_phenotypes_covariance_is_positive_definite(sex, age):
    factors = Factors(sex=sex, age=age, height=170.0, weight=72.0, sbp=135.0)
    mean, covariance = phenotype_distribution(factors)
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-15)
    assert np.linalg.eigvalsh(covariance).min() > 1e-5
    # Conditions explain a part of the published spread, never more than it.
    assert (np.diag(covariance) <= marginal(sex, age)[1] ** 2 + 1e-12).all()
    assert np.isfinite(mean).all()


def slope(sex, change):
    """Percent change of LVEDV, LVM and RVEDV, and LVEF points, between two sets of factors."""
    base = {"age": 60.0, "sex": sex, "height": 170.0, "sbp": 135.0, "bmi": 26.0}
    vectors = []
    for sign in (-0.5, 0.5):
        values = {k: v + sign * change.get(k, 0.0) if k != "sex" else v for k, v in base.items()}
        weight = values.pop("bmi") * (values["height"] / 100.0) ** 2
        vectors.append(phenotype_distribution(Factors(weight=weight, **values))[0])
    low, high = vectors
    ratio = 100.0 * (np.exp(high - low) - 1.0)
    esv = [np.log(np.exp(v[0]) / (1.0 + np.exp(v[1]))) for v in vectors]
    return ratio[0], ratio[2], ratio[3], 100.0 * (np.exp(esv[1] - esv[0]) - 1.0)


@pytest.mark.parametrize("sex", ["F", "M"])
def test_phenotypes_slopes_are_published(sex):
    # Petersen et al. 2017: percent per SD of BMI (4.3) and of systolic pressure (18.1).
    lvedv, lvm, rvedv, _ = slope(sex, {"bmi": 4.3})
    np.testing.assert_allclose([lvedv, lvm, rvedv], [4.8, 8.3, 5.3], atol=0.05)
    lvedv, lvm, rvedv, lvesv = slope(sex, {"sbp": 18.1})
    np.testing.assert_allclose([lvedv, lvm, rvedv], [4.5, 6.8, 4.5], atol=0.05)
    assert lvesv == pytest.approx(2.0, abs=0.6)


def test_phenotypes_grow_with_height_and_fall_with_age():
    taller = slope("M", {"height": 10.0})
    assert min(taller[:3]) > 0
    young = phenotype_distribution(Factors(age=30, sex="F", height=165, weight=65, sbp=125))[0]
    old = phenotype_distribution(Factors(age=75, sex="F", height=165, weight=65, sbp=125))[0]
    assert old[0] < young[0], "volumes fall with age at equal build and pressure"


def test_phenotypes_vector_round_trip():
    phenotypes = Phenotypes(lvedv=150.0, lvesv=61.0, lvm=110.0, rvedv=171.0, rvesv=80.0)
    again = Phenotypes.from_vector(phenotypes.as_vector())
    for name in ("lvedv", "lvesv", "lvm", "rvedv", "rvesv"):
        assert getattr(again, name) == pytest.approx(getattr(phenotypes, name), rel=1e-12)
    assert phenotypes.lvef == pytest.approx(100 * 89 / 150)
    vector = np.array([4.9, 0.4, 4.6, 5.1, 0.02])
    np.testing.assert_allclose(Phenotypes.from_vector(vector).as_vector(), vector, rtol=1e-12)


def test_phenotypes_are_drawn_from_their_distribution():
    factors = Factors(age=55.0, sex="F", height=162.0, weight=66.0, sbp=128.0)
    mean, covariance = phenotype_distribution(factors)
    drawn = np.array(
        [sample_phenotypes(keyed_rng(2, "x", i), factors).as_vector() for i in range(3000)]
    )
    error = np.sqrt(np.diag(covariance) / len(drawn))
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - mean), 4 * error)
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(np.cov(drawn.T) / scale, covariance / scale, atol=0.09)
