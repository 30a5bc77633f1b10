"""``cardiogen evaluate`` on a folder: what was not done is told, and nothing done is a fault."""

import json

import pytest

from cardiogen.evaluate import Line, Result
from cardiogen.evaluate import run as evaluation
from cardiogen.evaluate.patients import Patients


@pytest.fixture
def quick(monkeypatch):
    """Completion of patients that takes no time; returns a function that sets its result."""

    def set_to(result: Result) -> None:
        def completed(patients: Patients, *_args: object, **_options: object) -> Result:
            return result

        monkeypatch.setattr(evaluation, "patient_completion", completed)

    set_to(Result((Line("Dice", "linear", 0.5, wanted=(0.4, None)),)))
    return set_to


def test_tasks_that_a_folder_does_not_allow_are_refused(refused, cohort):
    asked = ("evaluate", "--cohort", cohort, "--out", "x")
    refused(*asked, "--task", "motion", status=2, code="U01", words="--task: found motion")
    refused(*asked, "--task", "motion", "--task", "ageing", status=2, code="U01",
            words="--cohort population")  # fmt: skip


def test_a_report_of_nothing_is_refused_with_the_reasons(refused, cohort, quick):
    quick(Result(reason="no model can"))
    asked = ("evaluate", "linear", "--cohort", cohort, "--out", "x", "--task", "completion")
    words = "--cohort population; no model can"
    refused(*asked, "--task", "motion", status=2, code="U01", words=words)


def test_skipped_tasks_and_the_number_of_patients_are_told(run, tmp_path, cohort, quick):
    asked = ("evaluate", "linear", "--cohort", cohort, "--out", "x", "-n", "12", "--json")
    ran = run(*asked, "--task", "motion", "--task", "completion", "--task", "ageing")
    assert ran.code == 0, ran.err
    (note,) = [line for line in ran.err.splitlines() if " note " in line]
    assert "U17 motion, ageing: not evaluated: needs hearts whose truth is known" in note
    assert list(ran.json["skipped"].values()) == [["motion", "ageing"]]
    facts = json.loads((tmp_path / "x" / "report.json").read_text())
    assert (facts["size"]["hearts"], facts["size"]["completed"]) == (5, 5)
    assert facts["skipped"] == ran.json["skipped"]
    assert "5 held-out hearts" in (tmp_path / "x" / "report.md").read_text()
