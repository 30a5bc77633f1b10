"""Motion through the slices from the volume of the wall."""

import numpy as np
import pytest
import torch

from cardiogen import ops
from cardiogen.data import Structure
from cardiogen.measure import lv_frame
from cardiogen.population import Annulus, Pose, annulus_displacement, annulus_grid, annulus_labels
from registration.tracking.labels import plane_distances
from registration.tracking.longitudinal import longitudinal_stretch, sliding, wall_shape

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
    """A cylinder keeps its volume: the stretch is that of the annulus."""
    grid, labels = stack
    shape = wall_shape(labels, grid, lv_frame(labels, grid))
    contractions = [0.0, 0.4, 0.8, 1.0, 0.7, 0.3]
    phases = torch.arange(6, dtype=torch.float64) / 6
    found = longitudinal_stretch(in_plane_motion(grid, contractions), labels, shape, phases,
                                 harmonics=2)  # fmt: skip
    assert found[0] == 1.0
    expected = np.array([WIDE.at(c).stretch for c in contractions])
    assert np.abs(found - expected).max() < 0.02


def test_few_slices_tell_nothing(stack):
    grid, labels = stack
    shape = wall_shape(labels, grid, lv_frame(labels, grid))
    none = type(shape)(shape.apex, shape.centers, shape.radii, shape.areas, shape.usable & False)
    field = torch.zeros(3, 3, *grid.shape)
    phases = torch.arange(3, dtype=torch.float64) / 3
    assert longitudinal_stretch(field, labels, none, phases, harmonics=1) is None


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
