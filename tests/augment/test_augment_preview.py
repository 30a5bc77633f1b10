"""Audit images: rows for every transform, the same picture for the same seed."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner

from augment import classic_chain, full_chain, preview_rows, write_preview_grid
from cardiogen.base import CardiogenError
from cardiogen.cli.app import app
from cardiogen.cli.preview_augment import preview_augment
from cardiogen.data import Grid, write_image


def stack():
    """Return an image and labels of a small oblique stack, with structures in the middle."""
    grid = Grid.regular((5, 24, 28), (8.0, 1.4, 1.4), (3.0, 2.0, 1.0))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[1:4, 8:16, 8:20] = 2
    labels[1:4, 10:14, 10:14] = 1
    labels[2, 8:16, 20:25] = 3
    image = np.array([0.2, 0.9, 0.4, 0.8], dtype=np.float32)[labels]
    noise = np.random.default_rng(0).normal(scale=0.02, size=grid.shape)
    return grid, image + noise.astype(np.float32), labels


def test_rows_are_the_original_and_draws(kit):
    image, labels = kit.phantoms(1)
    chain = classic_chain()
    rows = preview_rows(image, chain=chain, spacing=(2.0, 2.0), labels=labels, draws=3, seed=1)
    assert list(rows) == [*(t.name for t in chain.transforms), "chain"]
    for name, panels in rows.items():
        assert torch.equal(panels[0][0], image)
        assert len(panels) == 4
        for moved, codes in panels[1:]:
            assert not torch.equal(moved, image)
            assert set(codes.unique().tolist()) <= {0, 1, 2, 3}
            if name in ("GaussianNoise", "BiasField"):
                assert torch.equal(codes.long(), labels)
    again = preview_rows(image, chain=chain, spacing=(2.0, 2.0), labels=labels, draws=3, seed=1)
    assert torch.equal(again["chain"][2][0], rows["chain"][2][0])


def test_the_picture_is_the_same_bytes_each_time(kit, tmp_path):
    image, labels = kit.phantoms(1)
    options = {"chain": classic_chain(), "spacing": (2.0, 2.0), "draws": 2, "labels": labels}
    first = write_preview_grid(tmp_path / "a.png", image, **options)
    second = write_preview_grid(tmp_path / "b.png", image, **options)
    assert first.read_bytes() == second.read_bytes()
    picture = imread(first)
    assert picture.shape[0] > picture.shape[1] > 300
    with pytest.raises(CardiogenError, match="O01"):
        write_preview_grid(first, image, **options)
    with pytest.raises(ValueError, match="image must have shape \\(1, 1"):
        write_preview_grid(first, image.expand(2, -1, -1, -1), **options)


@pytest.mark.parametrize("plane", [True, False])
def test_the_command_reads_files(tmp_path, plane):
    grid, image, labels = stack()
    write_image(tmp_path / "image.nii.gz", image, grid)
    write_image(tmp_path / "labels.nii.gz", labels, grid)
    out = preview_augment(
        tmp_path / "image.nii.gz", out=tmp_path / "grid.png", labels=tmp_path / "labels.nii.gz",
        plane=plane, draws=2,
    )  # fmt: skip
    rows = len(full_chain(2 if plane else 3).transforms) + 1
    assert imread(out).shape[0] > rows * 150


def test_the_command_refuses_what_does_not_fit(tmp_path):
    grid, image, labels = stack()
    write_image(tmp_path / "image.nii.gz", image, grid)
    write_image(tmp_path / "short.nii.gz", labels[:4], grid.cropped((0, 0, 0), (4, 24, 28)))
    moved = Grid.regular(grid.shape, grid.spacing, (30.0, 2.0, 1.0))
    write_image(tmp_path / "moved.nii.gz", labels, moved)
    broken = image.copy()
    broken[2, 3, 4] = np.nan
    affine = np.eye(4)
    nib.save(nib.Nifti1Image(broken.transpose(2, 1, 0), affine), tmp_path / "broken.nii.gz")
    write_image(tmp_path / "codes.nii.gz", labels * 9, grid)
    good, out = tmp_path / "image.nii.gz", tmp_path / "grid.png"
    for name, code in (("short", "L40a"), ("moved", "L40b"), ("codes", "L39")):
        with pytest.raises(CardiogenError, match=code):
            preview_augment(good, out=out, labels=tmp_path / f"{name}.nii.gz")
    with pytest.raises(CardiogenError, match="N26"):
        preview_augment(tmp_path / "broken.nii.gz", out=out)
    for options in ({"frame": 3}, {"draws": 0}, {"seed": -1}):
        with pytest.raises(CardiogenError, match="U12"):
            preview_augment(good, out=out, **options)
    with pytest.raises(CardiogenError, match="U12"):
        preview_augment(good, out=tmp_path / "grid.jpg")
    assert not out.exists()


def test_the_command_line_makes_the_same_picture(tmp_path):
    grid, image, labels = stack()
    write_image(tmp_path / "image.nii.gz", image, grid)
    write_image(tmp_path / "labels.nii.gz", labels, grid)
    files = [str(tmp_path / "image.nii.gz"), "--labels", str(tmp_path / "labels.nii.gz")]
    out = ["--out", str(tmp_path / "shown.png")]
    settings = ["--chain", "classic", "--plane", "--draws", "2", "--seed", "5"]
    told = CliRunner().invoke(app, ["preview-augment", *files, *out, *settings, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output) == {"picture": str(tmp_path / "shown.png")}
    called = preview_augment(
        files[0], out=tmp_path / "called.png", labels=files[2], chain="classic", plane=True,
        draws=2, seed=5,
    )  # fmt: skip
    assert (tmp_path / "shown.png").read_bytes() == called.read_bytes()
    again = CliRunner().invoke(app, ["preview-augment", *files, *out])
    assert isinstance(again.exception, CardiogenError)
    assert again.exception.code == "O01"


def test_a_chain_that_is_none_is_refused(tmp_path):
    with pytest.raises(CardiogenError, match=r"CG-U12 --chain: .*classic or full"):
        preview_augment(tmp_path / "image.nii", out=tmp_path / "grid.png", chain="all")
