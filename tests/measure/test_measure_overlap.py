"""Overlap and surface distances against counts by hand and analytic spheres."""

import numpy as np
import pytest

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure import compare_labels, dice, surface_distances

SPACING = np.array([8.0, 3.0, 1.0])


def _box(shape, start, size):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


def test_dice_of_shifted_boxes():
    a, b = (_box((5, 9, 14), (1, 2, w), (3, 4, 6)) for w in (3, 5))
    assert dice(a, b) == pytest.approx(4 / 6)
    assert dice(a, a) == 1.0
    assert dice(a, ~a) == 0.0
    assert np.isnan(dice(a & ~a, a & ~a))
    with pytest.raises(ValueError, match="one shape"):
        dice(a, b[:-1])


@pytest.mark.parametrize(("axis", "share"), [(2, None), (0, None)])
def test_boxes_one_voxel_apart(axis, share):
    """Both ends and one ring of side faces are one step away, everything else coincides."""
    size = np.array([3, 4, 6])
    spacing = np.roll(SPACING, axis + 1)  # the smallest step lies along the shift
    start = np.array([2, 2, 2])
    a = _box((8, 9, 12), start, size)
    b = _box((8, 9, 12), start + np.eye(3, dtype=int)[axis], size)
    step = spacing[axis]
    length = size * spacing
    across = np.prod(np.delete(length, axis))
    around = 2 * np.delete(length, axis).sum()
    total = 2 * across + around * length[axis]
    moved = 2 * across + around * step
    found = surface_distances(a, b, spacing=spacing)
    assert found.assd_mm == pytest.approx(step * moved / total)
    assert found.hd_mm == pytest.approx(step)
    assert found.hd95_mm == pytest.approx(step)
    assert found.failure == ""


def test_percentile_is_of_area():
    """A bump of less than 5 % of the area raises HD but not HD95."""
    a = _box((14, 15, 40), (3, 3, 3), (8, 9, 30))
    b = a.copy()
    b[6, 7, 33:35] = True
    found = surface_distances(a, b, spacing=(1.0, 1.0, 1.0))
    assert found.hd95_mm == 0.0
    assert found.hd_mm == pytest.approx(2.0)
    assert 0 < found.assd_mm < 0.05


def test_thick_slices_count_by_area():
    """One slice more at 8 mm: the distance is 8 mm however few voxels the slice has."""
    a = _box((6, 12, 13), (1, 2, 2), (3, 8, 9))
    b = _box((6, 12, 13), (1, 2, 2), (4, 8, 9))
    found = surface_distances(a, b, spacing=(8.0, 1.5, 1.5))
    assert found.hd_mm == pytest.approx(8.0)
    swapped = surface_distances(b, a, spacing=(8.0, 1.5, 1.5))
    assert swapped == found


def test_concentric_spheres_on_an_anisotropic_grid():
    shape, spacing = (45, 57, 61), np.array([2.0, 1.5, 1.4])
    place = (np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2) * spacing
    radius = np.linalg.norm(place, axis=-1)
    found = surface_distances(radius < 30, radius < 36, spacing=spacing)
    assert found.assd_mm == pytest.approx(6.0, abs=0.35)
    assert found.hd95_mm == pytest.approx(6.0, abs=1.2)


def test_absent_structures_are_failures():
    grid = Grid.regular((4, 5, 6), (2.0, 2.0, 2.0))
    a, b = np.zeros((2, *grid.shape), dtype=np.uint8)
    a[1:3, 1:4, 1:4] = Structure.LV
    b[1:3, 1:4, 1:5] = Structure.LV
    a[0] = Structure.MYO
    table = compare_labels(a, b, grid)
    assert list(table.index) == ["LV", "MYO", "RV"]
    assert table.loc["LV", "dice"] == pytest.approx(2 * 18 / (18 + 24))
    assert table.loc["LV", "failure"] == ""
    assert table.loc["MYO", "dice"] == 0.0
    assert table.loc["MYO", "failure"] == "absent in b"
    assert table.loc["RV", "failure"] == "absent in a and b"
    assert table.loc[["MYO", "RV"], ["assd (mm)", "hd95 (mm)"]].isna().all(axis=None)
    assert np.isnan(table.loc["RV", "dice"])


def test_spacing_is_checked():
    a = _box((4, 4, 4), (1, 1, 1), (2, 2, 2))
    with pytest.raises(ValueError, match="three spacings"):
        surface_distances(a, a, spacing=(1.0, 0.0, 1.0))
