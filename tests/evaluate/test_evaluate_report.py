"""The command and its report: everything in one JSON, the same for a seed, whole or absent."""

import csv
import json
from dataclasses import replace

import pytest
from PIL import Image

import cardiogen.models.store as store
from cardiogen.base import CardiogenError
from cardiogen.cli.evaluate import _named, evaluate
from cardiogen.evaluate import (
    SIZES,
    TASKS,
    evaluate_models,
    patients,
    report_facts,
    run,
    settings,
    write_report,
)
from cardiogen.evaluate import conditioning as conditioning_task
from cardiogen.models.store import LoadedModel


@pytest.fixture
def cheap_bundle(monkeypatch, shipped, models, tiny):
    """The command with a cheap model, tiny numbers and intervals for all factors only."""
    loaded = LoadedModel(models["cheap"], shipped.bundle)
    monkeypatch.setattr(store, "load_model", lambda path=None: loaded)
    monkeypatch.setattr(conditioning_task, "ABSENT", (None,))
    monkeypatch.setitem(SIZES, "small", tiny)


def test_the_command_writes_one_whole_report(cheap_bundle, tmp_path, shipped):
    folder = evaluate(out=tmp_path / "report", seed=5)
    facts = json.loads((folder / "report.json").read_text())
    name = shipped.facts["name"]
    assert facts["model"]["weights_sha256"] == shipped.facts["weights_sha256"]
    assert (facts["seed"], facts["size"]["hearts"], facts["cohort"]) == (5, 12, "population")
    assert facts["methods"] == [name]
    assert set(facts["tasks"]) == set(TASKS)
    text = (folder / "report.md").read_text()
    # Three frames say nothing about motion.
    assert "17 frames" in facts["tasks"]["motion"]["reason"]
    for task in set(TASKS) - {"motion"}:
        assert facts["tasks"][task]["reason"] is None
        assert f"## {task.capitalize()}" in text
        with (folder / f"{task}.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == len(facts["tasks"][task]["lines"]) > 0
    for picture in ("phenotypes", "coverage", "ejection"):
        assert f"({picture}.png)" in text
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) > 400
    counted = sum(facts["verdicts"][name].values())
    bars = [x for t in facts["tasks"].values() for x in t["lines"]
            if x["method"] == name and x["wanted"] and x["value"] is not None]  # fmt: skip
    assert counted == len(bars)
    with pytest.raises(CardiogenError, match="CG-O01"):
        evaluate(out=folder)


def test_the_page_is_one_file_with_its_pictures_and_escapes_names(models, tiny, tmp_path):
    pair = {"<b>cheap": models["cheap"], "frozen": models["frozen"]}
    found = evaluate_models(pair, tiny, seed=0, tasks=("generation", "plausibility"))
    provenance = {"model": {"name": "<b>cheap"}, "seed": 0, "size": tiny.as_dict()}
    facts = write_report(tmp_path, found, provenance)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>cheap" not in page
    assert "&lt;b&gt;cheap" in page
    assert page.count('src="data:image/png;base64,') == 1
    assert "http" not in page
    assert "**" not in page
    assert facts["baseline"] == "frozen"
    assert facts["groups"]["<b>cheap"]["completion"] == "not compared"
    assert {d["group"] for d in facts["duels"]} == {"generation", "plausibility"}
    assert f"against {facts['baseline']}" in (tmp_path / "report.md").read_text().lower()


def test_bundles_beside_have_names_of_their_own(shipped, models):
    first = LoadedModel(models["cheap"], shipped.bundle)
    other = shipped.bundle.description.model_copy(update={"weights_sha256": "0" * 64})
    again = LoadedModel(models["quick"], replace(shipped.bundle, description=other))
    name = shipped.facts["name"]
    # The bundle that is the shipped one stands once.
    assert list(_named([first], shipped)) == [name]
    assert list(_named([again, again], shipped)) == [name, f"{name} (baseline)"]


def test_the_same_seed_gives_the_same_json(models, tiny):
    few = replace(tiny, hearts=6)

    def facts(seed):
        found = evaluate_models(
            {"cheap": models["cheap"]}, few, seed=seed, tasks=("generation", "plausibility")
        )
        return json.dumps(report_facts(found, {"seed": 0}), allow_nan=False)

    first = facts(8)
    assert first == facts(8)
    assert first != facts(9)


def test_nothing_is_left_of_a_report_that_fails(cheap_bundle, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise RuntimeError("halfway")

    monkeypatch.setattr(run, "generation", fail)
    with pytest.raises(RuntimeError, match="halfway"):
        evaluate(out=tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"size": "huge"}, "CG-U01"),
        ({"tasks": ["generation", "beauty"]}, "CG-U01 --task: found beauty"),
        ({"n": 0}, "CG-U01"),
        ({"n": 5}, "CG-U01"),
        ({"n": 100_000}, "CG-R03"),
        ({"seed": -1}, "CG-U01"),
        ({"bundle": "nowhere"}, "CG-M"),
        ({"cohort": "nowhere"}, "CG-L47a"),
    ],
)
def test_faults_of_the_request_have_codes(tmp_path, options, code):
    with pytest.raises(CardiogenError, match=code):
        evaluate(**({"out": tmp_path / "report"} | options))
    assert not (tmp_path / "report").exists()


def test_an_output_that_holds_the_cohort_is_refused(tmp_path):
    (tmp_path / "cohort").mkdir()
    with pytest.raises(CardiogenError, match="CG-O02"):
        evaluate(out=tmp_path / "x" / "..", cohort=str(tmp_path / "cohort"), overwrite=True)


def test_fewer_hearts_make_every_task_smaller():
    size = settings.SIZES["full"].with_hearts(30)
    assert (size.hearts, size.calibration, size.completed, size.beating) == (30, 30, 30, 30)
    assert settings.SIZES["small"].with_hearts(2000).completed == SIZES["small"].completed


def test_as_many_patients_as_asked_for_are_taken(monkeypatch, tmp_path):
    taken = []

    def read(folder, most):
        taken.append(most)
        raise CardiogenError("L37", "frame", found="a", expected="b", remedy="c")

    monkeypatch.setattr("cardiogen.evaluate.run.read_patients", read)
    for size, n, most in (("small", 12, 12), ("full", 3, 3), ("small", None, 6)):
        with pytest.raises(CardiogenError, match="CG-L37"):
            evaluate(out=tmp_path / "x", cohort=str(tmp_path), size=size, n=n)
        assert taken.pop() == most


def test_patients_of_a_folder(real_data, models, tiny, monkeypatch):
    def refuse(*_args, **_options):
        raise CardiogenError("L37", "frame", found="a", expected="b", remedy="c")

    monkeypatch.setattr(patients, "fit_template", refuse)
    found = evaluate_models(
        {"refusing": models["refusing"]}, tiny, seed=0, cohort=str(real_data / "acdc_dev25")
    )
    lines = {(x.metric, x.of, x.method): x for x in found.results["completion"].lines}
    assert lines["failure rate", "", "refusing"].value == 1
    assert lines["failure rate", "", "mean motion"].value == 1
    assert lines["failure rate", "", "copy ED"].value == 0
    copied, refused = (lines["Dice at ES", "LV", m] for m in ("copy ED", "refusing"))
    assert 0.2 < copied.value < 0.98
    assert (refused.value, refused.failures) == (None, 2)
    assert "--cohort population" in found.results["generation"].reason
    dice = found.results["reconstruction"].lines
    assert {x.failures for x in dice} == {2}
