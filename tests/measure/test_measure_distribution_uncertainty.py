"""Bootstrap, paired tests and Holm's rule against closed forms and a second opinion."""

import numpy as np
import pytest
import scipy.stats
from scipy.stats import norm, rankdata

from cardiogen.measure.distribution import (
    bootstrap,
    compare_methods,
    holm,
    paired_difference,
    paired_wilcoxon,
)
from cardiogen.measure.distribution.estimate import Estimate


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_interval_of_a_mean(method):
    x = np.random.default_rng(0).normal(10, 3, 200)
    found = bootstrap(np.mean, x, method=method, draws=4000)
    half = norm.ppf(0.975) * x.std() / np.sqrt(200)
    assert found.value == x.mean()
    assert found.low == pytest.approx(x.mean() - half, abs=0.08 * half)
    assert found.high == pytest.approx(x.mean() + half, abs=0.08 * half)


@pytest.mark.parametrize("tables", [1, 2])
def test_bca_agrees_with_scipy(tables):
    """A skewed statistic of skewed data, of one cohort and of two."""
    rng = np.random.default_rng(1)
    data = [rng.exponential(size=n) for n in (40, 55)[:tables]]

    def ratio(*x):
        return float(np.std(x[0]) / np.mean(x[-1]))

    ours = bootstrap(ratio, *data, method="bca", independent=True, draws=8000)
    theirs = scipy.stats.bootstrap(
        data, ratio, method="BCa", n_resamples=8000, vectorized=False, random_state=0
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_bootstrap_covers():
    hits = [
        bootstrap(np.mean, np.random.default_rng(k).normal(size=60), draws=300).contains(0.0)
        for k in range(300)
    ]
    assert abs(np.mean(hits) - 0.94) < 0.05


def test_rows_of_tables_stay_together_unless_independent():
    x = np.random.default_rng(0).normal(size=(50, 2))
    tied = bootstrap(lambda a, b: float(np.abs(a - b).max()), x, x, draws=20)
    assert (tied.value, tied.low, tied.high) == (0.0, 0.0, 0.0)
    apart = bootstrap(lambda a, b: float(a.mean() - b.mean()), x, x, independent=True, draws=200)
    assert apart.low < 0 < apart.high
    uneven = bootstrap(lambda a, b: len(a) / len(b), x, x[:25], independent=True, draws=5)
    assert (uneven.low, uneven.high) == (2.0, 2.0)


def test_seeds_reproduce_and_scale_carries_over():
    x = np.random.default_rng(0).exponential(size=30)
    first, again = (bootstrap(np.median, x, seed=5, draws=200) for _ in range(2))
    assert first == again
    assert bootstrap(np.median, x, seed=6, draws=200) != first
    scaled = bootstrap(np.median, 1000 * x, seed=5, draws=200)
    assert scaled.low == pytest.approx(1000 * first.low)
    assert scaled.high == pytest.approx(1000 * first.high)


def test_paired_difference_uses_the_pairs():
    rng = np.random.default_rng(0)
    subject = rng.normal(0, 50, 80)
    a, b = subject + 2 + rng.normal(0, 0.5, 80), subject
    found = paired_difference(a, b)
    assert found.low > 1.7
    assert found.high < 2.3
    unpaired = bootstrap(lambda x, y: x.mean() - y.mean(), a, b, independent=True)
    assert unpaired.high - unpaired.low > 20 * (found.high - found.low)
    squares = paired_difference(a, b, statistic=lambda x: float(np.sqrt((x**2).mean())))
    assert squares.value == pytest.approx(np.sqrt((a**2).mean()) - np.sqrt((b**2).mean()))


def test_wilcoxon_by_hand_and_without_differences():
    # Six differences of one sign: only 2 of 64 sign patterns are as extreme.
    a = np.array([1.0, 2.0, 3.5, 4.1, 5.2, 6.3])
    assert paired_wilcoxon(a, np.zeros(6)) == pytest.approx(2 / 64)
    assert paired_wilcoxon(a, a) == 1.0
    # Zeros take ranks, then drop out (Pratt): normal approximation of the rest.
    rng = np.random.default_rng(0)
    gap = np.concatenate([np.zeros(10), rng.normal(0.4, 1, 90)])
    ranks = rankdata(np.abs(gap))
    used = ranks[gap != 0]
    z = ((ranks * np.sign(gap)).sum() / 2) / np.sqrt((used**2).sum() / 4)
    assert paired_wilcoxon(gap, np.zeros(100)) == pytest.approx(2 * norm.sf(abs(z)), rel=0.02)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04; never falling: .04 .06 .06 .06.
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.2]), [0.2])
    with pytest.raises(ValueError, match=r"p_values must lie in \[0, 1\]"):
        holm([1.1])


def test_methods_are_compared_on_the_same_subjects():
    rng = np.random.default_rng(0)
    base = rng.gamma(4, 1, 60)
    results = {"linear": base, "better": base - 0.5 + 0.1 * rng.normal(size=60),
               "same": base + 0.3 * rng.normal(size=60)}  # fmt: skip
    table = compare_methods(results, "linear", draws=400)
    assert table.index.tolist() == ["better", "same"]
    assert table.loc["better", "difference"] == pytest.approx(-0.5, abs=0.05)
    assert table.loc["better", "holm p"] == pytest.approx(2 * table.loc["better", "p"])
    assert table.loc["same", "low"] < 0 < table.loc["same", "high"]
    with pytest.raises(ValueError, match="baseline must be one of"):
        compare_methods(results, "copy")


def test_estimates():
    a, b = Estimate(1.0, 0.5, 1.5), Estimate(2.0, 1.5, 2.5)
    assert a.overlaps(b)
    assert not a.overlaps(Estimate(3.0, 1.6, 4.0))
    assert a.contains(1.5)
    assert str(a) == "1 [0.5, 1.5]"


def test_faults_are_told():
    x = np.arange(5.0)
    with pytest.raises(ValueError, match="statistic must be finite"):
        bootstrap(lambda _: float("nan"), x)
    with pytest.raises(ValueError, match="one row per subject"):
        bootstrap(lambda a, b: a.mean() - b.mean(), x, x[:4])
    with pytest.raises(ValueError, match="tables of at least 2 subjects"):
        bootstrap(np.mean, x[:1])
    with pytest.raises(ValueError, match="method must be percentile or bca"):
        bootstrap(np.mean, x, method="normal")
    with pytest.raises(ValueError, match="b must be finite"):
        paired_difference(x, x * np.nan)
    with pytest.raises(ValueError, match="one row per subject"):
        paired_wilcoxon(x, x[:3])
