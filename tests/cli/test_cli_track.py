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


def _with_frame_time(path, value):
    image = nib.load(path)
    image.header["pixdim"][4] = value
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


@pytest.mark.parametrize(("stored", "cycle"), [(1.0, None), (0.05, None), (0.41, None),
                                               (0.06, 0.3), (160.0, 0.8)])  # fmt: skip
def test_header_is_believed_only_as_a_heart_beat(run, cine, tmp_path, stored, cycle):
    """1 is what NIfTI writers leave in pixdim[4]: five frames would beat once in 5 s."""
    _with_frame_time(tmp_path / "cine.nii.gz", stored)
    ran = run(*TRACK, "--out", "r", "--json")
    assert ran.json["cycle_s"] == (None if cycle is None else pytest.approx(cycle))
    assert any(n.startswith("S84") for n in ran.json["notes"]) == (cycle is None)
    if cycle is None:
        assert ran.json["measures"]["LVCO (L/min)"] is None
        strain = pd.read_csv(tmp_path / "r" / "strain.csv")
        assert strain[strain.component == "circumferential rate"].value.isna().all()


def test_milliseconds_stored_as_seconds_are_told_by_the_cycle(tmp_path):
    """300 short frames: none is long, but only as milliseconds is their cycle a heart's."""
    from cardiogen.cli.track_inputs import _frame_time
    from cardiogen.data import Image

    grid = Grid.regular((2, 3, 4), (8.0, 2.0, 2.0))
    noise = np.random.default_rng(0).random((300, *grid.shape), dtype=np.float32)
    write_image(tmp_path / "a.nii", noise, grid, frame_time_s=3.0)
    image = read_image(tmp_path / "a.nii")
    assert image.frame_time_s == pytest.approx(0.003)
    assert any(note.code == "N23" for note in image.notes)
    few = Image(noise[:150], grid, 4.0, "trusted", ())
    seconds, notes = _frame_time(few, tmp_path, None)
    assert seconds == pytest.approx(0.004)
    assert notes[0].code == "N23"


def test_what_is_not_seen_is_empty_and_told(run, cine, tmp_path):
    ran = run(*TRACK, "--out", "r", "--ed", "0")
    assert "S87" in ran.err
    measures = pd.read_csv(tmp_path / "r" / "measures.csv").iloc[0]
    assert measures[["RVESV (mL)", "RVSV (mL)", "RVEF (%)"]].isna().all()
    assert measures["RVEDV (mL)"] > 1
    assert measures["note"].startswith("RVESV, RVSV, RVEF are left empty: ")
    frames = pd.read_csv(tmp_path / "r" / "frames.csv")
    assert frames["RV (mL)"].notna().tolist() == [True, False, False, False, False]
    assert frames["note"].str.startswith("RVESV").all()
    strain = pd.read_csv(tmp_path / "r" / "strain_summary.csv")
    long = strain[strain.component == "longitudinal"]
    assert long["peak (%)"].isna().all()
    assert long.reason.str.startswith("not measured").all()


def test_phase_is_zero_at_ed_in_every_table(run, cine, tmp_path):
    images = np.roll(cine.images, 2, axis=0)
    write_image(tmp_path / "cine.nii.gz", images, cine.grid, frame_time_s=0.16, overwrite=True)
    assert run(*TRACK, "--ed", "2", "--out", "r").code == 0
    strain = pd.read_csv(tmp_path / "r" / "strain.csv")
    frames = pd.read_csv(tmp_path / "r" / "frames.csv")
    one = strain[(strain.component == "circumferential") & (strain.level == "global")]
    assert one.phase.tolist() == pytest.approx([0.6, 0.8, 0.0, 0.2, 0.4])
    assert frames.phase.tolist() == pytest.approx(one.phase.tolist())
    assert frames["ED/ES"][2] == "ED"
    assert one.value.iloc[2] == 0


def test_labels_of_another_map_are_refused(run, cine, tmp_path):
    """Read as acdc, ukbb codes swap LV and RV: the wall then surrounds the right ventricle."""
    wrong = [*TRACK]
    wrong[wrong.index("ukbb")] = "acdc"
    ran = run(*wrong, "--out", "r")
    assert ran.code == 3
    assert "CG-L41" in ran.err
    assert "--label-map ukbb or mnms" in ran.err
    assert not (tmp_path / "r").exists()


def test_one_slice_is_written_without_volumes(run, cine, tmp_path):
    cut = cine.grid.shape[0] // 2
    grid = cine.grid.cropped((cut, 0, 0), (1, *cine.grid.shape[1:]))
    write_image(tmp_path / "cine.nii.gz", cine.images[:, cut : cut + 1], grid, overwrite=True)
    write_image(tmp_path / "labels.nii.gz", cine.labels[0, cut : cut + 1], grid, overwrite=True)
    ran = run(*TRACK, "--out", "r", "--json")
    assert ran.code == 0
    assert ran.json["measures"]["LVEF (%)"] is None
    assert not (tmp_path / "r" / "bullseye.png").exists()
    strain = pd.read_csv(tmp_path / "r" / "strain.csv")
    assert strain[(strain.component == "circumferential") & (strain.segment == 0)].value.min() < -3


def test_motion_is_warped_at_any_phase(run, cine, tmp_path):
    """``warp --phase`` of the motion is ``warp`` of that frame's displacement."""
    assert run(*TRACK, "--out", "r").code == 0
    write_image(tmp_path / "third.nii.gz", cine.images[2], cine.grid)
    motion = ("warp", "third.nii.gz", "r/motion.safetensors")
    assert run(*motion, "--phase", "0.4", "--out", "a.nii.gz").code == 0
    assert run("warp", "third.nii.gz", "r/ed_to_frame/frame_002.nii.gz", "--out",
               "b.nii.gz").code == 0  # fmt: skip
    found, wanted = (read_image(tmp_path / f"{n}.nii.gz").data for n in "ab")
    assert np.abs(found - wanted).max() < 1e-2 * np.ptp(wanted)
    assert run(*motion, "--phase", "0.37", "--inverse", "--out", "c.nii.gz").code == 0
    ran = run(*motion, "--out", "d.nii.gz")
    assert "CG-S70" in ran.err
    assert "--phase" in ran.err
    for bad in ("1.2", "nan", "-0.1"):
        assert "CG-U01 --phase" in run(*motion, f"--phase={bad}", "--out", "d.nii.gz").err
    ran = run("warp", "third.nii.gz", "r/ed_to_frame/frame_002.nii.gz", "--phase", "0.4", "--out",
              "d.nii.gz")  # fmt: skip
    assert "CG-U01 --phase" in ran.err
    assert not (tmp_path / "d.nii.gz").exists()


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
