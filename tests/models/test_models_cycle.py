"""The cycle vector holds a beating heart; any vector is one, and periodic."""

import numpy as np
import pytest

from cardiogen.data.mesh import Surface
from cardiogen.measure import mesh_volume
from cardiogen.models.cycle import (
    ED_BLOCK,
    HARMONICS,
    MOTION_BLOCK,
    VECTOR_SIZE,
    curve_entries,
    decode_cycle,
    decode_phenotypes,
    encode_cycle,
    end_systole,
    fourier_basis,
)
from cardiogen.population import (
    COORDINATES,
    heart_vertices,
    sample_heart,
    template_topology,
)

TRAINING = np.arange(40) / 40
TOPOLOGY = template_topology()


@pytest.fixture(scope="module")
def hearts():
    return [sample_heart(31, i) for i in range(4)]


@pytest.fixture(scope="module")
def vectors(hearts):
    return [encode_cycle(TRAINING, h.coordinates(TRAINING)) for h in hearts]


def test_cycle_blocks_tile_the_vector():
    assert ED_BLOCK.start == 0
    assert ED_BLOCK.stop == MOTION_BLOCK.start
    assert MOTION_BLOCK.stop == VECTOR_SIZE


def test_cycle_basis_vanishes_at_ed_and_is_periodic():
    np.testing.assert_allclose(fourier_basis([0.0, 1.0, -2.0]), 0.0, atol=1e-15)
    phases = np.linspace(0, 1, 7)
    np.testing.assert_allclose(fourier_basis(phases + 1), fourier_basis(phases), atol=1e-12)
    assert fourier_basis(phases).shape == (7, 2 * HARMONICS)


def test_cycle_round_trip_over_the_cycle(hearts, vectors):
    phases = np.arange(25) / 25
    for heart, vector in zip(hearts, vectors, strict=True):
        truth = heart_vertices(heart.coordinates(phases))
        found = heart_vertices(decode_cycle(vector, phases))
        error = np.linalg.norm(found - truth, axis=-1)
        assert error[0].max() < 1e-6, "ED is exact"
        assert np.sqrt(np.mean(error**2)) < 0.3
        assert error.mean(axis=1).max() < 0.3


def test_cycle_phenotypes_are_exact(hearts, vectors):
    for heart, vector in zip(hearts, vectors, strict=True):
        found, truth = decode_phenotypes(vector), heart.phenotypes
        for name in ("lvedv", "lvesv", "lvm", "rvedv", "rvesv"):
            assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=1e-9)
        assert abs(end_systole(vector) - heart.timing.systole - 0.02) < 0.04


def test_cycle_volumes_are_those_of_the_phenotypes(vectors):
    for vector in vectors:
        phenotypes = decode_phenotypes(vector)
        phases = [*np.arange(200) / 200, end_systole(vector)]
        mesh = heart_vertices(decode_cycle(vector, phases))
        for surface, ed, es in (
            (Surface.LV_ENDO, phenotypes.lvedv, phenotypes.lvesv),
            (Surface.RV_ENDO, phenotypes.rvedv, phenotypes.rvesv),
        ):
            volume = mesh_volume(mesh, TOPOLOGY.surfaces[surface])
            np.testing.assert_allclose([volume[0], volume.min()], [ed, es], rtol=1e-6)
            assert volume[-1] <= es + 0.005 * (ed - es) + 1e-6


def test_cycle_any_vector_is_periodic_and_finite(vectors):
    rng = np.random.default_rng(0)
    spread = np.std(vectors, axis=0)
    for _ in range(6):
        vector = np.mean(vectors, axis=0) + spread * rng.normal(size=VECTOR_SIZE)
        # A ratio of stroke volumes as in health: others may empty a ventricle (next tests).
        vector[4] = 0.0
        vector[3] = vector[0] + 0.1
        start, end, middle = heart_vertices(decode_cycle(vector, [0.0, 1.0, 0.4]))
        np.testing.assert_array_equal(start, end)
        assert np.isfinite(middle).all()


def test_cycle_vector_of_the_encoded_decoded_heart_is_the_same(vectors):
    for vector in vectors:
        phases = np.arange(64) / 64
        again = encode_cycle(phases, decode_cycle(vector, phases))
        # The emptied fraction is scaled to its largest sample: one in 64 misses little of it.
        np.testing.assert_allclose(again[ED_BLOCK], vector[ED_BLOCK], atol=0.02)
        np.testing.assert_allclose(again[MOTION_BLOCK], vector[MOTION_BLOCK], atol=0.02)


def test_cycle_ventricle_without_volume_is_not_a_number(vectors):
    vector = vectors[0].copy()
    vector[4] = 1.5  # the right stroke volume is 4.5 times the left one
    found = decode_cycle(vector, [0.0, 0.36])
    volumes = found[:, COORDINATES["log_volume"]]
    assert np.isfinite(volumes[0]).all()
    assert np.isnan(volumes[1, 2])
    with pytest.raises(ValueError, match="coordinates must be finite"):
        heart_vertices(found)


def test_cycle_curve_entries_name_the_motion_of_a_coordinate(vectors):
    vector = vectors[0].copy()
    before = decode_cycle(vector, [0.0, 0.3])
    vector[curve_entries(("descent",))] = 0.0
    change = decode_cycle(vector, [0.0, 0.3]) - before
    assert np.abs(change[1, COORDINATES["descent"]]).min() > 1.0
    change[:, COORDINATES["descent"]] = 0.0
    np.testing.assert_array_equal(change, 0.0)
