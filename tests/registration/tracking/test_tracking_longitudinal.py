"""Motion through the slices from the volume of the wall."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.data import Structure
from cardiogen.measure import lv_frame
from cardiogen.population import Annulus, Pose, annulus_displacement, annulus_grid, annulus_labels
from registration.tracking.labels import plane_distances
from registration.tracking.longitudinal import (
    Shortening,
    longitudinal_stretch,
    shortening,
    sliding,
    wall_shape,
)

WIDE = Annulus(twist=0.0)
POSE = Pose(np.eye(3), np.zeros(3))


@pytest.fixture(scope="module")
def stack():
    grid = annulus_grid(WIDE, POSE, (11.0, 1.5, 1.4))
    return grid, annulus_labels(WIDE.at(0.0), grid, POSE)


def in_plane_motion(grid, contractions):
    """What slices show of an annulus: its exact motion without the part through them."""
    fields = np.stack([annulus_displacement(WIDE.at(c), grid, POSE) for c in contractions])
    fields[:, 0] = 0
    return torch.from_numpy(fields).float()


def test_wall_that_thickens_shortens(stack):
    """A cylinder keeps its volume: every slice of the wall tells the stretch of the annulus."""
    grid, labels = stack
    shape = wall_shape(labels, grid, lv_frame(labels, grid))
    contractions = [0.0, 0.4, 0.8, 1.0, 0.7, 0.3]
    motion = in_plane_motion(grid, contractions)
    found = shortening(motion, labels, shape, ed=0)
    states = [WIDE.at(c) for c in contractions]
    assert found.wall == pytest.approx(1 - WIDE.at(1.0).stretch, abs=0.03)
    assert found.narrowing == pytest.approx(1 - (states[3].inner / WIDE.inner_ed) ** 2, abs=0.06)
    stretch, why = longitudinal_stretch(motion, labels, shape, ed=0)
    assert why == ""
    assert stretch[0] == 1.0
    assert stretch.argmin() == 3
    # The most probable value lies between what either witness tells.
    low, high = sorted([found.narrowing / 4, float(np.median(found.wall))])
    assert low - 1e-9 <= 1 - stretch.min() <= high + 1e-9


def test_one_slice_of_many_turns_nothing_over():
    """The median of the slices, not their mean; the prior where they say little."""
    course = np.array([0.0, 1.0])
    calm = Shortening(course=course, narrowing=0.5, wall=np.array([0.1, 0.1, 0.1]))
    odd = Shortening(course=course, narrowing=0.5, wall=np.array([0.1, 0.1, 0.3]))
    assert calm.value == pytest.approx(0.125 - 0.025 * 0.04**2 / (0.04**2 + 0.1**2))
    assert odd.value == pytest.approx(calm.value, abs=2e-3)
    assert calm.doubt == odd.doubt == ""


@pytest.mark.parametrize(("wall", "narrowing", "why"), [
    ([-0.15, -0.15, -0.14], 0.5, "would lengthen by 15%"),
    ([0.45, 0.44, 0.45], 0.5, "would shorten by 45%"),
    ([-0.2, 0.1, 0.4], 0.5, "contradict each other"),
    ([0.1, 0.1, 0.1], 0.03, "narrows by 3.0% only"),
])  # fmt: skip
def test_what_is_not_plausible_is_not_inferred(wall, narrowing, why):
    found = Shortening(course=np.array([0.0, 1.0]), narrowing=narrowing, wall=np.array(wall))
    assert why in found.doubt


@pytest.mark.parametrize("wall", [[-0.05, -0.06], [0.2, 0.22], [0.0, 0.0]])
def test_a_ventricle_never_lengthens_in_systole(wall):
    found = Shortening(course=np.array([0.0, 1.0]), narrowing=0.55, wall=np.array(wall))
    assert 0 <= found.value <= 0.2


def test_thickening_that_is_smoothed_away_is_no_lengthening(stack):
    """Wall areas that shrink by a tenth, as tracking of the population shows them."""
    grid, labels = stack
    shape = wall_shape(labels, grid, lv_frame(labels, grid))
    radius = np.linspace(0.0, 1.0, 3)
    fields = np.stack([-0.18 * c * (np.indices(grid.shape) - np.array([0, *shape.centers.mean(0)])
                                    [:, None, None, None]) for c in radius])  # fmt: skip
    fields[:, 0] = 0
    motion = torch.from_numpy(fields).float()
    found = shortening(motion, labels, shape, ed=0)
    assert (found.wall < 0).all()
    stretch, why = longitudinal_stretch(motion, labels, shape, ed=0)
    assert stretch is None or (stretch.min() >= 0.8 and stretch.max() <= 1.0 + 1e-6)
    assert (stretch is None) == bool(why)


def test_few_slices_tell_nothing(stack):
    grid, labels = stack
    shape = wall_shape(labels, grid, lv_frame(labels, grid))
    none = type(shape)(shape.apex, shape.centers, shape.radii, shape.areas, shape.usable & False)
    field = torch.zeros(3, 3, *grid.shape)
    stretch, why = longitudinal_stretch(field, labels, none, ed=0)
    assert stretch is None
    assert "too few slices" in why


def test_sliding_rests_at_one_and_its_inverse_is_that_of_the_stretch(stack):
    grid, labels = stack
    shape = wall_shape(labels, grid, lv_frame(labels, grid))
    device = torch.device("cpu")
    assert sliding(np.ones(2), shape, grid, device=device).abs().max() < 1e-5
    stretch = np.array([0.9])
    along = sliding(stretch, shape, grid, device=device)
    back = sliding(1 / stretch, shape, grid, device=device)
    there = ops.compose(along, back)[0].numpy()
    wall = labels == Structure.MYO
    assert np.abs(there[:, wall]).mean() < 0.15


def test_plane_distances_end_with_their_solid():
    solid = np.zeros((4, 9, 11), dtype=bool)
    solid[1, 3:6, 4:8] = True
    found = plane_distances(solid, (1.5, 2.0))
    assert found[1, 4, 5] > 0
    assert found[1, 0, 0] < 0
    assert np.array_equal(found[3], found[1])
    assert (plane_distances(solid & False, (1.0, 1.0)) < 0).all()
