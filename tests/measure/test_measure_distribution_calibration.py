"""Honest spreads cover what they say; slopes, R2, transfer, p-values and memorization."""

import numpy as np
import pytest
from scipy.stats import beta, kstest, norm

from cardiogen.measure.distribution import (
    LEVELS,
    auroc,
    compare_r2,
    compare_slopes,
    conformal_p_values,
    coverage_by_group,
    expected_nearest,
    false_positive_rate,
    interval_coverage,
    memorization,
    pit_uniformity,
    pit_values,
    quantile_groups,
    regress,
    transfer_scores,
)


def prediction(subjects, samples, spread=1.0, seed=0, phenotypes=3):
    """Normal truth about known means, and samples whose spread is ``spread`` times as wide."""
    rng = np.random.default_rng(seed)
    middle, sd = 150 + 30 * rng.normal(size=(subjects, 1, phenotypes)), np.array([20.0, 5.0, 0.8])
    truth = middle[:, 0] + sd * rng.normal(size=(subjects, phenotypes))
    drawn = middle + spread * sd * rng.normal(size=(subjects, samples, phenotypes))
    return drawn, truth


@pytest.mark.parametrize("samples", [19, 39, 400])
def test_honest_samples_cover_exactly(samples):
    levels = [c for c in LEVELS if (samples + 1) * (1 - c) >= 2 - 1e-9]
    found = interval_coverage(*prediction(3000, samples), levels=levels)
    for level, share in zip(levels, found.pooled, strict=True):
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 9000)
    assert found.per_phenotype.shape == (len(levels), 3)
    np.testing.assert_allclose(found.per_phenotype.mean(axis=1), found.pooled)


def test_narrow_samples_cover_as_a_narrow_normal():
    found = interval_coverage(*prediction(2000, 999, spread=0.7), levels=[0.9])
    wanted = 2 * norm.cdf(0.7 * norm.ppf(0.95)) - 1
    assert found.pooled[0] == pytest.approx(wanted, abs=0.02)
    np.testing.assert_allclose(
        found.widths[0], 2 * norm.ppf(0.95) * 0.7 * np.array([20.0, 5.0, 0.8]), rtol=0.02
    )


def test_coverage_has_no_unit():
    drawn, truth = prediction(100, 40)
    unit = np.array([1000.0, 0.01, 7.0])
    np.testing.assert_array_equal(
        interval_coverage(drawn * unit, truth * unit).hits, interval_coverage(drawn, truth).hits
    )


def test_coverage_by_group_finds_where_it_fails():
    """Above 70 years the truth lies three times as far out as the samples say."""
    drawn, truth = prediction(4000, 99)
    age = np.random.default_rng(1).uniform(20, 80, 4000)
    old = age > 70
    middle = drawn.mean(axis=1)
    truth[old] = middle[old] + 3 * (truth[old] - middle[old])
    found = interval_coverage(drawn, truth)
    table = coverage_by_group(found, age)
    assert table["subjects"].tolist() == [400] * 10
    assert (table["from"].to_numpy()[1:] > table["to"].to_numpy()[:-1]).all()
    assert (np.abs(table[0.9][:8] - 0.9) < 0.04).all()
    assert table[0.9].iloc[9] < 0.6
    names = found.table(["EDV", "EF", "wall"])
    assert names.index.tolist() == ["EDV", "EF", "wall", "pooled"]
    assert list(names.columns) == list(LEVELS)


def test_groups_keep_ties_together():
    assert quantile_groups([1.0, 0.0, 1.0, 0.0]).tolist() == [1, 0, 1, 0]
    assert quantile_groups(np.arange(20.0), groups=4).tolist() == sorted([0, 1, 2, 3] * 5)
    tied = np.array([0.0] * 50 + list(range(1, 31)))
    groups = quantile_groups(tied)
    assert len(set(groups[:50])) == 1
    assert sorted(set(groups)) == list(range(groups.max() + 1))


def test_pit_is_uniform_also_with_few_samples_and_ties():
    for digits in (6, -1):
        drawn, truth = (np.round(x, digits) for x in prediction(2000, 7))
        pit = pit_values(drawn, truth)
        found = pit_uniformity(pit)
        assert pit.min() > 0
        assert pit.max() < 1
        assert (found.p_value > 1e-3).all()
        assert found.distance[0] == pytest.approx(kstest(pit[:, 0], "uniform").statistic)
    assert (pit_uniformity(pit_values(*prediction(2000, 50, spread=0.6))).p_value < 1e-6).all()
    drawn, truth = prediction(50, 7)
    np.testing.assert_array_equal(
        pit_values(drawn, truth, seed=2), pit_values(drawn, truth, seed=2)
    )


def test_coverage_faults_are_told():
    drawn, truth = prediction(10, 38)
    with pytest.raises(ValueError, match=r"got level 0\.95 with 38"):
        interval_coverage(drawn, truth)
    with pytest.raises(ValueError, match=r"samples must be \(N, S, P\)"):
        pit_values(drawn, truth[:, :2])
    truth[2, 1] = np.nan
    with pytest.raises(ValueError, match="truth must be finite, got 1 failed"):
        interval_coverage(drawn, truth, levels=[0.5])


def conditioned(count, seed=0, noise=1.0):
    """EDV and EF on age (years), sex and BMI."""
    rng = np.random.default_rng(seed)
    c = np.column_stack([rng.uniform(20, 80, count), rng.integers(0, 2, count),
                         rng.normal(26, 4, count)])  # fmt: skip
    slopes = np.array([[-0.8, 0.05], [40.0, -2.0], [1.5, 0.0]])
    y = [180, 58] + c @ slopes + noise * np.array([20.0, 5.0]) * rng.normal(size=(count, 2))
    return y, c, slopes


@pytest.mark.parametrize("errors", ["hc3", "classic"])
def test_exact_slopes_are_recovered(errors):
    y, c, slopes = conditioned(37, noise=0.0)
    fit = regress(y, c, errors=errors)
    np.testing.assert_allclose(fit.slopes, slopes, atol=1e-10)
    np.testing.assert_allclose(fit.intercepts, [180, 58], atol=1e-9)
    np.testing.assert_allclose(fit.r2, 1.0)
    np.testing.assert_allclose(fit.residual_sd, 0.0, atol=1e-10)


def test_errors_by_their_definition():
    y, c, _ = conditioned(60)
    x = np.column_stack([np.ones(60), c])
    inverse = np.linalg.inv(x.T @ x)
    b = inverse @ x.T @ y
    e = y - x @ b
    h = np.einsum("ij,jk,ik->i", x, inverse, x)
    hc3, classic = regress(y, c), regress(y, c, errors="classic")
    for p in range(2):
        meat = x.T @ (x * (e[:, p] ** 2 / (1 - h) ** 2)[:, None])
        wanted = np.sqrt((inverse @ meat @ inverse).diagonal()[1:])
        np.testing.assert_allclose(hc3.standard_errors[:, p], wanted)
        wanted = np.sqrt((e[:, p] ** 2).sum() / 56 * inverse.diagonal()[1:])
        np.testing.assert_allclose(classic.standard_errors[:, p], wanted)
    np.testing.assert_allclose(hc3.slopes, b[1:])
    np.testing.assert_allclose(hc3.r2, 1 - (e**2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(0))
    assert (hc3.adjusted_r2 < hc3.r2).all()


def test_slope_intervals_cover():
    inside = np.array([
        (fit.low <= slopes) & (slopes <= fit.high)
        for y, c, slopes in (conditioned(50, seed) for seed in range(400))
        for fit in (regress(y, c),)
    ])  # fmt: skip
    assert abs(inside.mean() - 0.95) < 0.015


def test_units_scale_slopes_alone():
    y, c, _ = conditioned(60)
    plain, scaled = regress(y, c), regress(y * [1000.0, 0.01], c * [12.0, 1.0, 1e4])
    factor = np.array([1000.0, 0.01]) / np.array([[12.0], [1.0], [1e4]])
    np.testing.assert_allclose(scaled.slopes, plain.slopes * factor)
    np.testing.assert_allclose(scaled.low, plain.low * factor)
    np.testing.assert_allclose(scaled.r2, plain.r2)


def test_slopes_and_r2_are_compared():
    names = {"phenotypes": ["EDV", "EF"], "conditions": ["age", "sex", "BMI"]}
    y, c, _ = conditioned(500)
    other, d, _ = conditioned(700, 1)
    real = regress(y, c)
    agreed = compare_slopes(real, regress(other, d), **names)
    assert agreed["overlap"].all()
    assert agreed.loc[("EDV", "sex"), "real"] == real.slopes[1, 0]
    wrong = other - d[:, :1] * [0.8, 0.0]
    table = compare_slopes(real, regress(wrong, d), **names)
    assert not table.loc[("EDV", "age"), "overlap"]
    assert not table.loc[("EDV", "age"), "inside"]
    assert table.loc[("EDV", "age"), "p"] < 1e-6
    assert table.loc[("EF", "age"), "overlap"]
    same = compare_slopes(real, real, **names)
    assert (same["p"] == 1).all()
    assert same["inside"].all()
    shares = compare_r2(
        real, regress(*conditioned(2000, 2, noise=2.0)[:2]), phenotypes=["EDV", "EF"]
    )
    assert (shares["difference"] < -0.02).all()
    np.testing.assert_allclose(shares["difference"], shares["synthetic"] - shares["real"])


def test_adjusted_r2_of_pure_noise_is_zero_on_average():
    rng = np.random.default_rng(0)
    fits = [regress(rng.normal(size=(30, 4)), rng.normal(size=(30, 5))) for _ in range(100)]
    assert np.mean([f.r2 for f in fits]) == pytest.approx(5 / 29, abs=0.02)
    assert np.mean([f.adjusted_r2 for f in fits]) == pytest.approx(0.0, abs=0.02)


def test_regression_faults_are_told():
    y, c, _ = conditioned(30)
    with pytest.raises(ValueError, match=r"conditions must vary, got constants in \[1\]"):
        regress(y, c * [1, 0, 1] + [0, 0.1, 0])
    with pytest.raises(ValueError, match=r"must not determine each other, got \[3\]"):
        regress(y, np.column_stack([c, c[:, 0] - 2 * c[:, 2]]))
    with pytest.raises(ValueError, match="conditions must have at least 1 column"):
        regress(y, c[:, :0])
    with pytest.raises(ValueError, match="need more than 4 subjects"):
        regress(y[:4], c[:4])
    with pytest.raises(ValueError, match=r"phenotypes must vary, got constants in \[1\]"):
        regress(y * [1, 0] + 0.3, c)
    alone = np.column_stack([c, np.arange(30) == 4])
    with pytest.raises(ValueError, match="rest on 2 or more subjects"):
        regress(y, alone)
    assert regress(y, alone, errors="classic").subjects == 30
    with pytest.raises(ValueError, match="regressions and names must agree"):
        compare_r2(regress(y, c), regress(y, c), phenotypes=["EDV"])


def test_transfer_between_like_and_unlike_cohorts():
    y, c, _ = conditioned(400)
    like, d, _ = conditioned(400, 1)
    for target, column, metric in (("continuous", 0, "R2"), ("binary", 1, "AUROC")):
        good = transfer_scores(y, c[:, column], like, d[:, column], target=target)
        assert good.metric == metric
        assert good.synthetic_to_real == pytest.approx(good.real_to_real, abs=0.03)
        assert good.real_to_synthetic == pytest.approx(good.synthetic_to_synthetic, abs=0.03)
        flipped = transfer_scores(y, c[:, column], -like, d[:, column], target=target)
        assert flipped.synthetic_to_real < good.synthetic_to_real - 0.2
        assert flipped.real_to_real == good.real_to_real
    # The sign of sex is told by the sign of EDV alone: AUROC turns around.
    sex = transfer_scores(y[:, :1], c[:, 1], -y[:, :1], c[:, 1], target="binary")
    straight = transfer_scores(y[:, :1], c[:, 1], y[:, :1], c[:, 1], target="binary")
    assert sex.synthetic_to_real == pytest.approx(1 - straight.synthetic_to_real)


def test_transfer_of_a_linear_target_is_perfect_and_has_no_unit():
    y, c, _ = conditioned(200)
    exact = y @ [0.5, -1.0] + 3
    found = transfer_scores(y, exact, y[:100], exact[:100], target="continuous", penalty=1e-9)
    assert found.real_to_real == pytest.approx(1.0)
    assert found.synthetic_to_real == pytest.approx(1.0)
    plain = transfer_scores(y, c[:, 1], y[::2], c[::2, 1], target="binary")
    scaled = transfer_scores(1e3 * y, c[:, 1], 1e3 * y[::2], c[::2, 1], target="binary")
    assert scaled.synthetic_to_real == pytest.approx(plain.synthetic_to_real, abs=1e-4)
    separable = np.column_stack([c[:, 1] * 10 - 5, y[:, 0]])
    assert transfer_scores(separable, c[:, 1], separable, c[:, 1], target="binary") \
        .real_to_real == 1.0  # fmt: skip


def test_transfer_faults_are_told():
    y, c, _ = conditioned(30)
    with pytest.raises(ValueError, match="real_target must be 0 or 1"):
        transfer_scores(y, c[:, 0], y, c[:, 1], target="binary")
    with pytest.raises(ValueError, match="synthetic target and phenotypes must vary"):
        transfer_scores(y, c[:, 0], y, np.ones(30), target="continuous")
    with pytest.raises(ValueError, match="phenotypes must be the same"):
        transfer_scores(y, c[:, 0], y[:, :1], c[:, 0], target="continuous")
    with pytest.raises(ValueError, match="target must be continuous or binary"):
        transfer_scores(y, c[:, 0], y, c[:, 0], target="age")


def test_conformal_p_values_by_hand():
    found = conformal_p_values([0.0, 2.0, 2.5, 9.0], [1.0, 2.0, 2.0, 3.0])
    np.testing.assert_allclose(found, [5 / 5, 4 / 5, 2 / 5, 1 / 5])


def test_conformal_p_values_are_uniform_for_any_score():
    """Heavy tails, 19 reference subjects: P(p <= i / 20) = i / 20 for every i."""
    rng = np.random.default_rng(0)
    p = np.array([conformal_p_values(x[:1], x[1:])[0] for x in rng.standard_cauchy((8000, 20))])
    share = np.array([(p <= (i + 0.5) / 20).mean() for i in range(1, 20)])
    np.testing.assert_allclose(share, np.arange(1, 20) / 20, atol=4 * 0.5 / np.sqrt(8000))
    rate = false_positive_rate(p, threshold=0.05)
    assert rate.contains(0.05)
    coarse = np.array([
        conformal_p_values(x[:1], x[1:])[0] for x in rng.integers(0, 4, (8000, 20))
    ])  # fmt: skip
    for a in (0.05, 0.1, 0.3, 0.6):
        assert (coarse <= a).mean() <= a + 0.015


def test_false_positive_interval_is_clopper_pearson():
    found = false_positive_rate(np.arange(1, 101) / 100, threshold=0.05)
    assert found.value == 0.05
    assert found.low == pytest.approx(beta.ppf(0.025, 5, 96), rel=1e-6)
    assert found.high == pytest.approx(beta.ppf(0.975, 6, 95), rel=1e-6)
    assert false_positive_rate([0.5, 0.9]).low == 0.0
    with pytest.raises(ValueError, match=r"p_values must lie in \[0, 1\]"):
        false_positive_rate([1.2])


def test_auroc_by_hand():
    assert auroc([3, 4], [1, 2]) == 1.0
    assert auroc([1, 2], [3, 4]) == 0.0
    # Pairs: 2 > 1, 2 = 2, 2 < 3; 3 > 1, 3 > 2, 3 = 3: (1 + .5 + 0 + 1 + 1 + .5) / 6.
    assert auroc([2, 3], [1, 2, 3]) == pytest.approx(4 / 6)
    assert auroc([5, 5], [5]) == 0.5
    x, y = np.random.default_rng(0).integers(0, 9, (2, 40)).astype(float)
    pairs = (x[:, None] > y).mean() + 0.5 * (x[:, None] == y).mean()
    assert auroc(x, y) == pytest.approx(pairs)
    assert auroc(np.exp(x), np.exp(y)) == pytest.approx(pairs)
    with pytest.raises(ValueError, match="deviant must be finite"):
        auroc([np.nan], [1.0])


def test_expected_nearest_is_the_mean_over_all_subsets():
    from itertools import combinations

    distances = np.random.default_rng(0).exponential(size=(4, 7))
    for size in range(1, 8):
        subsets = [distances[:, list(s)].min(axis=1) for s in combinations(range(7), size)]
        np.testing.assert_allclose(expected_nearest(distances, size), np.mean(subsets, axis=0))
    with pytest.raises(ValueError, match="size must be 1 to 7"):
        expected_nearest(distances, 8)


def test_memorization_of_honest_and_copying_models():
    rng = np.random.default_rng(0)
    training, held_out, fresh = (rng.normal(size=(n, 4)) for n in (600, 200, 400))

    def signs(generated):
        apart = [np.linalg.norm(a[:, None] - b, axis=-1)
                 for a, b in ((generated, training), (generated, held_out),
                              (held_out, training))]  # fmt: skip
        return memorization(*apart, draws=200)

    honest = signs(fresh)
    assert honest.distance_ratio.value == pytest.approx(1.0, abs=0.06)
    assert honest.duplicate_share.value < 0.04
    assert honest.expected_share == pytest.approx(0.01)
    assert honest.membership_auc.contains(0.5)
    copied = np.concatenate([training[:100] + 1e-3, fresh[:300]])
    caught = signs(copied)
    assert caught.duplicate_share.value == pytest.approx(0.25, abs=0.03)
    assert caught.distance_ratio.high < 1.0
    assert caught.membership_auc.low > 0.5
    with pytest.raises(ValueError, match=r"distances must be \(G, N\)"):
        memorization(np.ones((5, 4)), np.ones((5, 3)), np.ones((4, 3)))
