"""Each task: models that keep its laws pass, models that break one are caught by its own line."""

from dataclasses import replace

import numpy as np
import pytest

from cardiogen.data.factors import Factors
from cardiogen.evaluate import TASKS, Line, evaluate_models, verdicts
from cardiogen.evaluate import conditioning as conditioning_task
from cardiogen.evaluate.ageing import ageing
from cardiogen.evaluate.completion import completion, ejection_lines, observe
from cardiogen.evaluate.conditioning import conditioning, crps
from cardiogen.evaluate.contests import GROUPS, Contest, duels, group_verdicts, mean_of
from cardiogen.evaluate.cycles import cycles_of
from cardiogen.evaluate.ends import DRIFT, MEASURES, measures_of
from cardiogen.evaluate.generation import diversity, generation, mean_w1, spread_error
from cardiogen.evaluate.hearts import (
    Hearts,
    ends_of,
    held_out,
    model_hearts,
    population_hearts,
    without,
)
from cardiogen.evaluate.lines import mean_line
from cardiogen.evaluate.memorization import memorization
from cardiogen.evaluate.motion import motion
from cardiogen.evaluate.plausibility import plausibility, z_scores
from cardiogen.evaluate.reconstruction import overlap
from cardiogen.evaluate.score import diseased
from cardiogen.evaluate.validity import validity
from cardiogen.measure.distribution import Estimate, diversity_ratio, set_distances
from cardiogen.measure.reference import reference
from cardiogen.population.template import template_topology

COUNT = 30


@pytest.fixture(scope="module")
def hearts():
    return [held_out(3, "truth", i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def factors(hearts):
    return [heart.factors for heart in hearts]


@pytest.fixture(scope="module")
def truth(hearts):
    return population_hearts(hearts, "truth")


@pytest.fixture(scope="module")
def made(models, factors):
    return {
        name: model_hearts(models[name], factors, seed=3, purpose="generation")
        for name in ("quick", "blind", "collapsed")
    }


def chosen(result, metric, method, of=""):
    return next(x for x in result.lines if (x.metric, x.method, x.of) == (metric, method, of))


def test_meshes_have_the_phenotypes_that_the_population_drew(hearts, truth):
    wanted = [[h.phenotypes.lvedv, h.phenotypes.lvesv, h.phenotypes.lvef] for h in hearts]
    np.testing.assert_allclose(truth.table[:, :3], wanted, rtol=2e-3)
    assert np.abs(truth.table[:, DRIFT]).max() < 0.05
    assert truth.failures == 0


def test_a_heart_is_the_same_alone_and_among_others(models, factors, made):
    alone = model_hearts(models["quick"], factors[:2], seed=3, purpose="generation")
    assert np.array_equal(alone.table, made["quick"].table[:2])
    other = model_hearts(models["quick"], factors[:2], seed=4, purpose="generation")
    assert not np.array_equal(alone.table, other.table)


def test_hearts_that_cannot_be_made_are_failures_and_no_numbers(models, factors, truth, tiny):
    none = model_hearts(models["refusing"], factors[:12], seed=3, purpose="generation")
    assert none.failures == 12
    part = Hearts(truth.table[:12], truth.ed[:12], truth.es[:12])
    result = generation(part, {"refusing": none}, tiny, seed=0)
    assert [(x.value, x.failures) for x in result.lines] == [(None, 12)]
    assert "too few" in result.lines[0].reason


def test_generation_catches_collapsed_spread(truth, made, tiny):
    result = generation(truth, made, tiny, seed=0)
    for end in ("ED", "ES"):
        assert chosen(result, "diversity ratio", "collapsed", end).verdict == "missed"
        assert chosen(result, "diversity ratio", "quick", end).verdict != "missed"
        honest, narrow = (chosen(result, "1-NNA", m, end).value for m in ("quick", "collapsed"))
        assert narrow > honest + 0.1
    # Factors explain little of the ejection fraction: without spread of its own none is left.
    assert chosen(result, "SD ratio", "collapsed", "LVEF (%)").verdict == "missed"


def test_a_sample_against_itself_is_at_distance_zero(truth, tiny):
    result = generation(truth, {"copy": truth}, tiny, seed=0)
    for metric in ("W1", "KS"):
        assert chosen(result, metric, "copy", "LVEDV (mL)").value == 0
    assert chosen(result, "SD ratio", "copy", "LVM (g)").value == pytest.approx(1)
    assert chosen(result, "diversity ratio", "copy", "ED").value == pytest.approx(1)
    assert chosen(result, "specificity", "copy", "ED").value == 0
    # Every shape has its own copy in the other set, if the draw holds both.
    assert chosen(result, "1-NNA", "copy", "ED").verdict == "missed"


def test_the_jackknife_of_diversity_leaves_one_subject_out():
    rng = np.random.default_rng(5)
    real, made = rng.normal(size=(7, 5, 3)), 1.7 * rng.normal(size=(7, 5, 3))
    distances = set_distances(real, made)
    out = []
    for i in range(7):
        rest = np.delete(np.arange(7), i)
        out.append(diversity_ratio(distances.subset(rest, rest)))
    error = np.sqrt(6 / 7 * ((out - np.mean(out)) ** 2).sum())
    found = diversity(distances)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error)
    assert found.value == pytest.approx(diversity_ratio(distances))


def test_conditioning_catches_ignored_conditions(truth, factors, made, models, tiny, monkeypatch):
    monkeypatch.setattr(conditioning_task, "ABSENT", (None, "sex"))
    asked = {"frozen": models["frozen"]}
    result = conditioning(truth, factors, made, asked, tiny, seed=0)

    def missed(method):
        return [x for x in result.lines if x.method == method and x.verdict == "missed"]

    assert any("R2" in x.metric or "slopes" in x.metric for x in missed("blind"))
    assert not [x for x in missed("quick") if "slopes" in x.metric]
    for known in ("all factors", "sex missing"):
        line = chosen(result, "coverage of 95 % intervals", "frozen", f"pooled, {known}")
        assert line.value == 0
        assert line.verdict == "missed"
    assert chosen(result, "coverage of 95 % intervals", "real", "pooled, all factors").value > 0.5


def test_a_missing_factor_is_missing_alone():
    given = Factors(age=50.0, sex="M", height=180.0, weight=80.0, sbp=120.0)
    assert without(given, "sex") == Factors(age=50.0, height=180.0, weight=80.0, sbp=120.0)
    assert without(given, None) == given


def test_plausibility_follows_from_the_published_ranges(tiny):
    factors = [Factors(age=40.0 + k, sex="FM"[k % 2]) for k in range(40)]
    table = np.full((40, 10), 100.0)
    for row, f in zip(table, factors, strict=True):
        refs = [reference(m, sex=f.sex, age=f.age) for m in MEASURES]
        row[:7] = [r.mean + r.sd for r in refs]
    table[:, DRIFT] = 0.0
    table[:4, 8], table[4:6, DRIFT] = 115.0, 0.2
    shapes = np.zeros((40, 1, 3), dtype=np.float32)
    hearts = Hearts(table, shapes, shapes)
    np.testing.assert_allclose(z_scores(hearts.phenotypes, factors), 1.0)
    result = plausibility(factors, {"m": hearts}, tiny, seed=0)
    assert chosen(result, "inside HHC 95 %", "m", "LVM (g), F").value == 1
    assert chosen(result, "shift from HHC", "m", "LVM (g), M").value == pytest.approx(1)
    assert chosen(result, "shift from HHC", "m", "LVM (g), M").verdict == "missed"
    assert chosen(result, "stroke volumes within 10 %", "m").value == pytest.approx(0.9)
    assert chosen(result, "mass constant within 5 %", "m").value == pytest.approx(0.95)


def test_validity_counts_without_rejection(hearts, models, tiny):
    pair = {"cheap": models["cheap"], "refusing": models["refusing"]}
    result = validity(cycles_of(hearts, pair, tiny, seed=0), tiny, seed=0)
    assert chosen(result, "hearts with a violation", "real").value == 0
    for method in ("real", "cheap"):
        assert chosen(result, "largest closure error", method).value == 0
    assert chosen(result, "violations per heart", "refusing").failures == 1
    assert "fields" in chosen(result, "folded cells", "cheap").reason


def test_completion_by_closed_form_and_failures(hearts, truth, models, tiny):
    pair = {"cheap": models["cheap"], "refusing": models["refusing"]}
    result = completion(hearts, truth, pair, tiny, seed=0)
    apart = ((truth.ed[:2] - truth.es[:2]) ** 2).sum(axis=-1).mean(axis=-1) ** 0.5
    copied = chosen(result, "vertex RMSE at ES", "copy ED")
    assert copied.value == pytest.approx(apart.mean(), rel=1e-4)
    ef = truth.phenotypes[:2, MEASURES.index("LVEF (%)")]
    assert chosen(result, "LVEF MAE", "copy ED").value == pytest.approx(ef.mean(), rel=1e-4)
    assert chosen(result, "vertex RMSE at ES", "mean motion").value < copied.value
    refused = chosen(result, "vertex RMSE at ES", "refusing")
    assert (refused.value, refused.failures) == (None, 2)
    assert result.arrays["ejection"]["cheap"].shape == (2, 2)


def test_reconstruction_refused_is_no_number(hearts, models):
    seen = observe(hearts[0], [0.0, hearts[0].timing.systole])
    assert np.isnan(overlap(models["refusing"], seen, healthy=True)).all()
    assert overlap(models["cheap"], seen, healthy=True).shape == (2, 3)


def test_correlation_needs_spread(tiny):
    real = np.array([50.0, 60.0, 70.0, 55.0, 65.0])
    mae, r = ejection_lines("LVEF", "m", 2 * real - 60, real, tiny, 0)
    assert (mae.value, r.value) == (pytest.approx(6.0), pytest.approx(1.0))
    _, flat = ejection_lines("LVEF", "m", np.zeros(5), real, tiny, 0)
    assert flat.value is None
    assert "no spread" in flat.reason


def test_memorization_needs_to_know_the_training_hearts(truth, models, tiny, shipped):
    pair = {"cheap": models["cheap"]}
    unknown = memorization(truth, pair, {}, tiny, seed=0)
    assert [x.value for x in unknown.lines] == [None]
    told = {"cheap": shipped.bundle.description.training_data}
    known = memorization(truth, pair, told, tiny, seed=0)
    ratio = chosen(known, "nearest training over nearest held-out", "cheap")
    assert 0.5 < ratio.value < 2


def test_verdicts_say_what_the_interval_allows():
    def line(value, low, high, wanted=(0.9, 1.1)):
        return Line("x", "m", value, low=low, high=high, wanted=wanted)

    lines = [
        line(1.0, 0.5, 2.0),
        line(1.2, 1.0, 1.4),
        line(1.2, 1.15, 1.3),
        line(None, None, None),
    ]
    assert [x.verdict for x in lines] == ["kept", "undecided", "missed", ""]
    assert verdicts(lines, "m") == {"kept": 1, "undecided": 1, "missed": 1}
    assert line(5.0, 4.0, 6.0, (2.0, None)).verdict == "kept"
    assert line(0.1, None, None, (0, 0)).verdict == "missed"


def test_means_leave_failures_out_and_count_them():
    found = mean_line("x", "m", [1.0, np.nan, 3.0], resamples=20, seed=0)
    assert (found.value, found.count, found.failures) == (2.0, 2, 1)
    assert Estimate(found.value, found.low, found.high).contains(2.0)


def test_a_model_of_label_maps_stands_in_the_same_tables(models, tiny, monkeypatch):
    monkeypatch.setattr(conditioning_task, "ABSENT", (None,))
    pair = {"flat": models["flat"], "cheap": models["cheap"]}
    found = evaluate_models(pair, tiny, seed=0, tasks=[t for t in TASKS if t != "score"])
    lines = {(x.metric, x.of, x.method): x for r in found.results.values() for x in r.lines}
    for metric, of in [
        ("W1", "LVEDV (mL)"),
        ("coverage of 90 % intervals", "pooled, all factors"),
        ("stroke volumes within 10 %", ""),
        ("Dice at ES", "LV"),
        ("LVEF MAE", ""),
        ("violations per heart", ""),
        ("Dice", "LV at ED"),
        ("round trip of latents", ""),
    ]:
        line = lines.get((metric, of, "flat"))
        assert line is not None, metric
        assert line.failures == 0
    assert lines["Dice at ES", "LV", "flat"].value > 0.2
    for metric, of in [("1-NNA", "ED"), ("vertex RMSE at ES", "")]:
        assert lines[metric, of, "flat"].value is None
        assert "no vertices" in lines[metric, of, "flat"].reason
        assert lines[metric, of, "cheap"].value is not None
    groups = group_verdicts(found.duels, "flat")
    assert set(groups) == set(GROUPS)
    # One heart for everyone has no spread at all.
    assert groups["generation"] == "loses"


def test_an_unknown_task_is_refused(models, tiny):
    with pytest.raises(ValueError, match="tasks must be some of"):
        evaluate_models({"quick": models["quick"]}, tiny, seed=0, tasks=["beauty"])


def contest(group, metric, **tables):
    return Contest(group, metric, "1", {n: np.array(t) for n, t in tables.items()}, mean_of)


def test_groups_are_won_where_something_is_better_and_nothing_worse():
    base = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    noise = np.array([0.1, -0.1, 0.1, -0.1, 0.0, 0.0])
    given = [
        contest("completion", "a", linear=base, m=base - 1, k=base + noise),
        contest("completion", "b", linear=base, m=base + noise, k=base + 1),
        contest("generation", "a", linear=base, m=base - 1),
        contest("generation", "b", linear=base, m=base + 1),
        contest("plausibility", "a", linear=base, m=base, k=base),
        contest("conditioning", "a", m=base),
    ]
    found = duels(given, ["m", "k", "linear"], "linear", resamples=200, seed=0)
    assert group_verdicts(found, "m") == {
        "completion": "beats",
        "generation": "mixed",
        "conditioning": "not compared",
        "plausibility": "equals",
    }
    assert group_verdicts(found, "k")["completion"] == "loses"
    first = found[0]
    assert (first.value, first.difference) == (pytest.approx(2.5), pytest.approx(-1))
    # The same subjects in every resample: a constant difference has no spread.
    assert first.low == pytest.approx(-1)
    assert first.high == pytest.approx(-1)


def test_duels_are_fought_by_the_subjects_that_both_have():
    given = [contest("completion", "a", linear=[1.0, 2.0, np.nan, 4.0], m=[np.nan, 1.0, 7.0, 3.0])]
    (found,) = duels(given, ["m"], "linear", resamples=20, seed=0)
    assert (found.count, found.failures, found.value) == (2, 1, 2.0)
    assert found.difference == -1.0
    assert found.high < 0
    assert group_verdicts([found], "m")["completion"] == "too few"


def test_crps_of_draws_follows_its_closed_form():
    # Two draws: E|X - y| - |x1 - x2| / 2.
    samples = np.array([[[0.0], [2.0]], [[1.0], [1.0]]])
    np.testing.assert_allclose(crps(samples, np.array([[1.0], [4.0]])), [[0.0], [3.0]])
    # N(0, 1) at 0: 2 phi(0) - 1 / sqrt(pi) = 0.2337.
    draws = np.random.default_rng(3).normal(size=(1, 40_000, 1))
    assert crps(draws, np.zeros((1, 1)))[0, 0] == pytest.approx(0.2337, abs=0.01)


def test_w1_and_spread_of_shifted_and_scaled_columns():
    real = np.random.default_rng(4).normal(size=(50, 3))
    sd = real.std(axis=0)
    assert mean_w1(np.hstack([real, real + 0.5 * sd])) == pytest.approx(0.5)
    assert spread_error(np.hstack([real, 2 * real])) == pytest.approx(np.log(2))


def test_motion_tells_a_smooth_beat_from_a_trembling_one(hearts, models, tiny):
    size = replace(tiny, beating=3, frames=25)
    result = motion(cycles_of(hearts, {"cheap": models["cheap"]}, size, seed=0), size, seed=0)
    assert chosen(result, "one minimum of LV volume", "real").value == 1
    assert chosen(result, "jerk over real", "real").value == 1
    assert chosen(result, "phase of end systole", "real").verdict == "kept"
    # The cheap model beats as a squared sine, whose least is at half of the cycle.
    late = chosen(result, "phase of end systole", "cheap")
    assert 0.45 < late.value <= 0.5
    assert late.verdict == "missed"
    assert chosen(result, "fastest ejection over fastest filling", "cheap").value == pytest.approx(
        1, abs=0.1
    )
    assert chosen(result, "jerk over real", "cheap").value < 0.8
    assert "frames" in motion(cycles_of(hearts, {}, tiny, seed=0), tiny, seed=0).reason


def test_ageing_follows_the_published_means_and_keeps_identity(models, tiny):
    size = replace(tiny, aged=24)
    result = ageing({"quick": models["quick"], "blind": models["blind"]}, size, seed=0)
    assert chosen(result, "hearts that stay themselves", "quick", "meshes at ED").value == 1
    assert chosen(result, "round trip of latents", "quick").verdict == "kept"
    own = chosen(result, "distance to itself over others", "quick", "meshes at ED").value
    assert 0 < own < 0.7
    metric = "change from 40 to 70 years, minus HHC's"
    for sex in "FM":
        for measure in ("LVEDV (mL)", "LVM (g)"):
            assert abs(chosen(result, metric, "quick", f"{measure}, {sex}").value) < 0.25


def test_disease_changes_its_own_phenotypes(hearts):
    well = hearts[0]
    for kind, measure, factor in (("dcm", 0, 1.35), ("hcm", 3, 1.35), ("rv", 4, 1.3)):
        ill = diseased(well, kind)
        before, after = (measures_of(ends_of(h), template_topology()) for h in (well, ill))
        assert after[measure] / before[measure] == pytest.approx(factor, rel=5e-3)
    assert diseased(well, "healthy").phenotypes == well.phenotypes
