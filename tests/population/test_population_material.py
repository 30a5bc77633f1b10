"""Laws of the material motion: it moves meshes exactly, is invertible and does not fold."""

import numpy as np
import pytest
import torch

from cardiogen.measure import dice
from cardiogen.ops import argmax_labels, folding, warp, warp_labels, warp_points
from cardiogen.population import (
    CineOptions,
    displacement_field,
    heart_frame,
    move_points,
    render_cine,
    render_labels,
    short_axis_grid,
    template_topology,
)
from cardiogen.population.template import ENDO, EPI, FREE_WALL

SYSTOLE = 0.36
TOPOLOGY = template_topology()


@pytest.fixture(scope="module")
def heart(hearts):
    return hearts[4]


@pytest.fixture(scope="module")
def frames(heart):
    return heart_frame(heart, 0.0), heart_frame(heart, SYSTOLE)


@pytest.fixture(scope="module")
def grid(heart):
    return short_axis_grid(heart.vertices([0.0, SYSTOLE]), heart.pose, (3.1, 2.6, 2.7))


@pytest.fixture(scope="module")
def ed_to_es(heart, grid):
    return displacement_field(heart, grid, from_phase=0.0, to_phase=SYSTOLE)


@pytest.mark.parametrize("block", [ENDO, EPI, FREE_WALL], ids=["endo", "epi", "free"])
def test_material_moves_the_mesh(heart, frames, block):
    start, end = (heart.pose.to_heart(v)[block] for v in heart.vertices([0.0, SYSTOLE]))
    moved = move_points(start, *frames)
    assert np.linalg.norm(end - start, axis=1).max() > 3.0
    np.testing.assert_allclose(moved, end, atol=1e-6)


def points_inside(heart, count=3000):
    """Random points of the cavities and the wall at end diastole, heart frame."""
    low, high = (
        f(heart.pose.to_heart(heart.vertices([0.0])[0]), axis=0) for f in (np.min, np.max)
    )
    points = np.random.default_rng(0).uniform(low, high, size=(6 * count, 3))
    row, column, distance = heart_frame(heart, 0.0).locate(points)
    free = heart_frame(heart, 0.0).surfaces(row, column)[2]
    return points[(row > 0) & (distance < free)][:count]


def test_material_back_and_forth_is_the_identity(heart, frames):
    points = points_inside(heart)
    assert len(points) > 1000
    back = move_points(move_points(points, *frames), *frames[::-1])
    np.testing.assert_allclose(back, points, atol=1e-9)


def test_material_locate_and_place_are_inverse(heart, frames):
    points = points_inside(heart)
    for frame in frames:
        np.testing.assert_allclose(frame.place(*frame.locate(points)), points, atol=1e-9)


def test_material_is_at_rest_far_away(frames):
    far = np.random.default_rng(1).normal(size=(200, 3))
    far = 300.0 * far / np.linalg.norm(far, axis=1, keepdims=True)
    np.testing.assert_allclose(move_points(far, *frames), far, atol=1e-3)


def test_material_same_phase_moves_nothing(heart, frames):
    points = np.random.default_rng(2).normal(scale=60.0, size=(2000, 3))
    np.testing.assert_allclose(move_points(points, frames[0], frames[0]), points, atol=1e-8)


def test_material_field_agrees_with_points(heart, frames, grid, ed_to_es):
    voxel = (9, 14, 17)
    world = grid.to_world(np.array(voxel, dtype=float))
    moved = heart.pose.to_world(move_points(heart.pose.to_heart(world[None]), *frames))[0]
    wanted = grid.to_voxel(moved) - voxel
    np.testing.assert_allclose(ed_to_es[(slice(None), *voxel)], wanted, atol=1e-9)


def test_material_field_moves_the_mesh_by_interpolation(heart, grid, ed_to_es):
    start, end = heart.vertices([0.0, SYSTOLE])
    field = torch.from_numpy(ed_to_es)[None]
    moved = warp_points(torch.from_numpy(start)[None], field, grid)[0].numpy()
    error = np.linalg.norm(moved - end, axis=1)[: EPI.stop]
    assert error.mean() < 0.35
    assert np.percentile(error, 95) < 1.2


def test_material_does_not_fold(ed_to_es):
    share = float(folding(torch.from_numpy(ed_to_es)[None]).fraction[0])
    assert share == 0.0


def test_material_field_carries_labels_of_es_to_ed(heart, grid, ed_to_es):
    ed, es = (render_labels(v, TOPOLOGY, grid) for v in heart.vertices([0.0, SYSTOLE]))
    field = torch.from_numpy(ed_to_es)[None]
    warped = warp_labels(torch.from_numpy(es)[None, None].long(), field, classes=4)
    moved = argmax_labels(warped)[0, 0].numpy()
    # The right base closes the cavity above and below the plane by no material point: its labels
    # agree less than those of the walls.
    for structure, least in ((1, 0.93), (2, 0.9), (3, 0.82)):
        after = dice(moved == structure, ed == structure)
        before = dice(es == structure, ed == structure)
        assert after > max(least, before), structure


def test_material_field_carries_images_of_es_to_ed(heart, grid, ed_to_es):
    options = CineOptions(snr=float("inf"), bias=0.0, slice_thickness_mm=0.0)
    cine = render_cine(heart, [0.0, SYSTOLE], grid, options=options)
    ed, es = torch.from_numpy(cine.images.astype(np.float64))
    moved = warp(es[None, None], torch.from_numpy(ed_to_es)[None])[0, 0]
    inside = torch.from_numpy(cine.labels[0] > 0)
    before, after = ((image - ed)[inside].abs().mean() for image in (es, moved))
    # Texture moves with the tissue: what is left is interpolation at edges.
    assert after < 0.35 * before
