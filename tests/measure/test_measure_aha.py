"""AHA segments against the angles and heights that the phantom was made from."""

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure import (
    SEGMENT_NAMES,
    aha_segments,
    lv_frame,
    rv_insertions,
    segment_means,
    segment_table,
    segment_volumes,
)

INFERIOR, ANTERIOR = np.radians(-50.0), np.radians(70.0)  # as in conftest


def _expected(heart):
    """Segments from the phantom's own frame, and how far every voxel is from a border."""
    angle, _ = heart.polar()
    frame = lv_frame(heart.labels, heart.grid)
    fraction = frame.fraction(
        heart.grid.to_world(np.moveaxis(np.indices(heart.grid.shape), 0, -1))
    )
    septum, free = ANTERIOR - INFERIOR, 2 * np.pi - (ANTERIOR - INFERIOR)
    along = np.mod(angle - INFERIOR, 2 * np.pi)
    edges = np.array([0, septum / 2, *(septum + free * np.arange(4) / 4), 2 * np.pi])
    ring = np.array([3, 2, 1, 6, 5, 4])[np.searchsorted(edges, along, side="right") - 1]
    turn = np.mod(angle - (INFERIOR + ANTERIOR) / 2 + np.pi / 4, 2 * np.pi)
    apical = np.array([14, 13, 16, 15])[np.minimum(turn // (np.pi / 2), 3).astype(int)]
    segment = np.where(fraction > 2 / 3, ring, np.where(fraction > 1 / 3, ring + 6, apical))
    segment = np.where(fraction < 0, 17, segment)
    apical_edges = (INFERIOR + ANTERIOR) / 2 + np.pi / 4 * np.array([-1, 1, 3, 5])
    used = np.where(fraction[..., None] > 1 / 3, edges[:-1] + INFERIOR, np.resize(apical_edges, 6))
    apart = np.abs(np.angle(np.exp(1j * (angle[..., None] - used)))).min(axis=-1)
    near = np.minimum.reduce([np.abs(fraction - f) for f in (0.0, 1 / 3, 2 / 3)])
    return segment, (apart > np.radians(7)) & (near > 0.03)


@pytest.mark.parametrize("name", ["volume_heart", "stack_heart"])
def test_segments_follow_angle_and_height(name, request):
    heart = request.getfixturevalue(name)
    wanted, clear = _expected(heart)
    found = aha_segments(heart.labels, heart.grid)
    wall = heart.labels == Structure.MYO
    assert (found > 0)[wall].all()
    assert not found[~wall].any()
    assert set(np.unique(found[wall])) == set(range(1, 18))
    angle_free = clear & wall & (wanted < 17)
    assert (found[angle_free] == wanted[angle_free]).mean() > 0.995
    cap = clear & wall & (wanted == 17)
    assert (found[cap] == 17).all()


@pytest.mark.parametrize("name", ["volume_heart", "stack_heart"])
def test_frame_and_insertions(name, request):
    heart = request.getfixturevalue(name)
    frame = lv_frame(heart.labels, heart.grid)
    assert np.degrees(np.arccos(frame.axis @ heart.axes[:, 2])) < 1.5
    assert frame.base - frame.apex == pytest.approx(84.0, abs=1.5 * frame.step)
    insertions = rv_insertions(heart.labels, heart.grid, frame)
    middle = (INFERIOR + ANTERIOR) / 2
    for inferior, anterior in (insertions.basal, insertions.mid):
        # Angles count from the direction of the contact, the middle of the septum here.
        np.testing.assert_allclose([inferior, anterior],
                                   [INFERIOR - middle, ANTERIOR - middle], atol=0.06)  # fmt: skip
    septal = heart.axes @ np.array([np.cos(middle), np.sin(middle), 0.0])
    assert insertions.septal @ septal > 0.995


def test_mirrored_copy_has_the_same_segments(stack_heart):
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored = Grid(stack_heart.grid.shape, flip @ stack_heart.grid.affine)
    plain = aha_segments(stack_heart.labels, stack_heart.grid)
    np.testing.assert_array_equal(
        aha_segments(stack_heart.labels, mirrored, orientation="mirrored"), plain
    )
    # Taken at its word, the mirrored world swaps anterior and inferior.
    swapped = aha_segments(stack_heart.labels, mirrored)
    swap = np.array([0, 4, 3, 2, 1, 6, 5, 10, 9, 8, 7, 12, 11, 15, 14, 13, 16, 17])
    assert (swapped == swap[plain]).mean() > 0.999


def test_sixteen_segments_leave_the_cap_out(volume_heart):
    full = aha_segments(volume_heart.labels, volume_heart.grid)
    without = aha_segments(volume_heart.labels, volume_heart.grid, segments=16)
    np.testing.assert_array_equal(without, np.where(full == 17, 0, full))
    with pytest.raises(ValueError, match="16 or 17"):
        aha_segments(volume_heart.labels, volume_heart.grid, segments=18)


def test_stray_voxels_move_no_insertion(stack_heart):
    labels = stack_heart.labels.copy()
    frame = lv_frame(labels, stack_heart.grid)
    before = rv_insertions(labels, stack_heart.grid, frame)
    angle, _ = stack_heart.polar()
    planes = np.flatnonzero((labels == Structure.MYO).any(axis=(1, 2)))
    for plane in planes[[3, -2]]:  # a false RV voxel on the lateral wall of a slice
        wall = np.argwhere((labels[plane] == Structure.MYO) & (np.abs(angle[plane]) > 2.8))
        labels[plane, wall[0, 0], wall[0, 1]] = Structure.RV
    after = rv_insertions(labels, stack_heart.grid, lv_frame(labels, stack_heart.grid))
    np.testing.assert_allclose(after.basal, before.basal, atol=0.12)
    np.testing.assert_allclose(after.mid, before.mid, atol=0.12)


def test_without_right_ventricle_nothing_is_guessed(stack_heart):
    labels = np.where(stack_heart.labels == Structure.RV, 0, stack_heart.labels).astype(np.uint8)
    with pytest.raises(CardiogenError, match=r"CG-L62 .*no right ventricle"):
        aha_segments(labels, stack_heart.grid)


def test_absent_or_closed_ventricle(stack_heart):
    labels = stack_heart.labels
    only_rv = np.where(labels == Structure.LV, 0, labels).astype(np.uint8)
    with pytest.raises(CardiogenError, match=r"CG-L60 .*no voxel of LV"):
        aha_segments(only_rv, stack_heart.grid)
    grid = Grid.regular((9, 11, 13), (2.0, 2.0, 2.0))
    closed = np.zeros(grid.shape, np.uint8)
    closed[2:7, 3:8, 4:9] = Structure.MYO
    closed[3:6, 4:7, 5:8] = Structure.LV
    with pytest.raises(CardiogenError, match=r"CG-L61 .*without an opening"):
        lv_frame(closed, grid)


def test_anterior_rule_on_a_real_heart(real_data):
    """In RAS, z x x of a human heart points up, forward and left: to the anterior wall."""
    meshes = np.load(real_data / "human_cine" / "biventricular_mesh_sequence.npz")
    to_ras = np.array([-1.0, -1.0, 1.0])
    left, right = (meshes[f"{side}_ENDOCARDIAL_points"][0] * to_ras for side in ("LV", "RV"))
    around = left - left.mean(axis=0)
    axis = np.linalg.svd(around, full_matrices=False)[2][0]
    # The cavity is wider at its base.
    widths = [np.linalg.norm(around[side] - np.outer(around[side] @ axis, axis), axis=1).mean()
              for side in (around @ axis > 20, around @ axis < -20)]  # fmt: skip
    axis = axis * (1 if widths[0] > widths[1] else -1)
    to_right = right.mean(axis=0) - left.mean(axis=0)
    anterior = np.cross(axis, to_right)
    anterior = anterior / np.linalg.norm(anterior)
    assert anterior[1] > 0.1  # forward
    assert anterior[2] > 0.5  # up


def test_segment_statistics():
    values = np.array([[1.0, 3.0, np.nan], [5.0, 7.0, 9.0]])
    segments = np.array([[1, 1, 1], [3, 0, 17]], dtype=np.uint8)
    means = segment_means(values, segments)
    np.testing.assert_allclose(means[[0, 2, 16]], [2.0, 5.0, 9.0])
    assert np.isnan(np.delete(means, [0, 2, 16])).all()
    volumes = segment_volumes(segments, Grid.regular((1, 2, 3), (10.0, 10.0, 10.0)), count=16)
    np.testing.assert_allclose(volumes[:3], [3.0, 0.0, 1.0])
    assert volumes.shape == (16,)
    with pytest.raises(ValueError, match="values must have shape"):
        segment_means(values, segments[:1])


def test_segment_table(stack_heart):
    table = segment_table(stack_heart.labels, stack_heart.grid, segments=16)
    assert tuple(table["name"]) == SEGMENT_NAMES[:16]
    wall = (stack_heart.labels == Structure.MYO).sum() * stack_heart.grid.voxel_volume_ml
    whole = segment_table(stack_heart.labels, stack_heart.grid)
    assert whole["volume (mL)"].sum() == pytest.approx(wall)
    np.testing.assert_allclose(table["thickness (mm)"][:12], 9.0, atol=0.6)
