"""Regularity against closed forms: quadratic fields, one voxel that folds, regions in mm."""

import numpy as np
import pytest
import torch

from cardiogen.data import Grid
from registration.metrics import field_metrics
from registration.metrics.field import cells_within, dilate, interior, sd_log

SHAPE, SPACING = (7, 10, 13), (8.0, 1.4, 1.9)


def quadratic(axis: int, curvature: float) -> torch.Tensor:
    """u = c x^2 / 2 along one axis: central differences give det J = 1 + c x exactly."""
    field = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    places = torch.arange(SHAPE[axis], dtype=torch.float64)
    view = [1, 1, 1]
    view[axis] = -1
    field[0, axis] = (curvature * places**2 / 2).view(view)
    return field


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spread_of_a_quadratic_field(axis):
    curvature = 0.07
    places = np.arange(1, SHAPE[axis] - 1)
    found = field_metrics(quadratic(axis, curvature), spacing=SPACING)
    assert found.sdlogj == pytest.approx(np.log(1 + curvature * places).std(), rel=1e-12)
    assert found.folding_fraction == found.nonpositive_fraction == 0.0


def test_determinants_that_are_not_positive_raise_the_spread():
    """det J = 1 - .21 x is negative from x = 5 on; there log 1e-9 stands in."""
    determinants = 1 - 0.21 * np.arange(1, 12)
    found = field_metrics(quadratic(2, -0.21), spacing=SPACING)
    expected = np.log(np.where(determinants > 0, determinants, 1e-9)).std()
    assert found.sdlogj == pytest.approx(expected, rel=1e-12)
    assert found.nonpositive_fraction == pytest.approx(7 / 11)
    assert found.sdlogj > sd_log(determinants[:4])


def test_mask_and_myocardium_are_regions():
    curvature = 0.07
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:6, 2:8, 4:9] = True
    wall = np.zeros(SHAPE, dtype=bool)
    wall[2:4, 3:5, 6:12] = True
    found = field_metrics(quadratic(2, curvature), spacing=SPACING, mask=mask, myocardium=wall)
    assert found.sdlogj == pytest.approx(np.log(1 + curvature * np.arange(4, 9)).std())
    assert found.det_error_myocardium == pytest.approx(curvature * np.mean([6, 7, 8]))
    empty = field_metrics(
        quadratic(2, curvature), spacing=SPACING, mask=~np.ones(SHAPE, bool), myocardium=wall
    )
    assert np.isnan(list(vars(empty).values())).all()


def test_a_voxel_that_jumps_folds_the_cells_that_its_corners_invert():
    """Moving one voxel along +w by 1.5 turns over the four cells ahead of it and no other."""
    field = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    field[0, 2, 3, 4, 5] = 1.5
    cells = np.prod(np.array(SHAPE) - 1)
    found = field_metrics(field, spacing=SPACING)
    assert found.folding_fraction == pytest.approx(4 / cells, rel=1e-12)
    # Central differences see it at both neighbors along w: 1 + .75 and 1 - .75, both positive.
    assert found.nonpositive_fraction == 0.0


def test_folds_count_only_in_their_region():
    field = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    field[0, 2, 3, 4, 5] = 1.5
    without = np.ones(SHAPE, dtype=bool)
    without[3, 4, 5] = False
    assert field_metrics(field, spacing=SPACING, mask=without).folding_fraction == 0.0
    # 5 mm reach three voxels along h, two along w and none along d.
    wall = np.zeros(SHAPE, dtype=bool)
    wall[3:5, 4, 5] = True
    found = field_metrics(field, spacing=SPACING, myocardium=wall)
    near = cells_within(dilate(wall, spacing=SPACING, by_mm=5.0))
    assert found.folding_fraction_myocardium == pytest.approx(2 / near.sum())


def test_dilation_is_in_mm():
    wall = np.zeros(SHAPE, dtype=bool)
    wall[3, 4, 5] = True
    near = dilate(wall, spacing=SPACING, by_mm=5.0)
    offsets = (np.moveaxis(np.indices(SHAPE), 0, -1) - (3, 4, 5)) * SPACING
    assert np.array_equal(near, np.linalg.norm(offsets, axis=-1) <= 5.0)
    assert not dilate(~np.ones(SHAPE, bool), spacing=SPACING, by_mm=5.0).any()


def test_interior_and_cells():
    assert interior((5, 6, 7)).sum() == 3 * 4 * 5
    assert interior((1, 2, 7)).sum() == 1 * 2 * 5
    assert cells_within(np.ones((1, 2, 7), bool)).shape == (1, 1, 6)
    hole = np.ones((3, 4, 5), bool)
    hole[1, 1, 1] = False
    assert (~cells_within(hole)).sum() == 8


def test_float32_and_float64_agree():
    grid = Grid.regular(SHAPE, SPACING)
    generator = torch.Generator().manual_seed(0)
    field = 0.3 * torch.randn(1, 3, *SHAPE, generator=generator, dtype=torch.float32)
    one = field_metrics(field, spacing=grid.spacing)
    two = field_metrics(field.double(), spacing=grid.spacing)
    assert one.sdlogj == pytest.approx(two.sdlogj, rel=1e-6)
    assert one.folding_fraction == two.folding_fraction
