"""Laws of the template: closed surfaces that share their walls, and AHA segments in order."""

import itertools

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface
from cardiogen.measure import aha_segments, mesh_volume
from cardiogen.population import render_labels, short_axis_grid, template_topology
from cardiogen.population.template import COLUMNS, ENDO, EPI, REGIONS, ROWS, SEPTAL

TOPOLOGY = template_topology()


def edges(faces):
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


@pytest.mark.parametrize("surface", list(Surface))
def test_template_surface_is_a_wound_sphere(surface):
    faces = TOPOLOGY.surfaces[surface]
    directed = {tuple(edge) for edge in edges(faces)}
    assert len(directed) == 3 * len(faces), "an edge runs twice in one direction"
    assert all((b, a) in directed for a, b in directed), "an edge without its counterpart"
    assert len(np.unique(faces)) - len(directed) // 2 + len(faces) == 2


def test_template_surfaces_bound_positive_volumes(hearts):
    vertices = hearts[0].vertices([0.0, 0.36])
    volume = {s: mesh_volume(vertices, f) for s, f in TOPOLOGY.surfaces.items()}
    assert all((v > 0).all() for v in volume.values())
    assert (volume[Surface.LV_EPI] > volume[Surface.LV_ENDO]).all()
    both = volume[Surface.LV_EPI] + volume[Surface.RV_ENDO]
    assert (volume[Surface.EPI] > both).all()


def test_template_parts_tile_the_surfaces():
    def keys(faces):
        return {tuple(sorted(face)) for face in faces.tolist()}

    parts = {name: keys(faces) for name, faces in TOPOLOGY.parts.items()}
    for first, second in itertools.combinations(parts, 2):
        assert not parts[first] & parts[second], f"{first} and {second} share faces"
    for surface, faces in TOPOLOGY.surfaces.items():
        pieces = [part for part in parts.values() if part & keys(faces)]
        assert set.union(*pieces) == keys(faces), f"{surface.name} is no union of parts"
    assert len(TOPOLOGY.all_faces) == len(keys(TOPOLOGY.all_faces))


def test_template_uses_every_vertex():
    np.testing.assert_array_equal(np.unique(TOPOLOGY.all_faces), np.arange(TOPOLOGY.vertex_count))


def test_template_ventricles_share_the_septum():
    septum = np.unique(TOPOLOGY.parts["septum"])
    assert (septum >= EPI.start).all()
    assert (septum < EPI.stop).all()
    right = np.unique(TOPOLOGY.surfaces[Surface.RV_ENDO])
    left = np.unique(TOPOLOGY.surfaces[Surface.LV_EPI])
    np.testing.assert_array_equal(np.intersect1d(left, right), septum)
    # Turned round: what is outside for one ventricle is inside for the other.
    in_left = {tuple(e) for e in edges(TOPOLOGY.parts["septum"])}
    in_right = {tuple(e) for e in edges(TOPOLOGY.surfaces[Surface.RV_ENDO])}
    assert all((b, a) in in_right for a, b in in_left)


def test_template_region_names():
    assert TOPOLOGY.region_names == REGIONS
    names = np.array(REGIONS)[TOPOLOGY.region]
    assert set(names) == set(REGIONS)
    assert (names[ENDO] == "lv_endo").all()
    assert set(names[EPI]) == {"lv_epi", "septum"}
    assert (names[np.unique(TOPOLOGY.parts["septum"])] == "septum").all()


def test_template_has_all_aha_segments_on_the_left_ventricle_only():
    segment = TOPOLOGY.aha_segment
    for block in (segment[ENDO], segment[EPI]):
        assert set(block) == set(range(1, 18))
    np.testing.assert_array_equal(segment[ENDO], segment[EPI])
    assert not segment[EPI.stop :].any()


@pytest.mark.parametrize("row", [0, 10, 19])
def test_template_aha_segments_run_round_the_ring(row):
    ring = TOPOLOGY.aha_segment[ENDO][row * COLUMNS : (row + 1) * COLUMNS]
    runs = [
        int(s)
        for s, _ in itertools.groupby(np.roll(ring, -int(np.argmax(np.diff(ring) != 0)) - 1))
    ]
    # Columns run from the inferior insertion over the septum to the anterior one, and on.
    order = {0: [3, 2, 1, 6, 5, 4], 10: [9, 8, 7, 12, 11, 10], 19: [14, 13, 16, 15]}[row]
    start = runs.index(order[0])
    assert runs[start:] + runs[:start] == order


def test_template_septum_holds_the_septal_segments():
    rings = TOPOLOGY.aha_segment[ENDO][: ROWS * COLUMNS].reshape(ROWS, COLUMNS)
    assert set(rings[0, :SEPTAL]) == {2, 3}
    assert set(rings[0, SEPTAL:]) == {1, 6, 5, 4}


def test_template_aha_segments_agree_with_those_of_labels(hearts):
    left = np.flatnonzero(TOPOLOGY.aha_segment)
    shares = []
    for heart in hearts:
        vertices = heart.vertices([0.0])[0]
        grid = short_axis_grid(vertices, heart.pose, (2.0, 2.0, 2.0))
        labels = render_labels(vertices, TOPOLOGY, grid)
        wall = np.argwhere(labels == Structure.MYO)
        nearest = left[cKDTree(vertices[left]).query(grid.to_world(wall))[1]]
        found = aha_segments(labels, grid)[tuple(wall.T)]
        shares.append(np.mean(found == TOPOLOGY.aha_segment[nearest]))
    # 0.86 to 0.93 over ten hearts; borders of segments differ by the individual septum.
    assert min(shares) > 0.82
    assert np.mean(shares) > 0.86
