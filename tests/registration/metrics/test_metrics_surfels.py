"""The robust Hausdorff distance: areas of every block, boxes by hand, a sphere, a slow oracle."""

from itertools import permutations, product

import numpy as np
import pytest

from registration.metrics import robust_hausdorff, surfel_areas

CORNERS = list(product((0, 1), repeat=3))
TRIANGLE, RECTANGLE = np.sqrt(3) / 8, np.sqrt(2) / 2


def code(corners):
    return sum(1 << CORNERS.index(c) for c in corners)


@pytest.mark.parametrize(
    ("corners", "area"),
    [
        ([], 0.0),
        ([(0, 0, 0)], TRIANGLE),
        ([(0, 0, 0), (0, 0, 1)], RECTANGLE),
        ([(0, 0, 0), (0, 1, 1)], 2 * TRIANGLE),
        ([(0, 0, 0), (1, 1, 1)], 2 * TRIANGLE),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0)], 0.5 + 3 * TRIANGLE),
        ([(0, 0, 0), (0, 0, 1), (1, 1, 0)], RECTANGLE + TRIANGLE),
        ([(0, 0, 0), (0, 1, 1), (1, 0, 1)], 3 * TRIANGLE),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)], 1.0),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)], 3 * np.sqrt(3) / 4),  # side 1/sqrt(2)
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 1)], 4 * TRIANGLE + RECTANGLE),
        ([(0, 0, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1)], 2 * RECTANGLE),
        ([(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 1, 1)], 0.5 + 4 * TRIANGLE),
        ([(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)], 4 * TRIANGLE),
    ],
)
def test_area_of_every_kind_of_block(corners, area):
    """The fourteen kinds, each however turned, mirrored and turned inside out."""
    areas = surfel_areas()
    for order, flips in product(permutations(range(3)), product((0, 1), repeat=3)):
        turned = [tuple(c[o] ^ f for o, f in zip(order, flips, strict=True)) for c in corners]
        assert areas[code(turned)] == pytest.approx(area, rel=1e-14)
        assert areas[255 - code(turned)] == pytest.approx(area, rel=1e-14)


def test_area_of_a_plane_and_of_a_sphere():
    """A slab has its true area; a sphere a few percent more, as marching cubes of voxels have."""
    from registration.metrics.surfels import _codes

    slab = np.zeros((9, 12, 14), bool)
    slab[:, :5] = True
    inside = surfel_areas()[_codes(slab)][1:-1, 1:-1, 1:-1]
    assert inside.sum() == pytest.approx(8 * 13)
    place = np.moveaxis(np.indices((41, 43, 45)), 0, -1) - (20, 21, 22)
    sphere = np.linalg.norm(place, axis=-1) <= 18.2
    total = surfel_areas()[_codes(sphere)].sum()
    assert 1.0 < total / (4 * np.pi * 18.2**2) < 1.15


def oracle(a, b, percent):
    """The same from loops: every block, every pair of blocks."""

    def surface(mask):
        padded = np.pad(mask, 1)
        found = []
        for place in np.ndindex(*(n + 1 for n in mask.shape)):
            filled = [c for c in CORNERS if padded[tuple(np.add(place, c))]]
            if 0 < len(filled) < 8:
                found.append((place, surfel_areas()[code(filled)]))
        return found

    def directed(one, other):
        rows = []
        for place, area in one:
            gaps = [np.linalg.norm(np.subtract(place, p)) for p, _ in other]
            rows.append((min(gaps), area))
        rows.sort()
        total, reached = sum(area for _, area in rows), 0.0
        for distance, area in rows:
            reached += area
            if reached / total >= percent / 100 - 1e-12:
                return distance
        raise AssertionError

    one, other = surface(a), surface(b)
    return max(directed(one, other), directed(other, one))


@pytest.mark.parametrize("seed", range(4))
def test_against_loops(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 4, 5, 6)) > 0.7
    for percent in (50.0, 93.7, 100.0):
        assert robust_hausdorff(a, b, percent=percent) == pytest.approx(oracle(a, b, percent))


def test_boxes_apart_count_voxels():
    a = np.zeros((12, 13, 30), bool)
    a[3:8, 3:8, 3:8] = True
    assert robust_hausdorff(a, np.roll(a, 4, axis=2)) == 4.0
    assert robust_hausdorff(a, a) == 0.0
    # One far voxel weighs 8 of about 150: less than 5 % of the area does not move the number.
    b = a.copy()
    b[5, 5, 25] = True
    assert robust_hausdorff(a, b) == 0.0
    assert robust_hausdorff(a, b, percent=100.0) == pytest.approx(18.0)


def test_masks_may_touch_the_border_and_may_be_empty():
    full = np.ones((4, 5, 6), bool)
    smaller = full.copy()
    smaller[:, :, -2:] = False
    assert robust_hausdorff(full, smaller) == 2.0
    assert robust_hausdorff(full, ~full) == np.inf
    assert robust_hausdorff(~full, ~full) == np.inf
    with pytest.raises(ValueError, match="one shape"):
        robust_hausdorff(full, full[1:])
