"""``cardiogen register`` and ``cardiogen warp``: files in, files out, faults named."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cardiogen.data import Grid, read_image, write_image
from cardiogen.transforms import read_displacement

SHAPE = (5, 33, 38)
QUICK = '[[stages]]\niterations = [4, 3]\n[stages.terms.a]\nterm = "mse"\n' \
        '[stages.terms.b]\nterm = "diffusion"\nweight = 1e-3\n'  # fmt: skip


def a_grid(shape=SHAPE, shift=(0.0, 0.0, 0.0)):
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return Grid.regular(shape, (6.0, 1.6, 1.5), origin=np.array([10.0, -5, 3]) + shift, axes=axes)


def heart_like(radius, shape=SHAPE):
    """Return an image of a ring around a bright disc, and its labels in ukbb codes."""
    _, h, w = np.mgrid[: shape[0], : shape[1], : shape[2]]
    away = np.hypot(h - 16, w - 19)
    labels = np.where(away < radius, 1, np.where(away < radius + 4, 2, 0)).astype(np.uint8)
    image = np.select([labels == 1, labels == 2], [1.0, 0.2], 0.5) + 0.2 * (w > 30)
    return gaussian_filter(image, (0, 1, 1)).astype(np.float32) * 100, labels


@pytest.fixture
def files(tmp_path):
    """Write two images and their labels."""
    grid = a_grid()
    for name, radius in (("fixed", 9), ("moving", 6.5)):
        image, labels = heart_like(radius)
        write_image(tmp_path / f"{name}.nii.gz", image, grid)
        write_image(tmp_path / f"{name}_gt.nii.gz", labels, grid)
    (tmp_path / "quick.toml").write_text(QUICK)
    return grid


def values(path):
    return read_image(path, contrast=False).data


PAIR = ("register", "fixed.nii.gz", "moving.nii.gz", "--config", "quick.toml")
LABELS = ("--fixed-labels", "fixed_gt.nii.gz", "--moving-labels", "moving_gt.nii.gz",
          "--label-map", "ukbb")  # fmt: skip


def test_images_to_a_folder(run, files, tmp_path):
    ran = run(*PAIR, *LABELS, "--out", "r", "--format", "itk", "--json")
    assert ran.code == 0
    names = {p.name for p in (tmp_path / "r").iterdir()} - {".cardiogen-output"}
    assert names == {"displacement.nii.gz", "displacement_itk.nii.gz", "moved.nii.gz",
                     "moved_labels.nii.gz", "transform.safetensors", "energies.csv",
                     "result.json", "overview.png"}  # fmt: skip
    assert ran.json["metrics"][0]["mean_dice"] > 0.85
    assert ran.json["folding_fraction"] == [0.0]
    assert ran.json["provenance"]["files"].keys() == {
        "fixed.nii.gz", "moving.nii.gz", "fixed_gt.nii.gz", "moving_gt.nii.gz", "quick.toml"
    }  # fmt: skip
    fixed, moving, moved = (
        values(tmp_path / p) for p in ("fixed.nii.gz", "moving.nii.gz", "r/moved.nii.gz")
    )
    assert ((moved - fixed) ** 2).mean() < 0.3 * ((moving - fixed) ** 2).mean()
    ours, itk = (read_displacement(tmp_path / "r" / f"displacement{e}.nii.gz").field()
                 for e in ("", "_itk"))  # fmt: skip
    torch.testing.assert_close(ours, itk, atol=1e-4, rtol=0)
    assert set(np.unique(values(tmp_path / "r" / "moved_labels.nii.gz"))) == {0, 1, 2}


def test_warp_repeats_what_register_has_moved(run, files, tmp_path):
    assert run(*PAIR, *LABELS, "--out", "r", "--format", "learn2reg").code == 0
    for field, more in (("displacement.nii.gz", ()), ("transform.safetensors", ()),
                        ("displacement_l2r.npz", ("--reference", "fixed.nii.gz"))):  # fmt: skip
        ran = run("warp", "moving.nii.gz", f"r/{field}", *more, "--out", "w.nii.gz", "--overwrite")
        assert ran.code == 0
        np.testing.assert_allclose(
            values(tmp_path / "w.nii.gz"), values(tmp_path / "r/moved.nii.gz"), atol=0.05
        )
    run("warp", "moving_gt.nii.gz", "r/displacement.nii.gz", "--labels", "--out", "l.nii.gz")
    labels = values(tmp_path / "l.nii.gz")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, values(tmp_path / "r/moved_labels.nii.gz"))


def test_inverse_brings_the_fixed_image_to_the_moving_one(run, files, tmp_path):
    run(*PAIR, "--out", "r")
    for field in ("displacement.nii.gz", "transform.safetensors"):
        ran = run("warp", "fixed.nii.gz", f"r/{field}", "--inverse", "--out", "i.nii.gz",
                  "--overwrite")  # fmt: skip
        assert ran.code == 0
        back, moving, fixed = (
            values(tmp_path / p) for p in ("i.nii.gz", "moving.nii.gz", "fixed.nii.gz")
        )
        assert ((back - moving) ** 2).mean() < 0.3 * ((fixed - moving) ** 2).mean()


def test_other_grids_meet_in_the_world(run, files, tmp_path):
    image, _ = heart_like(6.5)
    turned = image.transpose(2, 0, 1)[:, ::-1, 2:]
    place = files.permuted((2, 0, 1), (False, True, False)).cropped((0, 0, 2), turned.shape)
    write_image(tmp_path / "other.nii.gz", turned, place)
    fits = [run("register", "fixed.nii.gz", m, "--config", "quick.toml", "--out", o, "--json").json
            for m, o in (("moving.nii.gz", "a"), ("other.nii.gz", "b"))]  # fmt: skip
    assert fits[0]["provenance"]["grid"] == fits[1]["provenance"]["grid"]
    a, b = (values(tmp_path / f"{o}/moved.nii.gz") for o in "ab")
    assert np.abs(a - b)[:, 5:-5, 5:-5].mean() < 1.0
    run("warp", "other.nii.gz", "b/displacement.nii.gz", "--out", "w.nii.gz")
    np.testing.assert_allclose(values(tmp_path / "w.nii.gz")[:, 5:-5, 5:-5], b[:, 5:-5, 5:-5],
                               atol=0.5)  # fmt: skip


def test_label_maps_are_registered_by_overlap(run, files, tmp_path):
    ran = run("register", "fixed_gt.nii.gz", "moving_gt.nii.gz", "--preset", "labels",
              "--label-map", "ukbb", "--out", "r", "--json")  # fmt: skip
    assert ran.json["metrics"][0]["mean_dice"] > 0.93
    assert ran.json["folding_fraction"] == [0.0]
    names = {p.name for p in (tmp_path / "r").iterdir()}
    assert "moved_labels.nii.gz" in names
    assert "moved.nii.gz" not in names


def test_whole_numbered_images_are_registered_as_their_values_are(run, files, tmp_path):
    place = nib.load(tmp_path / "fixed.nii.gz").affine
    for kind in (np.uint8, np.int16):
        for name in ("fixed", "moving"):
            image = np.rint(values(tmp_path / f"{name}.nii.gz")).astype(kind)
            nib.save(nib.Nifti1Image(image.T, place), tmp_path / f"{name}_{kind.__name__}.nii.gz")
    moved = {}
    for kind in ("uint8", "int16"):
        ran = run("register", f"fixed_{kind}.nii.gz", f"moving_{kind}.nii.gz", *PAIR[3:],
                  "--out", kind)  # fmt: skip
        assert ran.code == 0
        moved[kind] = values(tmp_path / kind / "moved.nii.gz")
    np.testing.assert_array_equal(moved["uint8"], moved["int16"])


def test_nothing_is_made_up_where_the_moving_image_does_not_reach(run, files, tmp_path):
    image, _ = heart_like(6.5)
    half = image[:, :20]
    write_image(tmp_path / "half.nii.gz", half, files.cropped((0, 0, 0), half.shape))
    run("register", "fixed.nii.gz", "half.nii.gz", *PAIR[3:], "--out", "r")
    run("warp", "half.nii.gz", "r/displacement.nii.gz", "--out", "w.nii.gz")
    for name in ("r/moved.nii.gz", "w.nii.gz"):
        moved = values(tmp_path / name)
        assert (moved[:, 26:] == 0).all()
        assert (moved[:, 3:14, 3:-3] > 0).all()
    # No code stands for background in this map.
    codes = np.full(half.shape, 7, dtype=np.uint8)
    write_image(tmp_path / "codes.nii.gz", codes, files.cropped((0, 0, 0), half.shape))
    run("warp", "codes.nii.gz", "r/displacement.nii.gz", "--labels", "--out", "c.nii.gz")
    found = values(tmp_path / "c.nii.gz")
    assert (found[:, 26:] == 0).all()
    assert (found[:, 3:14, 3:-3] == 7).all()


def test_the_preset_that_was_used_is_named(run, files, tmp_path):
    made = {}
    for more in ((), ("--preset", "accurate"), ("--config", "quick.toml")):
        ran = run("register", "fixed.nii.gz", "moving.nii.gz", *more, "--out", f"r{len(made)}",
                  "--json")  # fmt: skip
        made[more[1:]] = ran.json["provenance"]["preset"]
    assert made == {(): "fast", ("accurate",): "accurate", ("quick.toml",): None}


def test_four_dimensional_images_are_warped_frame_by_frame(run, files, tmp_path):
    run(*PAIR, "--out", "r")
    image, _ = heart_like(6.5)
    write_image(tmp_path / "cine.nii.gz", np.stack([image, 2 * image]), files, frame_time_s=0.03)
    run("warp", "cine.nii.gz", "r/displacement.nii.gz", "--out", "w.nii.gz")
    moved = read_image(tmp_path / "w.nii.gz")
    assert moved.frame_time_s == pytest.approx(0.03)
    np.testing.assert_allclose(moved.data[1], 2 * moved.data[0], rtol=1e-5)


def bad_files(tmp_path):
    image, labels = heart_like(9)
    write_image(tmp_path / "far.nii.gz", image, a_grid(shift=(500.0, 0, 0)))
    write_image(tmp_path / "elsewhere_gt.nii.gz", labels, a_grid(shift=(9.0, 0, 0)))
    write_image(tmp_path / "empty_gt.nii.gz", 0 * labels, a_grid())
    write_image(tmp_path / "cine.nii.gz", np.stack([image] * 3), a_grid(), frame_time_s=0.03)
    holed = image.copy()
    holed[0, 0, 0] = np.nan
    header = nib.load(tmp_path / "fixed.nii.gz")
    nib.save(nib.Nifti1Image(holed.T, header.affine), tmp_path / "nan.nii.gz")


BAD = [
    (("fixed.nii.gz", "far.nii.gz"), 3, "N55", "do not overlap"),
    (("fixed.nii.gz", "nan.nii.gz"), 3, "N26", "NaN"),
    (("fixed.nii.gz", "cine.nii.gz"), 3, "N36", "shape"),
    (("fixed.nii.gz", "gone.nii.gz"), 3, "N47", "gone"),
    (("fixed.nii.gz", "moving.nii.gz", "--fixed-labels", "fixed_gt.nii.gz", "--moving-labels",
      "elsewhere_gt.nii.gz", "--label-map", "ukbb"), 3, "L40a", "9 mm"),
    (("fixed.nii.gz", "moving.nii.gz", "--fixed-labels", "empty_gt.nii.gz", "--moving-labels",
      "moving_gt.nii.gz", "--label-map", "ukbb"), 3, "L37", "empty"),
    (("fixed.nii.gz", "moving.nii.gz", "--fixed-labels", "fixed_gt.nii.gz"), 2, "U01", "both"),
    (("fixed_gt.nii.gz", "moving_gt.nii.gz", "--preset", "labels"), 2, "U11", "--label-map"),
    (("fixed.nii.gz", "moving.nii.gz", "--preset", "best"), 2, "U14", "fast"),
    (("fixed.nii.gz", "moving.nii.gz", "--preset", "fast", "--config", "quick.toml"), 2, "U01",
     "one of them"),
    (("fixed.nii.gz", "moving.nii.gz", "--config", "wrong.toml"), 4, "M07", "iteration"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "status", "code", "words"), BAD)
def test_faults_are_named_and_nothing_is_written(refused, files, tmp_path, arguments, status,
                                                 code, words):  # fmt: skip
    bad_files(tmp_path)
    (tmp_path / "wrong.toml").write_text(QUICK.replace("iterations", "iteration"))
    refused("register", *arguments, "--out", "r", status=status, code=code, words=words)
    assert not (tmp_path / "r").exists()


def test_existing_outputs_stay(run, refused, files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    refused(*PAIR, "--out", "mine", status=8, code="O01", words="mine")
    refused(*PAIR, "--out", "mine", "--overwrite", status=8, code="O03", words="mine")
    run(*PAIR, "--out", "r")
    warp = ("warp", "moving.nii.gz", "r/displacement.nii.gz")
    refused(*warp, "--out", "moving.nii.gz", "--overwrite", status=8, code="O02", words="input")
    refused(*warp, "--out", "fixed.nii.gz", status=8, code="O01", words="fixed")


def test_faults_of_warp(run, refused, files, tmp_path):
    bad_files(tmp_path)
    run(*PAIR, "--out", "r", "--format", "learn2reg")
    warp = ("warp", "moving.nii.gz")
    refused(*warp, "fixed.nii.gz", "--out", "w.nii", status=3, code="N52", words="1006")
    refused(*warp, "r/displacement_l2r.npz", "--out", "w.nii", status=2, code="U01",
            words="--reference")  # fmt: skip
    refused("warp", "far.nii.gz", "r/displacement.nii.gz", "--out", "w.nii", status=3, code="N55",
            words="do not overlap")  # fmt: skip
    refused(*warp, "r/displacement.nii.gz", "--labels", "--out", "w.nii", status=3, code="L38",
            words="whole")  # fmt: skip
    refused(*warp, "r/displacement.nii.gz", "--out", "w.png", status=2, code="U01", words=".nii")
    refused(*warp, "r/displacement.nii.gz", "--order", "2", "--out", "w.nii", status=2,
            code="U01", words="0, 1 or 3")  # fmt: skip


def test_mask_says_where_images_are_compared(run, refused, files, tmp_path):
    image, _ = heart_like(6.5)
    image[:, :, 30:] += 300.0 * np.random.default_rng(0).random((5, 33, 8), dtype=np.float32)
    write_image(tmp_path / "moving.nii.gz", image, files, overwrite=True)
    keep = np.zeros(SHAPE, np.uint8)
    keep[:, :, :28] = 1
    write_image(tmp_path / "keep.nii.gz", keep, files)
    moves = []
    for out, more in (("a", ()), ("b", ("--mask", "keep.nii.gz"))):
        assert run(*PAIR, *more, "--out", out).code == 0
        field = read_displacement(tmp_path / out / "displacement.nii.gz")
        moves.append(float(field.displacement()[..., 33:].abs().mean()))
    assert moves[1] < 0.5 * moves[0]
    write_image(tmp_path / "none.nii.gz", 0 * keep, files)
    refused(*PAIR, "--mask", "none.nii.gz", "--out", "c", status=3, code="N55")
    write_image(tmp_path / "far.nii.gz", keep, a_grid(shift=(9.0, 0, 0)))
    refused(*PAIR, "--mask", "far.nii.gz", "--out", "c", status=3, code="L40a")


def test_initial_transform_is_where_the_search_begins(run, files, tmp_path):
    assert run(*PAIR, "--out", "a").code == 0
    (tmp_path / "still.toml").write_text(QUICK.replace("[4, 3]", "[1]"))
    still = ("register", "fixed.nii.gz", "moving.nii.gz", "--config", "still.toml", *LABELS)
    alone = run(*still, "--out", "b", "--json").json
    begun = run(*still, "--initial", "a/displacement.nii.gz", "--out", "c", "--json").json
    assert begun["metrics"][0]["mean_dice"] > alone["metrics"][0]["mean_dice"] + 0.02
