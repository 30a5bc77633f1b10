"""``cardiogen track``: a cine and ED labels in, a folder out, faults named."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cardiogen.data import Grid, read_image, write_image
from cardiogen.population import Annulus, Pose, annulus_cine, annulus_grid
from cardiogen.transforms import load_transform, read_displacement

SMALL = Annulus(inner_ed=14.0, outer_ed=20.0, length=30.0, inner=11.0, stretch=0.93, twist=0.0)
QUICK = "margin_mm = 8.0\n[groupwise]\nharmonics = 2\niterations = [4, 3]\nfinest_mm = 2.0\n"
TRACK = ("track", "cine.nii.gz", "--ed-labels", "labels.nii.gz", "--label-map", "ukbb",
         "--config", "quick.toml")  # fmt: skip


@pytest.fixture
def cine(tmp_path):
    """Write a cine of an annulus, the labels of its ED and quick settings."""
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    pose = Pose(axes * np.array([1, 1, np.sign(np.linalg.det(axes))]), np.array([9.0, -30, 7]))
    grid = annulus_grid(SMALL, pose, (7.0, 2.5, 2.6), margin_mm=8.0)
    made = annulus_cine(SMALL, grid, pose, phases=np.arange(5) / 5).sequence
    write_image(tmp_path / "cine.nii.gz", made.images, grid, frame_time_s=0.16)
    write_image(tmp_path / "labels.nii.gz", made.labels[0], grid)
    (tmp_path / "quick.toml").write_text(QUICK)
    return made


def test_cine_to_a_folder(run, cine, tmp_path):
    ran = run(*TRACK, "--out", "r", "--json")
    assert ran.code == 0
    folder = tmp_path / "r"
    names = {p.name for p in folder.iterdir()} - {".cardiogen-output"}
    assert names == {
        "ed_to_frame", "motion.safetensors", "labels.nii.gz", "labels.txt", "mesh", "heart.pvd",
        "measures.csv", "frames.csv", "strain.csv", "strain_summary.csv", "strain.png",
        "bullseye.png", "energies.csv", "result.json",
    }  # fmt: skip
    assert len(list((folder / "mesh").iterdir())) == 5
    labels = read_image(folder / "labels.nii.gz")
    assert np.array_equal(labels.data[0], cine.labels[0])
    assert labels.frame_time_s == pytest.approx(0.16)
    assert read_displacement(folder / "ed_to_frame" / "frame_000.nii.gz").params.abs().max() == 0
    moved = read_displacement(folder / "ed_to_frame" / "frame_002.nii.gz")
    motion = load_transform(folder / "motion.safetensors")
    assert (moved.displacement() - motion.displacement([0.4])[0]).abs().max() < 1e-3
    strain = pd.read_csv(folder / "strain.csv")
    whole = strain[(strain.component == "circumferential") & (strain.level == "global")]
    assert whole.value.min() < -3
    assert json.loads((folder / "result.json").read_text())["closure_mm"] == 0
    assert ran.json["measures"]["LVEF (%)"] > 10


def test_frame_time_is_told_or_left_out(run, cine, tmp_path):
    image = nib.load(tmp_path / "cine.nii.gz")
    image.header["pixdim"][4] = 0
    nib.save(image, tmp_path / "cine.nii.gz")
    ran = run(*TRACK, "--out", "r")
    assert ran.code == 0
    assert "S84" in ran.err
    assert json.loads((tmp_path / "r" / "result.json").read_text())["cycle_s"] is None
    told = run(*TRACK, "--out", "told", "--frame-time-ms", "150", "--json")
    assert told.json["cycle_s"] == pytest.approx(0.75)
    for absurd in ("0", "33240", "nan"):
        ran = run(*TRACK, "--out", "absurd", "--frame-time-ms", absurd)
        assert ran.code == 2
        assert "CG-U01 --frame-time-ms" in ran.err


def test_labels_on_another_grid_are_resampled_only_if_asked(run, cine, tmp_path):
    finer = cine.grid.resized(tuple(2 * n - 1 for n in cine.grid.shape))
    wide = np.kron(cine.labels[0], np.ones((2, 2, 2), np.uint8))[:-1, :-1, :-1]
    write_image(tmp_path / "labels.nii.gz", wide, finer, overwrite=True)
    ran = run(*TRACK, "--out", "r")
    assert ran.code == 3
    assert "CG-L40a" in ran.err
    assert not (tmp_path / "r").exists()
    assert run(*TRACK, "--out", "r", "--resample-labels").code == 0
    away = Grid.regular(cine.grid.shape, (7, 2, 2), origin=(900.0, 0.0, 0.0))
    write_image(tmp_path / "labels.nii.gz", cine.labels[0], away, overwrite=True)
    ran = run(*TRACK, "--out", "s", "--resample-labels")
    assert "CG-N55" in ran.err


def test_bad_input_is_named_and_nothing_written(run, cine, tmp_path):
    grid = cine.grid
    write_image(tmp_path / "one.nii.gz", cine.images[0], grid)
    write_image(tmp_path / "empty.nii.gz", 0 * cine.labels[0], grid)
    bad = cine.images.copy()
    bad[1, 2, 3, 4] = np.nan
    nib.save(nib.Nifti1Image(bad.T, grid.affine[:, [2, 1, 0, 3]]), tmp_path / "nan.nii.gz")
    swaps = {"one.nii.gz": "N36", "nan.nii.gz": "N26"}
    for name, code in swaps.items():
        ran = run("track", name, *TRACK[2:], "--out", "r")
        assert ran.code == 3
        assert f"CG-{code}" in ran.err
    ran = run(*TRACK[:3], "empty.nii.gz", *TRACK[4:], "--out", "r")
    assert "CG-L37" in ran.err
    assert "CG-U01 --ed" in run(*TRACK, "--out", "r", "--ed", "5").err
    assert "CG-U14" in run(*TRACK[:-2], "--preset", "best", "--out", "r").err
    assert "CG-U15" in run(*TRACK, "--strategy", "guess", "--out", "r").err
    assert not (tmp_path / "r").exists()


def test_existing_output_stays(run, cine, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "kept.txt").write_text("kept")
    ran = run(*TRACK, "--out", "r")
    assert ran.code == 8
    assert (tmp_path / "r" / "kept.txt").read_text() == "kept"


def test_long_axis_joins_in(run, cine, tmp_path):
    """A view of other planes and frames measures motion through the slices; faults are named."""
    grid = cine.grid
    pose = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    up, across = grid.affine[:3, 0] / grid.spacing[0], grid.affine[:3, 1] / grid.spacing[1]
    axes = np.stack([np.cross(up, across), up, across], axis=1)
    middle = grid.to_world([(n - 1) / 2 for n in grid.shape])
    plane = Grid.regular((1, 30, 31), (6.0, 2.0, 2.0), middle - axes @ [0.0, 30.0, 30.0], axes)
    turned = Pose(pose * np.array([1, 1, np.sign(np.linalg.det(pose))]), np.array([9.0, -30, 7]))
    seen = annulus_cine(SMALL, plane, turned, phases=np.arange(7) / 7).sequence
    write_image(tmp_path / "lax.nii.gz", seen.images, plane, frame_time_s=0.12)
    ran = run(*TRACK, "--view", "lax.nii.gz", "--out", "r", "--json")
    assert ran.code == 0
    assert [(v["name"], v["frames"]) for v in ran.json["views"]] == [("lax", 7)]
    assert "lax.nii.gz" in ran.json["provenance"]["files"]
    assert "further views" in ran.json["through_plane"]
    assert any(note.startswith("S85") for note in ran.json["notes"])
    write_image(tmp_path / "one.nii.gz", seen.images[0], plane)
    moved = Grid.regular(plane.shape, plane.spacing, (900.0, 0.0, 0.0), axes)
    write_image(tmp_path / "away.nii.gz", seen.images, moved, frame_time_s=0.12)
    bad = {"one": ("N36", 3), "away": ("N55", 3)}
    for name, (code, status) in bad.items():
        ran = run(*TRACK, "--view", f"{name}.nii.gz", "--out", "s")
        assert f"CG-{code}" in ran.err
        assert ran.code == status
    ran = run(*TRACK, "--view", "lax.nii.gz", "--strategy", "direct", "--out", "s")
    assert ran.code == 2
    assert "CG-U16 --view" in ran.err
    assert not (tmp_path / "s").exists()
