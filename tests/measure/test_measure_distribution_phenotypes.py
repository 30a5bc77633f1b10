"""Distances of phenotype cohorts: shifts, closed forms of Gaussians, units, refusals."""

import numpy as np
import pytest
from scipy.stats import energy_distance as scipy_energy
from scipy.stats import ks_2samp

from cardiogen.measure.distribution import (
    compare_phenotypes,
    complete_rows,
    correlation_error,
    energy_distance,
    frechet_distance,
    ks_distance,
    ledoit_wolf,
    mean_shift,
    sd_ratio,
    wasserstein,
)

UNITS = np.array([1000.0, 0.01, 1 / 1.05])  # mL to uL, percent to share, g to mL


def cohort(count, seed=0):
    """EDV (mL), EF (%), mass (g) of correlated normal hearts."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[30.0, 0.0, 0.0], [-2.0, 5.0, 0.0], [9.0, 1.0, 12.0]])
    return np.array([150.0, 60.0, 100.0]) + rng.normal(size=(count, 3)) @ mixing.T


def test_wasserstein_of_a_shift_is_the_shift():
    x = cohort(57)[:, 0]
    assert wasserstein(x, x + 7.25) == pytest.approx(7.25)
    assert wasserstein(x, x) == 0.0
    # Every value twice is the same distribution, so counts need not agree.
    assert wasserstein(np.repeat(x, 2), x - 3.5) == pytest.approx(3.5)
    assert wasserstein([0.0, 1.0, 2.0], [0.0]) == pytest.approx(1.0)


def test_ks_is_scipys():
    a, b = cohort(41)[:, 0], np.round(cohort(29, 1)[:, 0], -1)
    assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b).statistic)
    assert ks_distance([0.0, 1.0], [2.0, 3.0, 4.0]) == 1.0


def test_energy_distance_is_scipys_in_one_dimension():
    a, b = cohort(41), cohort(29, 1)
    for column in range(3):
        i = slice(column, column + 1)
        wanted = scipy_energy(a[:, column], b[:, column])
        assert energy_distance(a[:, i], b[:, i], scale="native") == pytest.approx(wanted)
    assert energy_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_energy_distance_does_not_depend_on_blocks(monkeypatch):
    a, b = cohort(41), cohort(29, 1)
    whole = energy_distance(a, b)
    monkeypatch.setattr("cardiogen.measure.distribution.phenotypes._BLOCK", 7)
    assert energy_distance(a, b) == pytest.approx(whole, rel=1e-12)


def test_vector_distances_have_no_unit():
    a, b = cohort(80), cohort(60, 1) * 1.1
    assert energy_distance(a * UNITS, b * UNITS) == pytest.approx(energy_distance(a, b))
    scaled, plain = frechet_distance(a * UNITS, b * UNITS), frechet_distance(a, b)
    assert scaled.value == pytest.approx(plain.value)
    assert scaled.shrinkage == pytest.approx(plain.shrinkage)
    assert energy_distance(a * UNITS, b * UNITS, scale="native") > energy_distance(a, b) * 5


def test_frechet_of_gaussians():
    """A stretch by s and a shift m of any sample: ``|m|^2 + (s - 1)^2 tr(A)`` exactly."""
    a = cohort(300)
    center = a.mean(axis=0)
    shift = np.array([4.0, -1.0, 2.0])
    b = center + 1.3 * (a - center) + shift
    found = frechet_distance(a, b, shrinkage=0.0, scale="native")
    spread = np.trace(np.cov(a, rowvar=False))
    assert found.means == pytest.approx(shift @ shift)
    assert found.covariances == pytest.approx(0.09 * spread)
    assert found.value == pytest.approx(np.sqrt(shift @ shift + 0.09 * spread))
    # Commuting covariances: the distance of the standard deviations.
    x = np.random.default_rng(1).normal(size=(200, 3))
    x = np.linalg.qr(x - x.mean(axis=0))[0]
    y = x * [1.0, 2.0, 0.5]
    wanted = (0 + 1 + 0.25) / 199
    assert frechet_distance(x, y, shrinkage=0, scale="native").covariances == pytest.approx(wanted)


def test_frechet_shrinkage_is_shared_and_told():
    a, b = cohort(30), cohort(2000, 1)
    found = frechet_distance(a, b)
    scaled = (a - a.mean(axis=0)) / a.std(axis=0, ddof=1)
    assert found.shrinkage == pytest.approx(ledoit_wolf(scaled))
    assert frechet_distance(a, b, shrinkage=found.shrinkage).value == pytest.approx(found.value)
    # Shrunk all the way, only the total variance remains.
    stretched = a.mean(axis=0) + 2 * (a - a.mean(axis=0))
    assert frechet_distance(a, stretched, shrinkage=1.0).covariances == pytest.approx(3.0)
    assert frechet_distance(a, a).value == pytest.approx(0.0, abs=1e-6)


def test_ledoit_wolf_by_its_definition():
    x = cohort(23)
    x = x - x.mean(axis=0)
    s = x.T @ x / len(x)
    m = np.trace(s) / 3
    d2 = ((s - m * np.eye(3)) ** 2).sum()
    b2 = sum(((np.outer(r, r) - s) ** 2).sum() for r in x) / len(x) ** 2
    assert ledoit_wolf(x) == pytest.approx(min(b2, d2) / d2)
    assert ledoit_wolf(cohort(4000)) < ledoit_wolf(cohort(40)) < 1
    assert ledoit_wolf(x[:, :1]) == 1.0


def test_correlations_spread_and_shift():
    a = cohort(200)
    error = correlation_error(a, a * UNITS)
    assert error.rms == pytest.approx(0.0, abs=1e-12)
    flipped = correlation_error(a, a * [-1, 1, 1])
    matrix = np.corrcoef(a, rowvar=False)
    apart = 2 * np.abs([matrix[0, 1], matrix[0, 2], 0.0])
    assert flipped.rms == pytest.approx(np.sqrt((apart**2).mean()))
    assert flipped.largest == pytest.approx(apart.max())
    assert flipped.pair == ((0, 1), (0, 2))[int(apart[1] > apart[0])]
    moved = a.mean(axis=0) + 0.8 * (a - a.mean(axis=0)) + 0.5 * a.std(axis=0, ddof=1)
    np.testing.assert_allclose(sd_ratio(a, moved), 0.8)
    np.testing.assert_allclose(mean_shift(a, moved), 0.5)
    np.testing.assert_allclose(mean_shift(a * UNITS, moved * UNITS), 0.5)


def test_table_of_phenotypes():
    a = cohort(200)
    table = compare_phenotypes(
        a, a + np.array([5.0, 0.0, -2.0]), ["EDV (mL)", "EF (%)", "mass (g)"]
    )
    np.testing.assert_allclose(table["w1"], [5.0, 0.0, 2.0], atol=1e-12)
    np.testing.assert_allclose(table["SD ratio"], 1.0)
    assert table.loc["EF (%)", ["ks", "energy", "mean shift (SD)"]].tolist() == [0.0, 0.0, 0.0]
    assert table.index.name == "phenotype"


def test_failures_are_refused_and_counted():
    a, b = cohort(20), cohort(20, 1)
    a[3, 1], a[7, 0], b[7, 2] = np.nan, np.inf, np.nan
    with pytest.raises(ValueError, match="real must be finite, got 2 failed rows of 20"):
        energy_distance(a, b)
    with pytest.raises(ValueError, match="synthetic must be finite, got 1 failed rows"):
        wasserstein(b[:7, 0], a[:8, 0])
    both = complete_rows(a, b)
    assert (both.failures, both.failure_rate) == (2, 0.1)
    assert np.flatnonzero(~both.kept).tolist() == [3, 7]
    assert all(len(t) == 18 for t in both.tables)
    assert np.isfinite(energy_distance(*both.tables))
    with pytest.raises(ValueError, match="share their first axis"):
        complete_rows(a, b[:5])


def test_faults_are_told():
    a = cohort(20)
    constant = np.column_stack([a, np.full(20, 0.1)])
    with pytest.raises(
        ValueError, match=r"real must vary in every column, got constants in \[3\]"
    ):
        sd_ratio(constant, constant)
    with pytest.raises(ValueError, match="phenotypes must be the same"):
        frechet_distance(a, a[:, :2])
    with pytest.raises(ValueError, match="real must have 1 axes"):
        wasserstein(a, a)
    with pytest.raises(ValueError, match="scale must be sd or native"):
        energy_distance(a, a, scale="mm")
    with pytest.raises(ValueError, match="shrinkage must be"):
        frechet_distance(a, a, shrinkage=1.5)
    with pytest.raises(ValueError, match="at least 2 phenotypes"):
        correlation_error(a[:, :1], a[:, :1])
    with pytest.raises(ValueError, match="names must be 3"):
        compare_phenotypes(a, a, ["EDV"])
