"""The twisting annulus: tabulated values, incompressibility, inverses and a cine of it."""

import numpy as np
import pytest
import torch

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure import dice, label_volumes
from cardiogen.ops import argmax_labels, warp, warp_labels
from cardiogen.population import (
    Annulus,
    Pose,
    annulus_cine,
    annulus_displacement,
    annulus_grid,
    annulus_labels,
)

# R: r, E_rr, E_cc, E_zz, E_cz, engineering rr, engineering cc (specification 12.A.3).
TABLE = {
    25.0: (17.000, 0.9966, -0.2688, -0.1378, 0.0151, 0.730, -0.320),
    30.0: (24.749, 0.5168, -0.1597, -0.1367, 0.0267, 0.426, -0.175),
    35.0: (31.542, 0.3521, -0.0939, -0.1353, 0.0372, 0.306, -0.099),
}
DIGITS = (3, 4, 4, 4, 4, 3, 3)
POSE = Pose.from_directions([0.58, -0.50, 0.64], [0.76, 0.60, -0.22], [12.0, -31.0, 44.0])
ANNULUS = Annulus()


@pytest.fixture(scope="module")
def grid():
    return annulus_grid(ANNULUS, POSE, (6.1, 2.3, 2.5))


@pytest.mark.parametrize("radius", TABLE)
def test_tabulated_values(radius):
    strain = ANNULUS.strain(radius)
    found = (strain.radius, strain.rr, strain.cc, strain.zz, strain.cz, strain.engineering_rr,
             strain.engineering_cc)  # fmt: skip
    for value, wanted, digits in zip(found, TABLE[radius], DIGITS, strict=True):
        # Half a unit of the last digit; 0.30546 stands as 0.306 there, rounded twice.
        assert abs(float(value) - wanted) <= 0.55 * 10.0**-digits


def test_wall_and_ejection_fraction():
    assert pytest.approx(10.0) == ANNULUS.outer_ed - ANNULUS.inner_ed
    assert ANNULUS.outer - ANNULUS.inner == pytest.approx(14.54, abs=0.005)
    assert ANNULUS.ejection_fraction == pytest.approx(0.607, abs=0.0005)


@pytest.mark.parametrize("contraction", [0.0, 0.37, 1.0])
def test_wall_and_beyond_keep_their_volume(contraction):
    """det F = 1 by differences of the deformation itself, 2 mm inside the wall and far out."""
    state, step = ANNULUS.at(contraction), 1e-4
    rng = np.random.default_rng(3)
    radius, angle = rng.uniform(23.2, 60.0, 400), rng.uniform(-np.pi, np.pi, 400)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(-9, 90, 400)],
                      axis=-1)  # fmt: skip
    columns = [(state.deform(points + step * e) - state.deform(points - step * e)) / (2 * step)
               for e in np.eye(3)]  # fmt: skip
    np.testing.assert_allclose(np.linalg.det(np.stack(columns, axis=-1)), 1.0, atol=1e-6)


@pytest.mark.parametrize("contraction", [0.0, 0.5, 1.0])
def test_deformation_is_inverted_everywhere(contraction):
    state = ANNULUS.at(contraction)
    points = np.random.default_rng(1).uniform(-50, 50, size=(3000, 3))
    points[0] = 0.0
    np.testing.assert_allclose(state.undeform(state.deform(points)), points, atol=1e-9)
    np.testing.assert_allclose(state.deform(state.undeform(points)), points, atol=1e-9)
    radius = np.sort(np.hypot(*points[:, :2].T))
    moved = state.deform(np.stack([radius, 0 * radius, 0 * radius], axis=-1))[:, 0]
    assert (np.diff(moved) > 0).all()  # one-to-one through the blood, too


def test_nothing_moves_at_end_diastole(grid):
    np.testing.assert_allclose(annulus_displacement(ANNULUS.at(0.0), grid, POSE), 0.0, atol=1e-9)


def test_displacement_is_in_voxels_of_any_grid(oblique_grid):
    field = annulus_displacement(ANNULUS, oblique_grid, POSE)
    voxels = np.array([[0, 0, 0], [3, 9, 5], [6, 2, 12]])
    moved = POSE.to_world(ANNULUS.deform(POSE.to_heart(oblique_grid.to_world(voxels))))
    found = oblique_grid.to_world(voxels + field[(slice(None), *voxels.T)].T)
    np.testing.assert_allclose(found, moved, atol=1e-9)


def test_label_maps_have_the_cylinders_volumes():
    grid = annulus_grid(ANNULUS, POSE, (2.1, 1.3, 1.2))
    for contraction in (0.0, 1.0):
        state = ANNULUS.at(contraction)
        labels = annulus_labels(state, grid, POSE)
        above = POSE.to_heart(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)))[..., 2]
        volumes = label_volumes(np.where(above > 0, labels, 0), grid)  # without the cap
        cavity = np.pi * state.inner**2 * state.length * state.stretch / 1000.0
        outside = np.pi * state.outer**2 * state.length * state.stretch / 1000.0
        assert volumes[Structure.LV][0] == pytest.approx(cavity, rel=0.02)
        assert volumes[Structure.MYO][0] == pytest.approx(outside - cavity, rel=0.02)


def test_cine_is_one_moving_body(grid):
    cine = annulus_cine(ANNULUS, grid, POSE, phases=[0.0, 0.2, 0.36], snr=np.inf)
    sequence = cine.sequence
    assert sequence.es == 2
    assert cine.states[2].ejection_fraction == pytest.approx(0.607, abs=0.001)
    for frame in (1, 2):
        field = torch.from_numpy(cine.displacement(frame))[None]
        image = torch.from_numpy(sequence.images[frame])[None, None].double()
        back = warp(image, field)[0, 0].numpy()
        inside = sequence.labels[0] == Structure.MYO
        correlation = np.corrcoef(back[inside], sequence.images[0][inside])[0, 1]
        assert correlation > 0.5  # the texture of the wall is found again, at 2.4 mm
        labels = torch.from_numpy(sequence.labels[frame].astype(np.int64))[None, None]
        pulled = argmax_labels(warp_labels(labels, field, classes=4))[0, 0].numpy()
        for structure in (Structure.LV, Structure.MYO):
            assert dice(pulled == structure, sequence.labels[0] == structure) > 0.9


def test_cine_is_keyed(grid):
    small = Grid(tuple(n // 2 for n in grid.shape), grid.affine)
    one = annulus_cine(ANNULUS, small, POSE, phases=[0.0, 0.36, 0.6], seed=3)
    again = annulus_cine(ANNULUS, small, POSE, phases=[0.0, 0.36], seed=3)
    other = annulus_cine(ANNULUS, small, POSE, phases=[0.0, 0.36], seed=4)
    np.testing.assert_array_equal(one.sequence.images[:2], again.sequence.images)
    assert (one.sequence.images[0] != other.sequence.images[0]).mean() > 0.99


@pytest.mark.parametrize("snr", [5.0, 20.0])
def test_noise_has_the_given_level(grid, snr):
    noisy, clean = (
        annulus_cine(ANNULUS, grid, POSE, phases=[0.0], snr=s, texture=0.0).sequence
        for s in (snr, np.inf)
    )
    blood = noisy.labels[0] == Structure.LV
    noise = (noisy.images - clean.images)[0][blood]
    assert noise.std() == pytest.approx(1.0 / snr, rel=0.06)
    assert clean.images[0][blood].mean() == pytest.approx(1.0, abs=0.03)


def test_slices_average_over_their_thickness(grid):
    thin, thick = (
        annulus_cine(ANNULUS, grid, POSE, phases=[0.0], snr=np.inf, texture=0.0,
                     slice_thickness_mm=mm).sequence.images[0]
        for mm in (0.0, 12.2)
    )  # fmt: skip
    # Across the flat end of the cavity a thick slice sees half of either side.
    assert np.abs(thin - thick).max() > 0.2


def test_what_has_no_closed_form_is_refused():
    with pytest.raises(ValueError, match="cavity must not grow"):
        Annulus(inner=28.0)
    with pytest.raises(ValueError, match="positive and ordered"):
        Annulus(inner_ed=40.0)
    with pytest.raises(ValueError, match=r"radius_ed must be 22\.41 mm or more"):
        ANNULUS.strain(20.0)
    with pytest.raises(ValueError, match="starts with 0"):
        annulus_cine(ANNULUS, Grid.regular((3, 4, 5), 2.0), POSE, phases=[0.1, 0.2])
    with pytest.raises(ValueError, match="snr must be positive"):
        annulus_cine(ANNULUS, Grid.regular((3, 4, 5), 2.0), POSE, phases=[0.0], snr=0.0)
