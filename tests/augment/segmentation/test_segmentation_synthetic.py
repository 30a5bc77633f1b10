"""Synthetic hearts: stacks that lie where told, exact labels, contrasts that follow them."""

import numpy as np
import pytest

from augment.segmentation import paint_sequence, population_sequence
from augment.segmentation.view import View, draw_view, hand, view_grid
from cardiogen.base import keyed_rng
from cardiogen.data import Grid, Sequence, Structure
from cardiogen.population import sample_heart

PLACE = {"spacing_mm": 2.5, "size": 48}
STRUCTURES = (Structure.LV, Structure.MYO, Structure.RV)


def fine_heart(spacing_mm: float = 2.0) -> Sequence:
    """A ball of LV in a shell of MYO, RV beside it, on a fine oblique grid."""
    axes, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    shape = (41, 47, 53)
    grid = Grid.regular(shape, (spacing_mm,) * 3, (9.0, 4.0, -8.0), axes)
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing_mm
    away = np.linalg.norm(place - [40, 46, 60], axis=-1)
    right = np.linalg.norm(place - [40, 46, 28], axis=-1)
    labels = np.where(right < 24, Structure.RV, 0)
    labels = np.where(away < 30, Structure.MYO, labels)
    labels = np.where(away < 20, Structure.LV, labels).astype(np.uint8)
    return Sequence(phases=np.array([0.0]), grid=grid, labels=labels[None])


@pytest.mark.parametrize("angle", [0.0, 0.7, 4.0])
def test_a_stack_is_parallel_centered_and_covers_the_heart(oblique_grid, angle):
    points = oblique_grid.to_world(np.random.default_rng(0).uniform(1, 6, (20, 3)))
    view = View(angle=angle, mirrored=False, thickness_mm=7.0, shift=0.4)
    grid = view_grid(oblique_grid, points, view, spacing_mm=1.5, size=40)
    np.testing.assert_allclose(grid.spacing, (7.0, 1.5, 1.5))
    across = oblique_grid.affine[:3, 0] / oblique_grid.spacing[0]
    np.testing.assert_allclose(grid.affine[:3, 0] / 7.0, across, atol=1e-12)
    voxels = grid.to_voxel(points)
    assert voxels[:, 0].min() == pytest.approx(0.4)
    assert -0.5 <= voxels[:, 0].max() <= grid.shape[0] - 0.5
    # Turning about the middle keeps it in the middle.
    level = oblique_grid.to_voxel(points)
    center = oblique_grid.to_world((level.min(axis=0) + level.max(axis=0)) / 2)
    np.testing.assert_allclose(grid.to_voxel(center)[1:], (19.5, 19.5), atol=1e-9)


def test_a_mirrored_stack_runs_the_other_way_and_says_so():
    heart = fine_heart()
    view = View(angle=0.0, mirrored=True, thickness_mm=8.0, shift=0.0)
    turned = hand(heart, view)
    np.testing.assert_array_equal(turned.labels, heart.labels[..., ::-1])
    assert turned.orientation == "mirrored"
    plain = View(angle=0.0, mirrored=False, thickness_mm=8.0, shift=0.0)
    assert hand(heart, plain) is heart


def test_views_are_drawn_from_all_sides():
    views = [draw_view(keyed_rng(0, "test", i)) for i in range(200)]
    assert 0.35 < np.mean([v.mirrored for v in views]) < 0.65
    assert np.ptp([v.angle for v in views]) > 6
    assert 6 <= min(v.thickness_mm for v in views) <= max(v.thickness_mm for v in views) <= 10


def test_population_hearts_come_with_their_own_volumes():
    found = population_sequence(3, 5, **PLACE)
    heart = sample_heart(3, 5)
    assert found.images.shape == found.labels.shape == (2, *found.grid.shape)
    assert found.grid.shape[1:] == (48, 48)
    voxel = found.grid.voxel_volume_ml
    volumes = [voxel * (frame == Structure.LV).sum() for frame in found.labels]
    assert volumes[0] == pytest.approx(heart.phenotypes.lvedv, rel=0.08)
    assert volumes[1] == pytest.approx(heart.phenotypes.lvesv, rel=0.2)
    blood = found.images[0][found.labels[0] == Structure.LV].mean()
    assert blood > 1.5 * found.images[0][found.labels[0] == Structure.MYO].mean()


def test_painted_hearts_keep_their_volumes_and_show_their_walls():
    heart = fine_heart()
    painted = paint_sequence(heart, seed=0, index=2, **PLACE)
    assert painted.images.dtype == np.float32
    assert np.isfinite(painted.images).all()
    for structure in STRUCTURES:
        true = heart.grid.voxel_volume_ml * (heart.labels[0] == structure).sum()
        found = painted.grid.voxel_volume_ml * (painted.labels[0] == structure).sum()
        assert found == pytest.approx(true, rel=0.15)
    means = {s: painted.images[0][painted.labels[0] == s].mean() for s in STRUCTURES}
    assert means[Structure.LV] > 1.3 * means[Structure.MYO]


def test_painting_is_a_function_of_seed_and_index():
    heart = fine_heart(3.0)
    one, same = (paint_sequence(heart, seed=4, index=1, **PLACE) for _ in range(2))
    other = paint_sequence(heart, seed=4, index=2, **PLACE)
    np.testing.assert_array_equal(one.images, same.images)
    assert one.images.shape != other.images.shape or not np.array_equal(one.images, other.images)


def test_frames_of_a_heart_share_their_contrast_and_not_their_noise():
    heart = fine_heart(3.0)
    twice = heart.with_(phases=np.array([0.0, 0.5]), labels=np.repeat(heart.labels, 2, axis=0))
    painted = paint_sequence(twice, seed=1, index=0, **PLACE)
    apart = painted.images[0] - painted.images[1]
    assert 0 < np.abs(apart).mean() < 0.15
    np.testing.assert_array_equal(painted.labels[0], painted.labels[1])


def test_label_maps_are_asked_for():
    with pytest.raises(ValueError, match="sequence must have labels on a grid"):
        paint_sequence(fine_heart().with_(labels=None, grid=None), seed=0, index=0, **PLACE)
