from dataclasses import replace

import numpy as np
import pytest

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.measure.mesh_validity import check_mesh
from cardiogen.measure.vertex_distance import vertex_rmse
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.heart_codes import population_codes
from cardiogen.models.deformation.own_template import (
    label_template,
    mean_template,
    population_meshes,
)
from cardiogen.population.heart import sample_heart, training_heart
from cardiogen.population.pose import rigid_pose
from cardiogen.population.render import render_labels, short_axis_grid
from cardiogen.population.template import template_topology


def shape_error(template, truth):
    """Return how far vertices are from the truth but for a rigid motion, which is a pose, mm."""
    return vertex_rmse(rigid_pose(truth, template.vertices).to_heart(template.vertices), truth)


@pytest.fixture(scope="module")
def shown():
    """A heart at end diastole, and its label map with voxels of 2 mm."""
    heart = sample_heart(11, 3)
    world = heart.vertices([0.0])
    grid = short_axis_grid(world, heart.pose, (2.0, 2.0, 2.0))
    labels = render_labels(world[0], template_topology(), grid)
    return heart, Sequence(phases=np.zeros(1), grid=grid, labels=labels[None])


def test_template_of_a_label_map_is_its_heart(shown, template):
    heart, seen = shown
    truth = heart.pose.to_heart(heart.vertices([0.0])[0])
    own, overlap, mirrored, _ = label_template(seen)
    assert not mirrored
    assert min(overlap.values()) > 0.9
    assert shape_error(own, truth) < 1.2
    assert shape_error(template, truth) > 3.0
    assert check_mesh(own.opened()[None], own.topology) == []


def test_header_that_mirrors_the_heart_is_seen_and_undone(shown):
    _, seen = shown
    turned = np.diag([-1.0, 1.0, 1.0, 1.0]) @ seen.grid.affine
    mirror = Grid(seen.grid.shape, turned)
    own, overlap, mirrored, _ = label_template(
        seen.with_(grid=mirror, orientation="assumed", phases=np.zeros(1))
    )
    assert mirrored
    assert min(overlap.values()) > 0.9
    straight = label_template(seen).template
    assert shape_error(own, straight.vertices) < 0.5


def test_map_without_a_right_ventricle_is_refused(shown):
    _, seen = shown
    without = np.where(seen.labels == 3, 0, seen.labels).astype(np.uint8)
    with pytest.raises(CardiogenError, match="L37"):
        label_template(seen.with_(labels=without))


def test_a_part_of_a_heart_is_no_template(shown, template):
    """Three slices of ten: the fit makes a short, wide heart of them."""
    _, seen = shown
    depth = seen.labels.shape[1]
    slices = np.arange(depth)[:, None, None]
    middle = (slices > 0.45 * depth) & (slices < 0.65 * depth)
    part = np.where(middle, seen.labels, 0).astype(np.uint8)
    made = label_template(seen.with_(labels=part))
    assert made.overlap["MYO"] < 0.85
    # What cardiogen train refuses.
    assert vertex_rmse(made.template.vertices, template.vertices) > 30


def test_codes_are_those_of_the_template_for_any_processes(template, few):
    own = replace(template, vertices=few[2])
    one = population_codes(18, 5, template=own)
    two = population_codes(18, 5, template=own, jobs=2)
    usual = population_codes(2, 5)
    assert np.array_equal(one.ed, two.ed)
    assert np.array_equal(one.motion, two.motion)
    # Heart 2 is the template itself: next to nothing moves it.
    assert np.abs(one.ed[2]).max() < 0.2 * np.abs(usual.ed[1]).max()


@pytest.fixture(scope="module")
def few():
    return population_meshes(12, 5)


def test_hearts_of_the_population_are_those_of_the_training(few):
    heart = training_heart(5, 4)
    assert np.allclose(few[4], heart.pose.to_heart(heart.vertices([0.0])[0]), atol=1e-6)


def test_mean_does_not_depend_on_where_it_starts(few, template):
    far = replace(template, vertices=few[2])
    from_mean, left = mean_template(template, few, rounds=6)
    from_far, left_far = mean_template(far, few, rounds=6)
    assert max(left, left_far) < 0.2
    apart = vertex_rmse(from_mean.vertices, from_far.vertices)
    assert apart < 0.1 * vertex_rmse(far.vertices, few.mean(axis=0))


def test_velocities_are_centered_on_the_mean(few, template):
    import torch

    start = replace(template, vertices=few[2])
    own, _ = mean_template(start, few, rounds=3)

    def mean_speed(some):
        velocities = CodeFitter(some).fit_ed(torch.from_numpy(few).float())
        moved = np.einsum("va,ca->vc", some.splines, velocities.mean(dim=0).double().numpy())
        return vertex_rmse(moved, np.zeros_like(moved))

    assert mean_speed(own) < 0.1 * mean_speed(start)


def test_no_rounds_leave_the_template_as_it_is(few, template):
    same, _ = mean_template(template, few, rounds=0)
    assert same is template
