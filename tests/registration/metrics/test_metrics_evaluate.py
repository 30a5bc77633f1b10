"""The one door: boxes with known overlap and distances in mm, landmarks, absent structures."""

import json

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.data import Grid, Structure
from registration.metrics import evaluate_registration, warp_label_map

LV, MYO, RV = Structure.LV, Structure.MYO, Structure.RV


def box(shape, start, size, label=1):
    labels = np.zeros(shape, dtype=np.uint8)
    labels[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = label
    return labels


def shift(shape, by):
    """Displacement that adds ``by`` voxels everywhere."""
    return torch.tensor(by, dtype=torch.float64).view(1, 3, 1, 1, 1).expand(1, 3, *shape).clone()


def test_identity_leaves_the_known_difference_of_two_boxes(oblique_grid):
    """Boxes of 3 x 4 x 5 voxels one voxel (1.2 mm) apart along w.

    That step is short enough for the nearest face to be the one that lies straight ahead.
    """
    shape, spacing = (7, 10, 13), np.array([8.0, 3.0, 1.2])
    grid = Grid.regular(shape, spacing, axes=oblique_grid.affine[:3, :3] / oblique_grid.spacing)
    fixed, moving = box(shape, (2, 3, 4), (3, 4, 5)), box(shape, (2, 3, 5), (3, 4, 5))
    found = evaluate_registration(
        shift(shape, (0, 0, 0)), grid, fixed_labels=fixed, moving_labels=moving
    )
    length = spacing * (3, 4, 5)
    moved_faces = 2 * length[0] * length[1] + 2 * (length[0] + length[1]) * spacing[2]
    all_faces = 2 * (length[0] * length[1] + length[0] * length[2] + length[1] * length[2])
    lv = found.structures["LV"]
    assert lv.dice == pytest.approx(4 / 5)
    assert lv.hd95_mm == pytest.approx(1.2)
    assert lv.surface_mm == pytest.approx(1.2 * moved_faces / all_faces)
    assert lv.failure == ""
    assert found.structures["RV"].failure == "absent in fixed and moved"
    assert np.isnan(found.structures["RV"].dice)
    assert found.mean_dice == lv.dice
    assert found.mean_hd95_mm == lv.hd95_mm
    assert found.mean_surface_mm == lv.surface_mm


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_right_shift_makes_them_equal(oblique_grid, axis):
    """Pull-back: moved(x) = moving(x + u), so u is the step from fixed to moving."""
    shape, step = oblique_grid.shape, np.eye(3, dtype=int)[axis]
    start = np.array([2, 3, 4])
    fixed, moving = box(shape, start, (3, 4, 5)), box(shape, start + step, (3, 4, 5))
    for mode in ("strict", "l2r"):
        found = evaluate_registration(
            shift(shape, step), oblique_grid, fixed_labels=fixed, moving_labels=moving, mode=mode
        )
        assert found.structures["LV"].dice == 1.0
        assert found.structures["LV"].hd95_mm == 0.0
    wrong = evaluate_registration(
        shift(shape, -step), oblique_grid, fixed_labels=fixed, moving_labels=moving
    )
    assert wrong.structures["LV"].dice == pytest.approx(1 - 2 / (3, 4, 5)[axis])
    assert wrong.structures["LV"].hd95_mm == pytest.approx(2 * oblique_grid.spacing[axis])


def test_strict_labels_are_argmax_of_linear(oblique_grid):
    """A shift of .4 voxel keeps a box, one of .6 moves it; equal halves go to background."""
    shape = oblique_grid.shape
    moving = box(shape, (2, 3, 4), (3, 4, 5), label=7)
    for by, expected in ((0.4, 4), (0.6, 3)):
        moved = warp_label_map(moving.astype(np.int64), shift(shape, (0, 0, by)))
        assert np.array_equal(moved, box(shape, (2, 3, expected), (3, 4, 5), label=7))
    halved = warp_label_map(moving.astype(np.int64), shift(shape, (0, 0, 0.5)))
    assert (halved == 7).sum() == 3 * 4 * 4


def test_label_codes_may_be_sparse_and_negative(oblique_grid):
    shape = oblique_grid.shape
    codes = np.random.default_rng(0).choice([-5, 0, 17, 2035], size=shape)
    assert np.array_equal(warp_label_map(codes, shift(shape, (0, 0, 0))), codes)
    full = np.arange(np.prod(shape)).reshape(shape)
    with pytest.raises(ValueError, match="at most 256 labels"):
        warp_label_map(full, shift(shape, (0, 0, 0)))
    named = evaluate_registration(
        shift(shape, (0, 0, 0)), oblique_grid, fixed_labels=codes, moving_labels=codes,
        structures={"left": 17, "right": 2035},
    )  # fmt: skip
    assert {name: s.dice for name, s in named.structures.items()} == {"left": 1.0, "right": 1.0}


def test_a_structure_pushed_out_is_a_failure(oblique_grid):
    shape = oblique_grid.shape
    labels = box(shape, (1, 1, 1), (3, 4, 3))
    out = shift(shape, (0, 0, 20.0))
    strict = evaluate_registration(out, oblique_grid, fixed_labels=labels, moving_labels=labels)
    l2r = evaluate_registration(
        out, oblique_grid, fixed_labels=labels, moving_labels=labels, mode="l2r"
    )
    assert strict.structures["LV"].dice == l2r.structures["LV"].dice == 0.0
    assert np.isnan(strict.structures["LV"].hd95_mm)
    assert l2r.structures["LV"].hd95_mm == np.inf
    assert strict.failures["LV"] == l2r.failures["LV"] == "absent in moved"
    written = json.loads(json.dumps(l2r.as_dict(), allow_nan=False))
    assert written["structures"]["LV"]["hd95_mm"] is None


def test_a_structure_of_one_image_only(oblique_grid):
    """Strict calls it no overlap, Learn2Reg leaves it out."""
    shape = oblique_grid.shape
    fixed = box(shape, (1, 1, 1), (3, 4, 3), label=RV)
    still = shift(shape, (0, 0, 0))
    for one, other in ((fixed, np.zeros_like(fixed)), (np.zeros_like(fixed), fixed)):
        strict = evaluate_registration(still, oblique_grid, fixed_labels=one, moving_labels=other)
        l2r = evaluate_registration(
            still, oblique_grid, fixed_labels=one, moving_labels=other, mode="l2r"
        )
        assert strict.structures["RV"].dice == strict.mean_dice == 0.0
        assert np.isnan(l2r.structures["RV"].dice)
        assert np.isnan(l2r.mean_dice)
        assert np.isnan(strict.mean_hd95_mm)
        assert "absent in" in strict.failures["RV"]


def test_known_affine_field_of_the_myocardium(oblique_grid):
    """x -> A x has det A everywhere: no spread, no fold, a known change of volume."""
    matrix = np.array([[1.1, 0.05, 0.0], [-0.1, 0.9, 0.2], [0.05, 0.0, 1.2]])
    coords = ops.identity_coords(oblique_grid.shape, dtype=torch.float64)
    field = torch.einsum("ij,bjdhw->bidhw", torch.from_numpy(matrix - np.eye(3)), coords)
    labels = box(oblique_grid.shape, (2, 3, 4), (3, 4, 5), label=MYO)
    found = evaluate_registration(field, oblique_grid, fixed_labels=labels).field
    assert found.det_error_myocardium == pytest.approx(abs(np.linalg.det(matrix) - 1))
    assert found.sdlogj == pytest.approx(0, abs=1e-12)
    assert found.folding_fraction == found.nonpositive_fraction == 0.0
    assert found.folding_fraction_myocardium == 0.0


@pytest.mark.parametrize("mode", ["strict", "l2r"])
def test_landmarks_of_a_known_shift_in_mm(oblique_grid, mode):
    """The truth is one voxel along each axis, the field half of it along the 8 mm axis only."""
    rng = np.random.default_rng(1)
    voxels = rng.uniform(2.0, 4.0, size=(11, 3))
    fixed, moving = oblique_grid.to_world(voxels), oblique_grid.to_world(voxels + 1)
    found = evaluate_registration(
        shift(oblique_grid.shape, (0.5, 0, 0)), oblique_grid,
        fixed_points_mm=fixed, moving_points_mm=moving, mode=mode,
    ).landmarks  # fmt: skip
    assert found.count == 11
    assert found.tre_mm == pytest.approx(np.linalg.norm((4.0, 1.4, 1.9)))
    assert found.initial_mm == pytest.approx(np.linalg.norm((8.0, 1.4, 1.9)))


@pytest.mark.parametrize("mode", ["strict", "l2r"])
def test_tre30_is_of_the_pairs_furthest_apart_before(oblique_grid, mode):
    """Ten pairs, 1 to 10 mm apart along h before; the field takes 2 voxels (2.8 mm) of each."""
    fixed_voxels = np.tile([3.0, 4.0, 5.0], (10, 1))
    apart = np.arange(1, 11) / oblique_grid.spacing[1]
    moving_voxels = fixed_voxels + np.outer(apart, [0, 1, 0])
    order = np.random.default_rng(2).permutation(10)
    found = evaluate_registration(
        shift(oblique_grid.shape, (0, 2.0, 0)), oblique_grid,
        fixed_points_mm=oblique_grid.to_world(fixed_voxels)[order],
        moving_points_mm=oblique_grid.to_world(moving_voxels)[order], mode=mode,
    ).landmarks  # fmt: skip
    assert found.tre_mm == pytest.approx(np.abs(np.arange(1, 11) - 2.8).mean())
    assert found.tre30_mm == pytest.approx((8 + 9 + 10) / 3 - 2.8)


@pytest.mark.parametrize("mode", ["strict", "l2r"])
def test_landmarks_not_seen_are_left_out(oblique_grid, mode):
    fixed = oblique_grid.to_world(np.full((3, 3), 3.0))
    moving = fixed.copy()
    fixed[0, 1], moving[2, 0] = np.nan, np.nan
    still = shift(oblique_grid.shape, (0, 0, 0))
    found = evaluate_registration(
        still, oblique_grid, fixed_points_mm=fixed, moving_points_mm=moving, mode=mode
    ).landmarks
    assert (found.count, found.tre_mm) == (1, pytest.approx(0, abs=1e-9))
    none = evaluate_registration(
        still, oblique_grid, fixed_points_mm=fixed[:1], moving_points_mm=moving[:1], mode=mode
    ).landmarks
    assert none.count == 0
    assert np.isnan(none.tre_mm)


def test_nothing_given_is_nan_and_one_slice_works():
    grid = Grid.regular((1, 9, 11), (8.0, 1.5, 1.5))
    found = evaluate_registration(torch.zeros(1, 3, *grid.shape), grid)
    assert found.structures == {}
    assert np.isnan([found.mean_dice, found.mean_hd95_mm, found.landmarks.tre_mm]).all()
    assert found.field.sdlogj == found.field.folding_fraction == 0.0
    assert np.isnan(found.field.det_error_myocardium)
    thin = evaluate_registration(torch.zeros(1, 3, *grid.shape), grid, mode="l2r")
    assert np.isnan(thin.field.sdlogj)


def test_labels_come_as_tensors_of_a_batch_too(oblique_grid):
    labels = box(oblique_grid.shape, (2, 3, 4), (3, 4, 5))
    tensor = torch.from_numpy(labels)[None, None]
    found = evaluate_registration(
        torch.zeros(1, 3, *oblique_grid.shape), oblique_grid,
        fixed_labels=tensor, moving_labels=tensor.float(),
    )  # fmt: skip
    assert found.mean_dice == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "loose"}, 'mode must be "strict" or "l2r"'),
        ({"moving_labels": np.zeros((7, 10, 13), int)}, "moving_labels must come with"),
        ({"fixed_points_mm": np.zeros((2, 3))}, "must come together"),
        ({"fixed_labels": np.zeros((7, 10, 12), int)}, "fixed_labels must lie on the grid"),
        ({"fixed_labels": np.full((7, 10, 13), 0.5)}, "whole numbers"),
        ({"fixed_points_mm": np.zeros((2, 3)), "moving_points_mm": np.zeros((3, 3))}, "both be"),
        ({"displacement": torch.zeros(2, 3, 7, 10, 13)}, "displacement must have shape"),
        ({"displacement": torch.full((1, 3, 7, 10, 13), torch.nan)}, "must be finite"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(oblique_grid, change, message):
    arguments = {"displacement": torch.zeros(1, 3, 7, 10, 13)} | change
    displacement = arguments.pop("displacement")
    with pytest.raises(ValueError, match=message):
        evaluate_registration(displacement, oblique_grid, **arguments)
