"""``cardiogen score``: files, ranks, what was not seen, and never a diagnosis."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.cli.generate import generate
from cardiogen.cli.score import _reference
from cardiogen.data.factors import Factors
from cardiogen.data.nifti import read_labels
from cardiogen.models import load_model
from cardiogen.models.normative import LatentParts, Setting
from cardiogen.population import Pose, typical_pose


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def ed_map(tmp_path_factory):
    """End diastole of a coarse generated woman of 60 years."""
    folder = tmp_path_factory.mktemp("score")
    heart = generate(out=folder / "woman", age=60, sex="F", phase_only="ed", seed=3,
                     spacing_mm=5.0, formats="nifti")  # fmt: skip
    image = nib.load(heart / "labels.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), folder / "ed.nii.gz")
    return folder / "ed.nii.gz"


@pytest.fixture(autouse=True)
def small_norm(monkeypatch):
    """A norm of few hearts: only the percentiles get coarser."""
    monkeypatch.setattr("cardiogen.cli.score_norm._NORM", 16)
    monkeypatch.setattr("cardiogen.cli.score_norm._KNOWN", 12)


FLAGS = ("--label-map", "ukbb", "--orientation", "trusted", "--workers", "1")


def test_score_of_a_healthy_heart(run, tmp_path, ed_map):
    ran = run("score", ed_map, *FLAGS, "--age", "60", "--sex", "F", "--reference", "1", "--out",
              "x", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    found = ran.json["deviation"]
    assert found["total"]["p"] in (0.5, 1.0)
    parts = [found[name]["squared_deviation"] for name in ("size", "shape")]
    assert found["total"]["squared_deviation"] == pytest.approx(sum(parts))
    assert found["motion"]["squared_deviation"] is None
    assert found["motion"]["p"] is None
    facts = json.loads((tmp_path / "x" / "score.json").read_text())
    assert facts["reference"] == {"hearts": 1, "not_on_grid": 0, "seed": 0}
    for text in (ran.json["meaning"], (tmp_path / "x" / "README.txt").read_text()):
        assert "not a diagnosis" in text
    rows = {row["measure"]: row for row in rows_of(tmp_path / "x" / "phenotypes.csv")}
    edv, ef = rows["LVEDV (mL)"], rows["LVEF (%)"]
    assert float(edv["resolved (%)"]) > 90 > 80 > float(ef["resolved (%)"])
    z = (float(edv["value"]) - float(edv["norm mean"])) / float(edv["norm SD"])
    assert float(edv["z"]) == pytest.approx(z, abs=1e-3)
    segments = rows_of(tmp_path / "x" / "segments.csv")
    assert len(segments) == 17
    assert all(abs(float(row["z"])) < 6 for row in segments)
    content = (tmp_path / "x" / "norm_map.vtp").read_bytes()
    for name in (b"position_z", b"thickness_z", b"aha_segment", b"meaning"):
        assert b'Name="' + name + b'"' in content
    assert (tmp_path / "x" / "bullseye.png").stat().st_size > 10_000


def test_without_reference_the_model_speaks_alone_and_says_so(run, tmp_path, ed_map):
    ran = run("score", ed_map, *FLAGS, "--age", "90", "--reference", "3", "--out", "x",
              "--allow-extrapolation")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "(by the model alone)" in ran.out
    assert "motion  not seen on these label maps" in ran.out
    assert "not a diagnosis" in ran.out
    assert "D06 --reference: no reference hearts" in ran.err
    facts = json.loads((tmp_path / "x" / "score.json").read_text())
    assert facts["reference"]["hearts"] == 0
    assert facts["extrapolated"] is True
    assert {row["extrapolated"] for row in rows_of(tmp_path / "x" / "phenotypes.csv")} == {"1"}


def test_requests_that_are_refused(refused, ed_map):
    flags = ("score", ed_map, *FLAGS, "--out", "x")
    refused(*flags, "--age", "90", status=5, code="D01")
    refused(*flags, "--reference", "-1", status=2, code="U01", words="--reference")
    refused(*flags, "--seed", "-1", status=2, code="U01", words="--seed")
    refused(*flags[:-1], ed_map.parent, "--overwrite", status=8, code="O02", words="ed.nii.gz")


def test_a_grid_that_holds_no_healthy_heart_is_refused(ed_map):
    image = read_labels(ed_map, label_map="ukbb")
    away = Setting(
        factors=Factors(age=60, sex="F"), grid=image.grid, phases=np.zeros(1),
        pose=Pose(typical_pose().axes, np.array([500.0, 0.0, 0.0])),
    )  # fmt: skip
    parts = LatentParts(np.zeros((3, 180)), np.ones(180, dtype=bool))
    with pytest.raises(CardiogenError, match="L65 labels: found a grid that 2 of 2 healthy"):
        _reference(load_model().model, away, parts, 2, 0, 1)
