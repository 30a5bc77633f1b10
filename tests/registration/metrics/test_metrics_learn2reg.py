"""The Learn2Reg numbers: each quirk by hand, then all against a slow reading of the rules."""

import itertools

import numpy as np
import pytest
import torch
from scipy.interpolate import make_interp_spline

from cardiogen.data import Grid
from registration.metrics import (
    aggregate,
    evaluate_registration,
    l2r_dice,
    l2r_hd95,
    l2r_sdlogj,
    l2r_tre,
    l2r_warp_labels,
)

SHAPE = (9, 10, 13)


def linear(matrix) -> np.ndarray:
    """u(x) = (A - 1) x, so that J = A everywhere."""
    return np.einsum("ij,jdhw->idhw", np.asarray(matrix) - np.eye(3), np.indices(SHAPE, float))


def along_w(values) -> np.ndarray:
    field = np.zeros((3, *SHAPE))
    field[2] = values
    return field


class TestSdLogJ:
    def test_three_is_added_to_a_determinant_that_is_already_whole(self):
        """u = c w^2 / 2: det J = 1 + c w, and the scorer takes log(4 + c w), w = 2 to 10."""
        w = np.arange(13.0)
        found = l2r_sdlogj(along_w(0.05 * w**2 / 2))
        assert found == pytest.approx(np.log(4 + 0.05 * w[2:-2]).std(), abs=1e-12)

    def test_it_is_far_below_the_honest_spread(self):
        field = torch.from_numpy(along_w(0.05 * np.arange(13.0) ** 2 / 2))[None]
        grid = Grid.regular(SHAPE, (8.0, 1.4, 1.9))
        strict = evaluate_registration(field, grid).field.sdlogj
        l2r = evaluate_registration(field, grid, mode="l2r").field.sdlogj
        assert l2r < strict / 2

    def test_a_constant_determinant_has_no_spread(self):
        assert l2r_sdlogj(linear([[1.2, 0.1, 0], [0, 0.8, 0.3], [0.2, 0, 1.1]])) < 1e-14

    def test_clipped_below_at_1e_9(self):
        """det J = 1 - c w falls under -3 for the last voxels, whose logarithm is that of 1e-9."""
        w = np.arange(13.0)
        logs = np.log(np.maximum(4 - 0.45 * w[2:-2], 1e-9))
        assert (4 - 0.45 * w[2:-2] < 0).sum() == 2
        assert l2r_sdlogj(along_w(-0.45 * w**2 / 2)) == pytest.approx(logs.std(), abs=1e-12)

    def test_clipped_above_at_1e9(self):
        w = np.arange(13.0)
        logs = np.log(np.minimum(4 + 2e8 * w[2:-2], 1e9))
        assert l2r_sdlogj(along_w(2e8 * w**2 / 2)) == pytest.approx(logs.std(), abs=1e-12)

    def test_folds_are_never_counted(self):
        field = torch.from_numpy(along_w(-3 * np.arange(13.0)))[None]
        grid = Grid.regular(SHAPE, (8.0, 1.4, 1.9))
        assert evaluate_registration(field, grid, mode="l2r").field.folding_fraction == 0.0
        assert evaluate_registration(field, grid).field.folding_fraction == 1.0

    def test_two_voxels_of_border_do_not_count(self):
        """Only differences across voxels 1 to n - 2 are taken, so the outermost are never read."""
        field = along_w(0.05 * np.arange(13.0) ** 2 / 2)
        expected = l2r_sdlogj(field)
        for axis in range(1, 4):
            for end in (0, -1):
                field[(slice(None),) * axis + (end,)] = 1e3
        assert l2r_sdlogj(field) == expected

    def test_the_mask_holds_where_it_is_one(self):
        w = np.arange(13.0)
        mask = np.zeros(SHAPE)
        mask[:, :, 3:7] = 1
        mask[:, :, 7:] = 255  # not one, so not inside
        found = l2r_sdlogj(along_w(0.05 * w**2 / 2), mask=mask)
        assert found == pytest.approx(np.log(4 + 0.05 * w[3:7]).std(), abs=1e-12)
        assert np.isnan(l2r_sdlogj(along_w(w), mask=np.zeros(SHAPE)))

    def test_too_thin_for_the_border(self):
        assert np.isnan(l2r_sdlogj(np.zeros((3, 4, 9, 9))))


class TestLabels:
    def test_nearest_neighbor_and_background_a_hair_outside(self):
        labels = np.broadcast_to(np.arange(1, 14), SHAPE)
        field = np.zeros((3, *SHAPE))
        field[2] = 0.4
        moved = l2r_warp_labels(labels, field)
        assert (moved[..., :-1] == labels[..., :-1]).all()
        # The last voxel reads at 12.4, nearest to 12, but beyond the last center.
        assert (moved[..., -1] == 0).all()
        field[2] = 0.6
        assert (l2r_warp_labels(labels, field)[..., 0] == 2).all()

    def test_dice_by_hand_and_absent_labels(self):
        fixed, moving, moved = (np.zeros(SHAPE, int) for _ in range(3))
        fixed[2, 2, 2:6] = 1
        moving[0, 0, :4] = moved[2, 2, 4:8] = 1
        fixed[4, 4, 4] = 2  # moving lacks it
        moving[5, 5, 5] = moved[5, 5, 5] = 3  # fixed lacks it
        fixed[6, 6, 6] = moving[6, 6, 7] = 4  # the field moves it out
        found = l2r_dice(fixed, moving, moved, (1, 2, 3, 4, 9))
        np.testing.assert_array_equal(found, [0.5, np.nan, np.nan, 0.0, np.nan])
        far = l2r_hd95(fixed, moving, moved, (1, 2, 3, 4, 9))
        np.testing.assert_array_equal(far, [2.0, np.nan, np.nan, np.inf, np.nan])

    def test_hd95_is_in_voxels_whatever_the_spacing(self):
        fixed, moving = np.zeros((2, *SHAPE), int)
        fixed[2:5, 3:6, 3:7] = 1
        moving[4:7, 3:6, 3:7] = 1
        still = torch.zeros(1, 3, *SHAPE)
        for spacing in ((8.0, 1.4, 1.9), (1.0, 1.0, 1.0)):
            found = evaluate_registration(
                still, Grid.regular(SHAPE, spacing), fixed_labels=fixed, moving_labels=moving,
                mode="l2r",
            )  # fmt: skip
            assert found.structures["LV"].hd95_mm == 2.0
            assert np.isnan(found.structures["LV"].surface_mm)


class TestTre:
    def test_spacing_of_the_moving_image(self):
        field = np.zeros((3, *SHAPE))
        field[0] = 1.0
        errors = l2r_tre([[4, 4, 4]], [[4, 5, 6]], field, moving_spacing=(8.0, 1.5, 2.0))
        assert errors == pytest.approx([np.sqrt(8**2 + 1.5**2 + 4**2)], abs=1e-12)

    def test_the_field_is_read_by_cubic_splines(self):
        """A cubic in the middle of a long line is itself; linear interpolation would be off."""
        w = np.arange(61.0)
        cubic = 1e-3 * (w - 30) ** 3
        field = np.zeros((3, 5, 5, 61))
        field[2] = cubic
        place = 30.37
        errors = l2r_tre([[2, 2, place]], [[2, 2, place]], field, moving_spacing=(1, 1, 1))
        assert errors == pytest.approx([abs(1e-3 * (place - 30) ** 3)], abs=1e-9)
        linear_read = np.interp(place, w, cubic)
        assert abs(linear_read - errors[0]) > 1e-4

    def test_a_landmark_outside_of_the_grid_does_not_move(self):
        field = np.ones((3, *SHAPE))
        errors = l2r_tre([[-0.5, 4, 4]], [[-0.5, 4, 4]], field, moving_spacing=(1, 1, 1))
        assert errors == pytest.approx([0.0])

    def test_strict_reads_linearly_and_extends_the_border(self):
        grid = Grid.regular(SHAPE, (1.0, 1.0, 1.0))
        point = [[-0.5, 4.0, 4.0]]
        found = evaluate_registration(
            torch.ones(1, 3, *SHAPE), grid, fixed_points_mm=point, moving_points_mm=point
        )
        assert found.landmarks.tre_mm == pytest.approx(np.sqrt(3))


class TestAggregate:
    values = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)

    @pytest.mark.parametrize(
        ("metric", "expected"), [("dice", 0.4), ("hd95", 0.4), ("sdlogj", 0.8), ("tre", 0.8)]
    )
    def test_thirty_is_the_bad_end_but_for_hd95(self, metric, expected):
        found = aggregate(self.values, metric)
        assert found.quantile30 == pytest.approx(expected, abs=1e-12)
        assert found.mean == pytest.approx(0.6)
        assert found.std == pytest.approx(np.sqrt(0.1))  # population: 1.1 / 11

    def test_quantiles_interpolate_and_nan_spreads(self):
        assert aggregate((1.0, 2.0), "tre").quantile30 == pytest.approx(1.7)
        broken = aggregate((1.0, np.nan), "dice")
        assert np.isnan([broken.mean, broken.std, broken.quantile30]).all()
        assert aggregate((1.0, np.inf), "hd95").mean == np.inf


def slow_determinant(field, place):
    """Determinant at one voxel by Leibniz' sum over permutations, zeros beyond the border."""

    def read(component, where):
        inside = all(0 <= i < n for i, n in zip(where, field.shape[1:], strict=True))
        return float(field[(component, *where)]) if inside else 0.0

    jacobian = [[float(i == j) for j in range(3)] for i in range(3)]
    for i, j in itertools.product(range(3), repeat=2):
        ahead, behind = list(place), list(place)
        ahead[j] += 1
        behind[j] -= 1
        jacobian[i][j] += 0.5 * read(i, ahead) - 0.5 * read(i, behind)
    total = 0.0
    for order in itertools.permutations(range(3)):
        swaps = sum(a > b for a, b in itertools.combinations(order, 2))
        total += (-1) ** swaps * np.prod([jacobian[i][order[i]] for i in range(3)])
    return total


def slow_sdlogj(field):
    logs = []
    for place in itertools.product(*(range(2, n - 2) for n in field.shape[1:])):
        logs.append(np.log(min(max(slow_determinant(field, place) + 3, 1e-9), 1e9)))
    mean = sum(logs) / len(logs)
    return np.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs))


def slow_labels(labels, field):
    moved = np.zeros(field.shape[1:], labels.dtype)
    for place in np.ndindex(moved.shape):
        where = [place[i] + field[(i, *place)] for i in range(3)]
        if all(0 <= x <= n - 1 for x, n in zip(where, labels.shape, strict=True)):
            moved[place] = labels[tuple(int(np.floor(x + 0.5)) for x in where)]
    return moved


def slow_spline(volume, point):
    """Tensor product of interpolating cubic splines with mirrored ends, one axis after another."""
    values = volume.astype(np.float64)
    for x in reversed(point):
        n = values.shape[-1]
        # Mirrored about both outermost samples, often enough that the ends are forgotten.
        index = np.abs((np.arange(-30, n + 30) + (n - 1)) % (2 * (n - 1)) - (n - 1))
        curve = make_interp_spline(np.arange(-30, n + 30), values[..., index], k=3, axis=-1)
        values = curve(x)
    return float(values)


def smooth_field(seed, size):
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=(3, *SHAPE))
    return size * np.stack([gaussian_filter(component, 1.5) for component in noise])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_against_the_slow_reading(seed, dtype):
    field = smooth_field(seed, 12.0).astype(dtype)
    rng = np.random.default_rng(seed + 10)
    assert l2r_sdlogj(field) == pytest.approx(slow_sdlogj(field), abs=1e-6)

    moving, fixed = rng.integers(0, 4, size=(2, *SHAPE))
    moved = l2r_warp_labels(moving, field)
    np.testing.assert_array_equal(moved, slow_labels(moving, field))
    dices = l2r_dice(fixed, moving, moved, (1, 2, 3))
    for label, found in zip((1, 2, 3), dices, strict=True):
        a, b = set(zip(*np.nonzero(fixed == label))), set(zip(*np.nonzero(moved == label)))  # noqa: B905
        assert found == pytest.approx(2 * len(a & b) / (len(a) + len(b)), abs=1e-12)

    points, targets = rng.uniform(0, np.array(SHAPE) - 1, size=(2, 5, 3))
    spacing = np.array([8.0, 1.4, 1.9])
    errors = l2r_tre(points, targets, field, moving_spacing=spacing)
    for point, target, found in zip(points, targets, errors, strict=True):
        step = [slow_spline(component, point) for component in field]
        expected = np.linalg.norm((point + step - target) * spacing)
        assert found == pytest.approx(expected, abs=1e-6 if dtype is np.float64 else 1e-5)


def test_the_order_of_axes_does_not_matter():
    """Files run (x, y, z), arrays here (d, h, w): every number is the same."""
    field = smooth_field(5, 8.0)
    turned = field[::-1].transpose(0, 3, 2, 1)
    assert l2r_sdlogj(turned) == pytest.approx(l2r_sdlogj(field), abs=1e-12)
    moving, fixed = np.random.default_rng(0).integers(0, 3, size=(2, *SHAPE))
    moved = l2r_warp_labels(moving, field)
    np.testing.assert_array_equal(l2r_warp_labels(moving.T, turned), moved.T)
    assert l2r_hd95(fixed.T, moving.T, moved.T, (1, 2)) == pytest.approx(
        l2r_hd95(fixed, moving, moved, (1, 2)), abs=1e-12
    )
    points = np.random.default_rng(1).uniform(1, 7, size=(4, 3))
    one = l2r_tre(points, points, field, moving_spacing=(8.0, 1.4, 1.9))
    other = l2r_tre(points[:, ::-1], points[:, ::-1], turned, moving_spacing=(1.9, 1.4, 8.0))
    assert other == pytest.approx(one, abs=1e-9)


def test_the_door_on_an_oblique_grid(oblique_grid):
    """Landmarks given in world mm arrive as voxels; on perpendicular axes mm stay mm."""
    field = np.random.default_rng(3).normal(size=(3, *oblique_grid.shape)).astype(np.float32)
    voxels = np.random.default_rng(4).uniform(0, 6, size=(2, 5, 3))
    found = evaluate_registration(
        torch.from_numpy(field)[None], oblique_grid, mode="l2r",
        fixed_points_mm=oblique_grid.to_world(voxels[0]),
        moving_points_mm=oblique_grid.to_world(voxels[1]),
    )  # fmt: skip
    errors = l2r_tre(voxels[0], voxels[1], field, moving_spacing=oblique_grid.spacing)
    assert found.landmarks.tre_mm == pytest.approx(errors.mean(), abs=1e-5)
    assert found.field.sdlogj == l2r_sdlogj(field)
