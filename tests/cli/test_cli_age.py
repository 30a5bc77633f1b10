"""``cardiogen age``: one heart at several ages, and the words that keep it honest."""

import csv
import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.cli.age_series import asked_changes, plan_series
from cardiogen.cli.generate import generate
from cardiogen.cli.subject import require_gaussian
from cardiogen.data.factors import Factors
from cardiogen.models import load_model

FEW = ("--frames", "4", "--format", "nifti,csv")


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A coarse generated man of 50 years."""
    return generate(
        out=tmp_path_factory.mktemp("small") / "man", age=50, sex="M", frames=4, seed=3,
        spacing_mm=4.0, formats="nifti,csv",
    )  # fmt: skip


@pytest.fixture(scope="module")
def ed_map(small, tmp_path_factory):
    image = nib.load(small / "labels.nii.gz")
    path = tmp_path_factory.mktemp("ed") / "ed.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., 0], image.affine), path)
    return path


def test_rules_that_a_heart_breaks_are_told(run, tmp_path, small, monkeypatch):
    from cardiogen.base import Note

    def broken(heart, where):
        assert heart.vertices is not None
        return [Note("D11", where, "faces of the mesh cross")] if where == "age_80" else []

    monkeypatch.setattr("cardiogen.cli.age_files.broken_rules", broken)
    ran = run("age", small, "--to", "80", "--out", "x", *FEW)
    assert ran.code == 0, ran.err
    assert "note D11 age_80: faces of the mesh cross" in ran.err
    own, old, both = (
        json.loads((tmp_path / "x" / place / "parameters.json").read_text())["notes"]
        for place in ("own_age_50", "age_80", ".")
    )
    assert old == both == [*own, "D11 age_80: faces of the mesh cross"]


def test_generated_heart_at_other_ages(run, tmp_path, small):
    ran = run("age", small, "--to", "80", "--to", "50", "--out", "x", "--json", *FEW)
    assert ran.code == 0, ran.err
    assert ran.json["hearts"] == ["own_age_50", "age_80", "age_50"]
    assert "Cross-sectional" in ran.json["caveat"]
    own, old, same = rows_of(tmp_path / "x" / "measures.csv")
    # Its own age gives the very heart back, which is the one that was generated.
    assert [old["age"], same["age"]] == ["80.0", "50.0"]
    names = [name for name in own if name.endswith(("(mL)", "(%)", "(g)"))]
    assert [own[n] for n in names] == [same[n] for n in names]
    (made,) = rows_of(small / "measures.csv")
    assert [own[n] for n in names] == [made[n] for n in names]
    assert float(old["LVEDV (mL)"]) < float(own["LVEDV (mL)"])
    own_labels, made_labels = (
        nib.load(folder / "labels.nii.gz") for folder in (tmp_path / "x" / "own_age_50", small)
    )
    assert np.array_equal(np.asarray(own_labels.dataobj), np.asarray(made_labels.dataobj))


def test_every_file_says_that_it_is_cross_sectional(run, tmp_path, small):
    ran = run("age", small, "--to", "70", "--out", "x", "--frames", "2")
    assert ran.code == 0, ran.err
    assert "not how one heart changes" in ran.err
    folder = tmp_path / "x"
    for place in (folder, folder / "age_70"):
        assert {row["cross_sectional"] for row in rows_of(place / "measures.csv")} == {"1"}
        text = " ".join((place / "README.txt").read_text().split())
        assert "rose by 8.0 g a decade in men" in text
        facts = json.loads((place / "parameters.json").read_text())
        assert facts["cross_sectional"] is True
        assert facts["longitudinal_change_per_decade"]["LVM (g)"] == {"M": 8.0, "F": -1.6}
    aged = folder / "age_70"
    assert b"cross-sectional" in nib.load(aged / "labels.nii.gz").header["descrip"].item()
    assert b"cross-sectional" in (aged / "preview.png").read_bytes()
    assert b"cross-sectional" in (folder / "ages.png").read_bytes()
    assert b"cross_sectional" in (aged / "mesh" / "frame_000.vtp").read_bytes()
    assert b"cross_sectional" in (aged / "heart.glb").read_bytes()
    assert b"cross-sectional" in next(aged.glob("LV_*.stl")).read_bytes()[:80]
    # Other hearts say nothing of it.
    assert "cross_sectional" not in (small / "measures.csv").read_text()
    assert "ross-sectional" not in (small / "README.txt").read_text()


def test_observed_heart_of_unknown_sex_on_the_grid_of_the_input(run, tmp_path, ed_map):
    ran = run("age", ed_map, "--label-map", "ukbb", "--age", "50", "--to", "75", "--orientation",
              "trusted", "--healthy", "--out", "x", *FEW)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "D05 --sex: unknown; taken as" in ran.err
    given, aged = nib.load(ed_map), nib.load(tmp_path / "x" / "age_75" / "labels.nii.gz")
    assert aged.shape == (*given.shape, 4)
    assert np.allclose(aged.affine, given.affine, atol=1e-4)


def test_sex_and_weight_can_change(run, tmp_path, small):
    ran = run("age", small, "--to", "60", "--to-sex", "F", "--out", "x", *FEW)
    assert ran.code == 0, ran.err
    own, other = rows_of(tmp_path / "x" / "measures.csv")
    assert other["subject_id"] == "age_60_F"
    assert float(other["LVM (g)"]) < float(own["LVM (g)"])


def test_requests_that_are_refused(run, refused, tmp_path, small, ed_map):
    heart = ("age", small, "--out", "x")
    refused(*heart, status=2, code="U01", words="--to")
    refused(*heart, "--to", "80", "--to", "80", status=2, code="U01", words="--to")
    refused(*heart, "--to", "80", "--age", "50", status=2, code="U01", words="leaving out --age")
    refused(*heart, "--to", "95", status=5, code="D01", words="--to 95")
    refused(*heart, "--to", "200", status=5, code="D01", words="--to 200")
    refused(*heart, "--to-weight", "70", status=2, code="U01", words="--to-weight")
    observed = ("age", ed_map, "--label-map", "ukbb", "--to", "80", "--out", "x")
    refused(*observed, status=2, code="U01", words="--age")
    refused(*observed, "--age", "17", status=5, code="D01", words="--allow-extrapolation")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "parameters.json").write_text('{"command": "complete"}')
    refused("age", "empty", "--to", "80", "--out", "x", status=3, code="C36")
    facts = json.loads((small / "parameters.json").read_text())
    (empty / "parameters.json").write_text(json.dumps(facts | {"draw_seed": -1}))
    refused("age", "empty", "--to", "80", "--out", "x", status=3, code="C36")
    other = facts | {"model": facts["model"] | {"weights_sha256": "0"}}
    (empty / "parameters.json").write_text(json.dumps(other))
    refused("age", "empty", "--to", "80", "--out", "x", status=4, code="M04")
    assert run(*heart, "--to", "95", "--allow-extrapolation", *FEW).code == 0
    own, old = rows_of(tmp_path / "x" / "measures.csv")
    assert [own["extrapolated"], old["extrapolated"]] == ["0", "1"]
    assert "EXTRAPOLATED" in (tmp_path / "x" / "age_95" / "README.txt").read_text()


def test_a_heart_of_meshes_only_ages(run, refused, tmp_path):
    ran = run("generate", "--age", "50", "--sex", "M", "--meshes-only", "--frames", "2",
              "--format", "csv,vtp", "--out", "bare")  # fmt: skip
    assert ran.code == 0, ran.err
    # What was asked for is checked before the folder is.
    refused("age", "bare", "--to", "150", "--out", "x", status=5, code="D01", words="--to 150")
    refused("age", "bare", "--to", "nan", "--out", "x", status=2, code="U01", words="--to nan")
    refused("age", "none", "--to", "95", "--out", "x", status=5, code="D01", words="--to 95")
    refused("age", "bare", "--to", "60", "--to-weight", "nan", "--out", "x", status=2, code="U01",
            words="--to-weight")  # fmt: skip
    ran = run("age", "bare", "--to", "80", "--frames", "2", "--format", "csv,nifti", "--out", "x")
    assert ran.code == 0, ran.err
    assert "L67 bare: generated without label maps; those made here have 1.25 mm" in ran.err
    own, made = (rows_of(tmp_path / f / "measures.csv")[0] for f in ("x", "bare"))
    # One is measured on label maps, the other on its meshes.
    assert float(own["LVEDV (mL)"]) == pytest.approx(float(made["LVEDV (mL)"]), rel=0.02)


def test_the_remedy_names_label_maps_only_where_there_are_some(refused, tmp_path, small):
    facts = json.loads((small / "parameters.json").read_text())
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "parameters.json").write_text(json.dumps(facts | {"guidance": 2.0}))
    asked = ("age", "odd", "--to", "80", "--out", "x")
    assert "labels.nii.gz" not in refused(*asked, status=3, code="C36")
    (folder / "labels.nii.gz").touch()
    refused(*asked, status=3, code="C36", words="its labels.nii.gz instead")


def test_targets_keep_every_other_factor():
    subject = Factors(age=50, sex="M", height=178, weight=80)
    model = load_model()
    changes = asked_changes((60.0, 70.0), None, 90.0, model, False)
    plan = plan_series(subject, changes, model, False)
    assert [heart.name for heart in plan] == ["own_age_50", "age_60_90kg", "age_70_90kg"]
    assert plan[0].factors == subject
    assert plan[2].factors == Factors(age=70, sex="M", height=178, weight=90)
    assert {heart.outside for heart in plan} == {None}


def test_a_model_without_gaussian_latents_is_refused():
    other = SimpleNamespace(
        model=object(), facts={"kind": "mesh"}, bundle=SimpleNamespace(path="bundle")
    )
    with pytest.raises(CardiogenError, match="M21 bundle: found a model of the kind 'mesh'"):
        require_gaussian(other)
