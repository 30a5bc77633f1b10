"""Scores of patients: groups are told apart by their deviations alone."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.evaluate import patient_score as task


def patient(group, number):
    labels = np.zeros((2, 3, 4, 4), np.uint8)
    grid = Grid.regular((3, 4, 4), (8.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    return Sequence(phases=np.array([0.0, 0.4]), labels=labels, grid=grid, ed=0, es=1, group=group,
                    subject_id=f"{group}_{number}")  # fmt: skip


@pytest.fixture
def deviations(monkeypatch):
    """Deviations by subject; the model refuses those that have none."""
    table = {}

    def found(model, parts, seen, factors):
        assert seen.phases.tolist() == [0.0]
        if seen.subject_id not in table:
            raise CardiogenError("L37", "frame 0", found="a", expected="b", remedy="c")
        deviation, p = table[seen.subject_id]
        return np.array([deviation, 0, 0, 0]), np.array([p, 1, 1, 1])

    monkeypatch.setattr(task, "observed_deviations", found)
    monkeypatch.setattr(task, "latent_parts", lambda *_: None)
    return table


def scored(patients, models, tiny):
    result = task.patient_score(patients, models, tiny, seed=0)
    return result, {(x.metric, x.of.partition(" ")[0], x.method): x for x in result.lines}


def test_groups_are_judged_against_the_healthy(deviations, models, tiny):
    deviations |= {f"NOR_{k}": (10.0 + k, 0.04 if k == 0 else 0.5) for k in range(4)}
    deviations |= {f"DCM_{k}": (50.0 + k, 0.001) for k in range(3)}
    deviations |= {"HCM_0": (11.5, 0.5), "HCM_1": (13.5, 0.5)}
    patients = [patient(*name.split("_")) for name in deviations]
    patients += [patient("HCM", 2), patient("RV", 0)]
    _, lines = scored(patients, {"quick": models["quick"]}, tiny)
    rate = lines["false positives at p <= .05", "healthy", "quick"]
    assert (rate.value, rate.count, rate.wanted) == (0.25, 4, None)
    assert lines["AUROC", "DCM", "quick"].value == 1.0
    hcm = lines["AUROC", "HCM", "quick"]
    # 11.5 lies above two of four, 13.5 above all.
    assert (hcm.value, hcm.count, hcm.failures) == (0.75, 2, 1)
    assert lines["AUROC", "RV", "quick"].value is None


def test_a_cohort_without_healthy_patients_has_no_score(deviations, models, tiny):
    for groups in (("DCM", "HCM", "NOR"), ("NOR", "Normal"), (None, None)):
        patients = [patient(group, k) for k, group in enumerate(groups)]
        result, lines = scored(patients, {"quick": models["quick"]}, tiny)
        assert not lines
        assert "needs 2 patients of a healthy group" in result.reason


def test_models_without_a_gaussian_are_told_so(deviations, models, tiny):
    patients = [patient(group, k) for k, group in enumerate(("NOR", "NOR", "DCM"))]
    result, _ = scored(patients, {"flat": models["flat"]}, tiny)
    (line,) = result.lines
    assert "needs meshes and Gaussian latents" in line.reason
