"""``cardiogen complete``: the cycle from one or more label maps, on the grid of the input."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

CODES = {"ukbb": {"LV": 1, "MYO": 2, "RV": 3}, "acdc": {"RV": 1, "MYO": 2, "LV": 3}}
FEW = ("--frames", "5", "--format", "nifti,csv")


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def ed_map(heart, tmp_path_factory):
    """The ED frame of a generated heart, every fourth voxel, as a file of its own."""
    path = tmp_path_factory.mktemp("ed") / "ed.nii.gz"
    frame(heart, 0, path)
    return path


def frame(heart, index, path):
    image = nib.load(heart / "labels.nii.gz")
    affine = image.affine.copy()
    affine[:3, :3] *= 4
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::4, ::4, ::4, index], affine), path)


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_extrapolation_is_marked_in_samples_too(run, refused, tmp_path, ed_map):
    flags = ("complete", ed_map, "--label-map", "ukbb", "--age", "17", "--samples", "2", *FEW)
    refused(*flags, "--out", "x", status=5, code="D01")
    assert run(*flags, "--out", "x", "--allow-extrapolation").code == 0
    facts = json.loads((tmp_path / "x" / "parameters.json").read_text())
    assert facts["extrapolated"] is True
    assert facts["extrapolation_reason"].startswith("CG-D01 age: found 17")
    assert "--allow" not in facts["extrapolation_reason"]
    # Two draws have no percentiles.
    assert any("--samples: 2 draws give no 90 % intervals" in note for note in facts["notes"])
    assert not any("90 %" in name for name in rows_of(tmp_path / "x" / "frames.csv")[0])
    for name in ("samples.csv", "frames.csv", "measures.csv"):
        assert {row["extrapolated"] for row in rows_of(tmp_path / "x" / name)} == {"1"}
    assert "EXTRAPOLATED" in (tmp_path / "x" / "README.txt").read_text()


def test_cycle_lies_on_the_grid_of_the_input_and_begins_with_it(run, tmp_path, ed_map, heart):
    ran = run("complete", ed_map, "--label-map", "ukbb", "--age", "70", "--sex", "F", "--samples",
              "20", "--out", "x", *FEW)  # fmt: skip
    assert ran.code == 0, ran.err
    given, cycle = nib.load(ed_map), nib.load(tmp_path / "x" / "labels.nii.gz")
    assert cycle.shape == (*given.shape, 5)
    assert np.allclose(cycle.affine, given.affine, atol=1e-4)
    before, after = np.asarray(given.dataobj), np.asarray(cycle.dataobj)
    for name, code in CODES["ukbb"].items():
        assert dice(before == code, after[..., 0] == code) > 0.85, name
    frames, samples = (rows_of(tmp_path / "x" / f) for f in ("frames.csv", "samples.csv"))
    assert len(samples) == 20
    assert all(row["synthetic"] == "1" for row in frames + samples)
    for row in frames:
        for side in ("LV", "RV"):
            low, mesh, high = (float(row[f"{side} mesh {part}(mL)"])
                               for part in ("lower 90 % ", "", "upper 90 % "))  # fmt: skip
            assert low < mesh < high
    # Maps of the largest expected overlap reach farther where nothing was seen; meshes do not.
    ran = run("complete", ed_map, "--label-map", "ukbb", "--age", "70", "--sex", "F", "--samples",
              "20", "--overlap", "--out", "y", *FEW)  # fmt: skip
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "y" / "parameters.json").read_text())["overlap"] is True
    for name in ("measures.csv", "frames.csv", "labels.nii.gz"):
        assert (tmp_path / "y" / name).read_bytes() == (tmp_path / "x" / name).read_bytes()
    assert "labels_overlap.nii.gz" in (tmp_path / "y" / "README.txt").read_text()
    assert not (tmp_path / "x" / "labels_overlap.nii.gz").exists()
    wide, apart = np.asarray(nib.load(tmp_path / "y" / "labels_overlap.nii.gz").dataobj), []
    for k in range(len(frames)):
        apart.append(np.count_nonzero(wide[..., k] != after[..., k]))
        assert dice(wide[..., k] > 0, after[..., k] > 0) > 0.85
    assert apart[0] < apart[2]
    assert np.count_nonzero(wide[..., 2]) > np.count_nonzero(after[..., 2])
    # What was seen is known better than what was not.
    widths = [float(r["LV mesh upper 90 % (mL)"]) - float(r["LV mesh lower 90 % (mL)"])
              for r in frames]  # fmt: skip
    assert widths[0] < widths[2]
    (row,), (true,) = rows_of(tmp_path / "x" / "measures.csv"), rows_of(heart / "measures.csv")
    assert float(row["LVEDV (mL)"]) == pytest.approx(float(true["LVEDV (mL)"]), rel=0.05)
    facts = json.loads((tmp_path / "x" / "parameters.json").read_text())
    assert facts["observed_phases"] == [0.0]
    assert facts["inputs"] == ["ed.nii.gz"]


def test_real_patient_on_its_own_grid_and_codes(run, tmp_path, real_data):
    file = real_data / "acdc_dev25" / "patient061" / "patient061_ED_gt.nii.gz"
    ran = run("complete", file, "--label-map", "acdc", "--out", "x", "--json", *FEW)
    assert ran.code == 0, ran.err
    assert ran.json == {"folder": "x"}
    assert json.loads((tmp_path / "x" / "parameters.json").read_text())["mirrored_world"]
    given, cycle = nib.load(file), nib.load(tmp_path / "x" / "labels.nii.gz")
    assert cycle.shape == (*given.shape, 5)
    assert np.allclose(cycle.affine, given.affine, atol=1e-3)
    before, after = np.asarray(given.dataobj), np.asarray(cycle.dataobj)[..., 0]
    for name, code in CODES["acdc"].items():
        assert dice(before == code, after == code) > 0.8, name


@pytest.mark.parametrize("mirrored", [False, True])
def test_unless_told_the_fit_finds_a_mirroring_header(run, tmp_path, ed_map, mirrored):
    image = nib.load(ed_map)
    affine = np.diag([-1.0 if mirrored else 1.0, 1, 1, 1]) @ image.affine
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), tmp_path / "ed.nii.gz")
    ran = run("complete", "ed.nii.gz", "--label-map", "ukbb", "--out", "x", *FEW)
    assert ran.code == 0
    facts = json.loads((tmp_path / "x" / "parameters.json").read_text())
    assert facts["mirrored_world"] is mirrored
    assert facts["orientation"]["given"] == "assumed"
    assert facts["orientation"]["margin"] > 0
    assert "decided by fit" in facts["notes"][-1]
    assert ran.err.splitlines() == [f"cardiogen: note {note}" for note in facts["notes"]]
    # What was found out once holds for whoever reads the result: no note, no second search.
    again = run("measure", "x/labels.nii.gz", "--segments", "17", "--json").json
    assert again["notes"] == []
    told = "mirrored" if mirrored else "trusted"
    said = run("measure", "x/labels.nii.gz", "--segments", "17", "--orientation", told, "--json")
    assert again["segments"] == said.json["segments"]


def test_outputs_of_ours_need_neither_label_map_nor_search(run, tmp_path, heart):
    folder = tmp_path / "one"
    folder.mkdir()
    frame(heart, 0, folder / "labels.nii.gz")
    (folder / "parameters.json").write_bytes((heart / "parameters.json").read_bytes())
    ran = run("complete", "one/labels.nii.gz", "--out", "x", *FEW)
    assert ran.code == 0, ran.err
    facts = json.loads((tmp_path / "x" / "parameters.json").read_text())
    assert facts["label_map"]["name"] == "ukbb"
    assert facts["orientation"] == {"given": "trusted", "margin": None}
    assert "L63" not in ran.err


def test_several_maps_with_their_phases_in_any_order(run, tmp_path, ed_map, heart):
    key = json.loads((heart / "parameters.json").read_text())["key_frames"]["ES"]
    frame(heart, key, tmp_path / "es.nii.gz")
    ran = run("complete", "es.nii.gz", ed_map, "--phase", key / 25, "--phase", "0", "--label-map",
              "ukbb", "--out", "x", *FEW)  # fmt: skip
    assert ran.code == 0, ran.err
    facts = json.loads((tmp_path / "x" / "parameters.json").read_text())
    assert facts["observed_phases"] == [0.0, key / 25]
    (row,), (true,) = rows_of(tmp_path / "x" / "measures.csv"), rows_of(heart / "measures.csv")
    assert float(row["LVEF (%)"]) == pytest.approx(float(true["LVEF (%)"]), abs=6)


def test_input_of_no_heart_is_completed_with_a_warning(run, tmp_path, ed_map):
    image = nib.load(ed_map)
    affine = image.affine.copy()
    affine[:3] *= 0.5  # wrong voxel sizes: an eighth of the volume
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), tmp_path / "small.nii.gz")
    for name, warned in ((ed_map, False), ("small.nii.gz", True)):
        ran = run("complete", name, "--label-map", "ukbb", "--out", "x", "--overwrite", *FEW)
        assert ran.code == 0, ran.err
        notes = json.loads((tmp_path / "x" / "parameters.json").read_text())["notes"]
        assert any("D10" in note and "LVEDV" in note for note in notes) == warned
        assert ("D10" in ran.err) == warned


def test_requests_that_are_refused(refused, tmp_path, ed_map):
    image = nib.load(ed_map)
    data = np.asarray(image.dataobj)
    nib.save(image, tmp_path / "ed.nii.gz")
    nib.save(nib.Nifti1Image(data * 0, image.affine), tmp_path / "empty.nii.gz")
    nib.save(nib.Nifti1Image(data[1:], image.affine), tmp_path / "small.nii.gz")
    one = ("complete", "ed.nii.gz", "--label-map", "ukbb", "--out", "x")
    two = ("complete", "ed.nii.gz", ed_map, "--label-map", "ukbb", "--out", "x")
    refused(*two, status=2, code="U01", words="--phase")
    for phases in (("0",), ("0", "0.3", "0.5"), ("0", "1"), ("0", "nan"), ("0.2", "0.2")):
        flags = [flag for phase in phases for flag in ("--phase", phase)]
        refused(*two, *flags, status=2, code="U01", words="--phase")
    refused("complete", "empty.nii.gz", *one[2:], status=3, code="L37")
    refused("complete", "ed.nii.gz", "small.nii.gz", *one[2:], "--phase", "0", "--phase", "0.3",
            status=3, code="L40a")  # fmt: skip
    refused(*one[:-1], tmp_path, "--overwrite", status=8, code="O02", words="ed.nii.gz")
    refused("complete", "ed.nii.gz", "--out", "x", status=2, code="U11", words="--label-map")
    refused(*one, "--samples", "-1", status=2, code="U01", words="--samples")
    refused(*one, "--samples", "19", "--overlap", status=2, code="U01", words="--samples 20")
    refused(*one, "--samples", "20", "--overlap", "--format", "csv", status=2, code="U01",
            words="--format")  # fmt: skip
    refused(*one, "--age", "17", status=5, code="D01")
    refused(*one, "--label-map", "mine", status=2, code="U11")
