"""Bundles of models of label maps: trained, generated from, completed; the rest is refused."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from cardiogen.cli.train import train
from cardiogen.measure import measure_path

SETTINGS = """
model = "{kind}"
n = 64
[network]
{frames}
shape = [19, 17, 18]
spacing_mm = [7.5, 7.5, 7.5]
widths = [8, 16]
latent = 6
code = 4
evidence_share = 0.2
[network.fit]
steps = 100
batch_size = 8
learning_rate = 8e-3
warmup_steps = 10
"""
FRAMES = {
    "sequence": 'frames = 5\ntemporal = "periodic"\nharmonics = 2\nframes_per_step = 2',
    "volume": "",
}
MESH_FILES = {"heart.glb", "heart.pvd", "mesh"}


@pytest.fixture(scope="module", params=FRAMES)
def bundle(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = folder / "c.toml"
    config.write_text(SETTINGS.format(kind=request.param, frames=FRAMES[request.param]))
    return train(folder / "b", model=request.param, config=config, device="cpu")


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def frames_of(bundle):
    """How many frames a cycle of five has from this model."""
    return {"sequence": 5, "volume": 2}[json.loads((bundle / "model.json").read_text())["kind"]]


def test_the_card_tells_what_the_model_gives(bundle):
    card = (bundle / "card.md").read_text()
    assert "no meshes" in card
    assert "6 latents; 19 17 18 voxels of 7.5 7.5 7.5 mm" in card


def test_a_heart_has_label_maps_measures_and_a_picture(run, tmp_path, bundle):
    ran = run("generate", "--model", bundle, "--age", "50", "--sex", "M", "--frames", "5",
              "--spacing", "2.5", "--out", "x")  # fmt: skip
    assert ran.code == 0, ran.err
    files = {p.name for p in (tmp_path / "x").iterdir()}
    assert files >= {"labels.nii.gz", "measures.csv", "frames.csv", "preview.png"}
    assert not files & MESH_FILES
    image = nib.load(tmp_path / "x" / "labels.nii.gz")
    assert image.shape[3] == frames_of(bundle)
    np.testing.assert_allclose(image.header.get_zooms()[:3], 2.5, rtol=1e-6)
    assert set(np.unique(np.asarray(image.dataobj))) == {0, 1, 2, 3}
    (row,) = rows_of(tmp_path / "x" / "measures.csv")
    measured = measure_path(tmp_path / "x" / "labels.nii.gz").table.iloc[0]
    for name in ("LVEDV (mL)", "LVESV (mL)", "LVM (g)", "RVEF (%)"):
        assert float(row[name]) == pytest.approx(measured[name], abs=1e-3)
    assert 60 < float(row["LVEDV (mL)"]) < 300
    facts = json.loads((tmp_path / "x" / "parameters.json").read_text())
    assert any("U12 model" in note for note in facts["notes"])


def test_a_cohort_is_one_that_check_reads(run, tmp_path, bundle):
    arguments = ("generate", "--model", bundle, "--frames", "5", "--spacing", "5", "--format",
                 "nifti,csv", "--seed", "4")  # fmt: skip
    assert run(*arguments, "-n", "2", "--out", "c").code == 0
    assert run("check", "c").code == 0
    frames = frames_of(bundle)
    for row in rows_of(tmp_path / "c" / "subjects.csv"):
        assert (row["n_frames"], row["ed_frame"]) == (str(frames), "0")
        assert 0 < int(row["es_frame"]) < frames
    alone = run(*arguments, "--out", "one")
    assert alone.code == 0
    first, same = (nib.load(tmp_path / p / "labels.nii.gz") for p in ("c/heart_00001", "one"))
    np.testing.assert_array_equal(np.asarray(first.dataobj), np.asarray(same.dataobj))


def test_a_frame_alone_and_its_completion(run, tmp_path, bundle):
    made = run("generate", "--model", bundle, "--age", "50", "--sex", "F", "--phase-only", "ed",
               "--spacing", "4", "--format", "nifti", "--out", "ed")  # fmt: skip
    assert made.code == 0, made.err
    ran = run("complete", "ed/labels.nii.gz", "--model", bundle, "--age", "50", "--sex", "F",
              "--frames", "5", "--samples", "20", "--format", "nifti,csv",
              "--out", "whole")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "U12 model" in ran.err
    seen, whole = (nib.load(tmp_path / p / "labels.nii.gz") for p in ("ed", "whole"))
    assert whole.shape == (*seen.shape, frames_of(bundle))
    np.testing.assert_allclose(whole.affine, seen.affine)
    a, b = np.asarray(seen.dataobj) == 1, np.asarray(whole.dataobj)[..., 0] == 1
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.7
    rows = rows_of(tmp_path / "whole" / "frames.csv")
    low, high = (float(rows[0][f"LV labels {end} 90 % (mL)"]) for end in ("lower", "upper"))
    assert 0 < low < high
    assert len(rows_of(tmp_path / "whole" / "samples.csv")) == 20


def test_what_needs_meshes_or_a_gaussian_is_refused(run, refused, bundle):
    assert run("generate", "--model", bundle, "--phase-only", "ed", "--spacing", "4", "--format",
               "nifti", "--out", "ed").code == 0  # fmt: skip
    model = ("--model", bundle, "--out", "x")
    refused("generate", *model, "--format", "nifti,glb", status=2, code="U12",
            words="found glb of a model of label maps")  # fmt: skip
    refused("complete", "ed/labels.nii.gz", *model, "--format", "vtp", status=2, code="U12")
    refused("generate", *model, "--age", "17", status=5, code="D01")
    for command in (("age", "--to", "80"), ("score",)):
        refused(command[0], "ed/labels.nii.gz", *command[1:], "--age", "50", *model, status=4,
                code="M21")  # fmt: skip
