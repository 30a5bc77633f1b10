"""Laws of the anatomy: exact volumes, validity whatever the numbers, frames on their own."""

import numpy as np
import pytest

from cardiogen.data.mesh import Surface
from cardiogen.measure import check_mesh, mesh_thickness, mesh_volume
from cardiogen.population import (
    COORDINATE_COUNT,
    COORDINATES,
    heart_vertices,
    lattice,
    template_topology,
)
from cardiogen.population.heart import shape_prior
from cardiogen.population.shape_fields import field_basis, rv_basis

TOPOLOGY = template_topology()
MEAN, WIDE = shape_prior()
SPREAD = WIDE / 3.0  # of the population's shapes; volumes and length are set by hand


def coordinates(rng, count, *, deviation):
    """Coordinates that all lie ``deviation`` SDs off the mean at once, up or down."""
    found = MEAN + deviation * SPREAD * rng.choice([-1.0, 1.0], size=(count, COORDINATE_COUNT))
    found[:, COORDINATES["log_volume"]] = np.log(rng.uniform(60, 260, size=(count, 3)))
    found[:, COORDINATES["log_focal"]] = np.log(rng.uniform(70, 105, size=(count, 1)))
    found[:, COORDINATES["twist"]] = np.radians([3.5, -8.5]) * rng.uniform(-2, 2, (count, 2))
    found[:, COORDINATES["descent"]] = rng.uniform(-5, 15, size=(count, 1))
    return found


def test_anatomy_blocks_tile_the_vector():
    ends = [part.stop for part in COORDINATES.values()]
    starts = [part.start for part in COORDINATES.values()]
    assert starts == [0, *ends[:-1]]
    assert ends[-1] == COORDINATE_COUNT


def test_anatomy_volumes_are_the_coordinates():
    vector = coordinates(np.random.default_rng(1), 12, deviation=1.0)
    vertices = heart_vertices(vector)
    volume = {s: mesh_volume(vertices, f) for s, f in TOPOLOGY.surfaces.items()}
    wanted = np.exp(vector[:, COORDINATES["log_volume"]])
    np.testing.assert_allclose(volume[Surface.LV_ENDO], wanted[:, 0], rtol=1e-7)
    wall = volume[Surface.LV_EPI] - volume[Surface.LV_ENDO]
    np.testing.assert_allclose(wall, wanted[:, 1], rtol=1e-7)
    np.testing.assert_allclose(volume[Surface.RV_ENDO], wanted[:, 2], rtol=1e-7)


@pytest.mark.parametrize("deviation", [1.0, 5.0])
def test_anatomy_is_valid_for_any_shape(deviation):
    rng = np.random.default_rng(2)
    vector = coordinates(rng, 3, deviation=deviation)
    # Hearts of one size: the shapes are what is absurd here.
    vector[:, COORDINATES["log_volume"]] = np.log([150.0, 105.0, 165.0])
    found = [v for v in check_mesh(heart_vertices(vector), TOPOLOGY) if v.rule != "wall-thickness"]
    assert found == []


def test_anatomy_wall_is_thick_everywhere(hearts):
    for heart in hearts:
        for frame in heart.vertices([0.0, 0.36]):
            assert np.nanmin(mesh_thickness(frame, TOPOLOGY)) > 1.5


def test_anatomy_frame_is_the_same_bits_alone_and_among_others():
    vector = coordinates(np.random.default_rng(3), 7, deviation=1.0)
    together = heart_vertices(vector)
    for index in range(7):
        np.testing.assert_array_equal(
            heart_vertices(vector[index : index + 1])[0], together[index]
        )
    np.testing.assert_array_equal(heart_vertices(vector[[6, 2, 2]]), together[[6, 2, 2]])


def test_anatomy_descent_moves_the_whole_heart_down():
    vector = np.repeat(coordinates(np.random.default_rng(4), 1, deviation=0.5), 2, axis=0)
    vector[1, COORDINATES["descent"]] += 7.0
    before, after = heart_vertices(vector)
    np.testing.assert_allclose(
        after - before, np.broadcast_to([0, 0, -7.0], before.shape), atol=1e-9
    )


def test_anatomy_equal_twist_of_base_and_apex_is_a_rotation():
    vector = np.repeat(coordinates(np.random.default_rng(5), 1, deviation=0.5), 2, axis=0)
    vector[:, COORDINATES["twist"]] = 0.0
    vector[1, COORDINATES["twist"]] = 0.3
    before, after = heart_vertices(vector)
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    np.testing.assert_allclose(after, before @ turn.T, atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e4])
def test_anatomy_refuses_impossible_coordinates(bad):
    vector = coordinates(np.random.default_rng(6), 2, deviation=0.5)
    vector[1, COORDINATES["log_volume"].start] = bad
    with pytest.raises(ValueError, match="coordinates"):
        heart_vertices(vector)


def test_anatomy_refuses_other_shapes():
    with pytest.raises(ValueError, match=rf"\(T, {COORDINATE_COUNT}\), got \(3,\)"):
        heart_vertices(np.zeros(3))


def test_anatomy_modes_are_single_valued_at_the_apex():
    angles = np.linspace(0, 2 * np.pi, 9)
    modes = field_basis(np.zeros(9), angles)
    np.testing.assert_allclose(modes - modes[:, :1], 0, atol=1e-12)
    assert len(modes) == COORDINATES["endo"].stop - COORDINATES["endo"].start
    rv = COORDINATES["rv"]
    assert len(rv_basis(np.zeros(3), np.zeros(3))) == rv.stop - rv.start


def test_points_are_placed_in_parts_as_at_once(monkeypatch):
    """Memory stays bounded however many points there are; real label maps take one part."""
    hearts = shape_prior()[0] + 0.01 * np.arange(3)[:, None]
    draw = np.random.default_rng(5)
    points = draw.uniform(-40, 40, (101, 3)) - [0, 0, 45]
    which, names = draw.integers(0, 3, 101), ["endo", "epi", "free"]
    whole = lattice.surface_distances(hearts, points, which, names)
    monkeypatch.setattr(lattice, "_MOST_AT_ONCE", 3 * 17)
    parts = lattice.surface_distances(hearts, points, which, names)
    for found, wanted in zip(parts, whole, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
