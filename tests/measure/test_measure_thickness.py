"""Wall thickness of shells whose thickness has a closed form, and of concentric cups."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cardiogen.data.labels import Structure
from cardiogen.measure import lv_frame, mesh_thickness, segment_means, wall_thickness
from cardiogen.measure.mesh_thickness import distance_to_triangles, wall_faces

GRIDS = {"stack": ((10.0, 1.4, 1.4), None), "volume": ((1.5, 1.4, 1.6), 6)}


def _thickness(heart, *, lowest):
    """Thickness of the wall above a share of the cavity's length, and its positions."""
    thickness = wall_thickness(heart.labels, heart.grid)
    wall = heart.labels == Structure.MYO
    assert np.isfinite(thickness[wall]).all()
    assert np.isnan(thickness[~wall]).all()
    frame = lv_frame(heart.labels, heart.grid)
    place = heart.grid.to_world(np.argwhere(wall))
    used = frame.fraction(place) > lowest
    return thickness[wall][used], heart.local[wall][used]


@pytest.mark.parametrize("name", GRIDS)
def test_cylinder(name, build_heart):
    spacing, seed = GRIDS[name]
    heart = build_heart(spacing, grid_seed=seed, inner=(20.0,) * 3, shape="cylinder")
    found, _ = _thickness(heart, lowest=0.25)
    assert found.mean() == pytest.approx(9.0, abs=0.2)
    assert np.percentile(np.abs(found - 9.0), 98) < 1.0  # most of a voxel


@pytest.mark.parametrize("name", GRIDS)
def test_sphere_is_measured_across_slices(name, build_heart):
    """In the slices themselves the slanting wall of a sphere looks up to twice as thick."""
    spacing, seed = GRIDS[name]
    heart = build_heart(spacing, grid_seed=seed, inner=(30.0,) * 3, outer=(39.0,) * 3, top=8.0)
    found, _ = _thickness(heart, lowest=0.15)
    assert found.mean() == pytest.approx(9.0, abs=0.25)
    assert np.abs(np.percentile(found, [5, 95]) - 9.0).max() < 1.0


@pytest.mark.parametrize("name", GRIDS)
def test_ellipsoid_against_dense_surfaces(name, build_heart):
    spacing, seed = GRIDS[name]
    inner, outer = np.array([24.0, 24.0, 78.0]), np.array([31.0, 31.0, 88.0])
    heart = build_heart(spacing, grid_seed=seed, inner=inner, outer=outer)
    found, place = _thickness(heart, lowest=0.1)
    polar, turn = np.meshgrid(np.linspace(0, np.pi, 500), np.linspace(0, 2 * np.pi, 500))
    unit = np.stack(
        [np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], -1
    )
    wanted = sum(cKDTree(unit.reshape(-1, 3) * semi).query(place)[0] for semi in (inner, outer))
    assert (found - wanted).mean() == pytest.approx(0.0, abs=0.2)
    assert np.sqrt(((found - wanted) ** 2).mean()) < 0.4


def test_storage_order_changes_nothing(build_heart):
    heart = build_heart((8.0, 1.5, 1.5))
    before = wall_thickness(heart.labels, heart.grid)
    order, flips = (2, 0, 1), (True, False, True)
    stored = np.flip(heart.labels.transpose(order), np.flatnonzero(flips))
    after = wall_thickness(stored, heart.grid.permuted(order, flips))
    after = np.flip(after, np.flatnonzero(flips)).transpose(np.argsort(order))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_units_are_mm(build_heart):
    """The same voxels twice as large: the same heart, twice as thick."""
    heart = build_heart((8.0, 1.5, 1.5))
    affine = heart.grid.affine.copy()
    affine[:3, :3] *= 2.0
    twice = wall_thickness(heart.labels, type(heart.grid)(heart.grid.shape, affine))
    np.testing.assert_allclose(twice, 2 * wall_thickness(heart.labels, heart.grid), rtol=1e-6)


def test_cup_between_spheres(build_cup):
    topology, vertices = build_cup((30.0,) * 3, (38.0,) * 3)
    thickness = mesh_thickness(np.stack([vertices, 2 * vertices]), topology)
    endo, epi = wall_faces(topology)
    inner = np.unique(endo)
    # Corners of both polyhedra lie on the spheres; faces of the outer one a little inside.
    assert np.nanmax(thickness[0]) <= 8.0 + 1e-9
    assert np.nanmin(thickness[0]) > 8.0 - 38.0 * (1 - np.cos(np.pi / 16)) - 0.5
    np.testing.assert_allclose(thickness[1], 2 * thickness[0])
    assert np.isfinite(thickness[0][inner]).all()
    assert np.isnan(np.delete(thickness[0], inner)).all()
    assert not np.isin(epi, inner).any()
    segments = np.where(np.isin(np.arange(len(vertices)), inner), 4, 0)
    assert segment_means(thickness[0], segments)[3] == pytest.approx(np.nanmean(thickness[0]))


def test_distance_to_a_triangle():
    triangle = np.array([[[0.0, 0, 0], [6.0, 0, 0], [0, 8.0, 0]]])
    points = np.array([[1.0, 1, 5], [3.0, -4, 0], [-3.0, -4, 12], [6.0, 8, 0], [9.0, 0, 4]])
    wanted = [5.0, 4.0, 13.0, 4.8, 5.0]
    np.testing.assert_allclose(distance_to_triangles(points, triangle), wanted)
