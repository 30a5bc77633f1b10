"""What a result tells, writes and draws; images of other grids."""

import json

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data import Grid
from cardiogen.transforms import load_transform, read_displacement
from registration import register
from registration.overview import draw_overview
from registration.world import check_overlap, labels_onto_grid, onto_grid


@pytest.fixture
def result(pair, grid, make_config):
    return register(*pair[:2], grid, config=make_config(iterations=(3, 2)))


def test_saved_folder_holds_the_same_transform(result, grid, tmp_path):
    result.save(tmp_path / "r")
    again = load_transform(tmp_path / "r" / "transform.safetensors")
    assert torch.equal(again.displacement(), result.displacement)
    world = read_displacement(tmp_path / "r" / "displacement.nii.gz")
    assert world.grid.matches(grid)
    torch.testing.assert_close(world.field(), result.displacement, atol=1e-4, rtol=0)
    facts = json.loads((tmp_path / "r" / "result.json").read_text())
    assert facts["folding_fraction"] == [0.0]
    assert facts["provenance"]["fixed_sha256"] != facts["provenance"]["moving_sha256"]
    assert facts["provenance"]["config"]["stages"][0]["solver"] == "gauss_newton"
    rows = (tmp_path / "r" / "energies.csv").read_text().splitlines()
    assert len(rows) == 1 + len(result.energies)
    with pytest.raises(CardiogenError, match="CG-O01"):
        result.save(tmp_path / "r")
    result.save(tmp_path / "r", overwrite=True)


def test_numbers_of_a_result(result, pair, grid):
    field = result.metrics[0].field
    assert field.folding_fraction == 0
    assert field.sdlogj > 0
    assert result.timings["total"] >= result.timings["1 svf"] > 0
    assert list(result.energies.columns[:6]) == ["stage", "transform", "level", "step", "pair",
                                                 "energy"]  # fmt: skip
    assert torch.equal(result.moved(pair[1]), ops.warp(pair[1], result.displacement))
    labels = (pair[1] > 0.5).long()
    assert set(result.moved_labels(labels).unique().tolist()) == {0, 1}
    assert result.notes == ()


def test_folds_are_stated(pair, grid, make_config):
    fixed, moving, _ = pair
    torn = fixed + 0.3 * torch.randn(fixed.shape, generator=torch.Generator().manual_seed(0))
    config = make_config(transform="displacement", terms={"a": "mse", "b": ("diffusion", 1e-7)},
                         unfold=False)  # fmt: skip
    result = register(torn, moving, grid, config=config)
    assert result.folds[0] > 0
    assert result.notes[0].code == "S77"
    whole = register(torn, moving, grid, config=config.model_copy(update={"unfold": True}))
    assert whole.folds == (0.0,)


def test_overview_is_drawn(result, pair, grid, tmp_path):
    draw_overview(tmp_path / "a.png", *pair[:2], result.displacement, grid, title="t")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    draw_overview(tmp_path / "b.png", *pair[:2], 0 * result.displacement, grid)


def test_images_come_onto_another_grid_through_the_world(grid, make_image):
    image = make_image(grid, width_mm=9.0)
    finer = grid.resized((7, 65, 75))
    fine = onto_grid(image, grid, finer)
    back = onto_grid(fine, finer, grid)
    assert (back - image).abs().mean() < 0.02
    assert onto_grid(image, grid, grid) is image
    labels = (image > 0.5).to(torch.uint8)
    round_trip = labels_onto_grid(labels_onto_grid(labels, grid, finer), finer, grid)
    assert (round_trip != labels).float().mean() < 0.01


def test_overlap_is_that_of_the_world(grid):
    everywhere, notes = check_overlap(grid, grid, "moving.nii")
    assert everywhere.mean() == 1
    assert notes == []
    shift = grid.affine.copy()
    shift[:3, 3] += grid.affine[:3, 2] * 30
    inside, notes = check_overlap(grid, Grid(grid.shape, shift), "moving.nii")
    np.testing.assert_allclose(inside.mean(), 8 / 38, atol=1e-6)
    assert [n.code for n in notes] == ["N56"]
    shift[:3, 3] += grid.affine[:3, 2] * 30
    with pytest.raises(
        CardiogenError, match=r"CG-N55 moving\.nii: found grids that do not overlap"
    ):
        check_overlap(grid, Grid(grid.shape, shift), "moving.nii")
