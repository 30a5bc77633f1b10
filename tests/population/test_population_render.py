"""Laws of rendering: label maps agree with meshes, on every grid; cines have known noise."""

import itertools

import numpy as np
import pytest

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface
from cardiogen.measure import label_volumes, mesh_volume
from cardiogen.population import (
    CineOptions,
    render_cine,
    render_labels,
    short_axis_grid,
    template_topology,
)

TOPOLOGY = template_topology()


def rotation(seed):
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return axes * np.array([1.0, 1.0, np.sign(np.linalg.det(axes))])


def oblique_grid(vertices, spacing, seed):
    """A grid in a random pose that holds the points."""
    axes = rotation(seed)
    along = vertices @ axes
    low, high = along.min(axis=0) - 7.0, along.max(axis=0) + 7.0
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    return Grid.regular(shape, spacing, axes @ low, axes)


@pytest.mark.parametrize("phase", [0.0, 0.36])
def test_render_volumes_are_those_of_the_mesh(hearts, phase):
    for heart, seed in ((hearts[0], None), (hearts[1], 4)):
        vertices = heart.vertices([phase])[0]
        grid = (
            short_axis_grid(vertices, heart.pose)
            if seed is None
            else oblique_grid(vertices, np.array([1.3, 1.2, 1.25]), seed)
        )
        found = label_volumes(render_labels(vertices, TOPOLOGY, grid), grid)
        volume = {s: mesh_volume(vertices, f) for s, f in TOPOLOGY.surfaces.items()}
        wall = volume[Surface.LV_EPI] - volume[Surface.LV_ENDO]
        wanted = {
            Structure.LV: volume[Surface.LV_ENDO],
            Structure.MYO: wall,
            Structure.RV: volume[Surface.RV_ENDO],
        }
        for structure, value in wanted.items():
            assert found[structure][0] == pytest.approx(value, rel=0.02), structure.name


def test_render_is_the_same_on_permuted_and_flipped_grids(hearts):
    vertices = hearts[2].vertices([0.1])[0]
    grid = oblique_grid(vertices, np.array([5.0, 2.6, 3.1]), 9)
    labels = render_labels(vertices, TOPOLOGY, grid)
    flips = [(False, False, False), (True, False, True), (True, True, True)]
    for order, flip in itertools.product(itertools.permutations(range(3)), flips):
        axes = tuple(axis for axis in range(3) if flip[axis])
        wanted = np.flip(labels.transpose(order), axes)
        found = render_labels(vertices, TOPOLOGY, grid.permuted(order, flip))
        # Centers exactly on a facet may change sides with the last bit.
        assert np.mean(found != wanted) < 1e-4


def test_render_window_changes_nothing(hearts):
    vertices = hearts[0].vertices([0.0])[0]
    grid = short_axis_grid(vertices, hearts[0].pose, (4.0, 3.0, 3.0))
    labels = render_labels(vertices, TOPOLOGY, grid)
    start, shape = (-9, -4, -13), tuple(n + 22 for n in grid.shape)
    wide = render_labels(vertices, TOPOLOGY, grid.cropped(start, shape))
    inner = tuple(slice(-a, -a + n) for a, n in zip(start, grid.shape, strict=True))
    np.testing.assert_array_equal(wide[inner], labels)
    assert (wide > 0).sum() == (labels > 0).sum()
    half = grid.cropped((0, 0, 0), (grid.shape[0], grid.shape[1] // 2, grid.shape[2]))
    np.testing.assert_array_equal(
        render_labels(vertices, TOPOLOGY, half), labels[:, : grid.shape[1] // 2]
    )


def test_render_beside_the_heart_is_empty(hearts):
    vertices = hearts[0].vertices([0.0])[0]
    grid = Grid.regular((5, 6, 7), (2.0, 2.0, 2.0), (900.0, 0.0, 0.0))
    assert not render_labels(vertices, TOPOLOGY, grid).any()


def test_render_short_axis_grid_holds_the_heart_and_is_unmirrored(hearts):
    heart = hearts[3]
    vertices = heart.vertices([0.0, 0.36])
    grid = short_axis_grid(vertices, heart.pose, (8.0, 1.5, 1.4), margin_mm=10.0)
    voxels = grid.to_voxel(vertices) * grid.spacing
    assert (voxels > 9.0).all()
    assert (voxels < (np.array(grid.shape) - 1) * grid.spacing - 9.0).all()
    axes = grid.affine[:3, :3] / grid.spacing
    np.testing.assert_allclose(axes[:, 0], -heart.pose.axes[:, 2], atol=1e-12)
    labels = render_labels(vertices[0], TOPOLOGY, grid)
    where = {s: np.argwhere(labels == s).mean(axis=0) for s in (Structure.LV, Structure.RV)}
    assert where[Structure.RV][2] < where[Structure.LV][2], "the right ventricle is on the left"


@pytest.fixture(scope="module")
def cine_grid(hearts):
    return short_axis_grid(hearts[0].vertices([0.0]), hearts[0].pose, (12.0, 4.1, 3.9))


def test_cine_noise_is_rician(hearts, cine_grid):
    quiet = CineOptions(snr=float("inf"), slice_thickness_mm=0.0)
    clean = render_cine(hearts[0], [0.0], cine_grid, options=quiet).images[0].astype(np.float64)
    noisy = np.concatenate([
        render_cine(
            hearts[0], [0.0], cine_grid,
            options=CineOptions(snr=20.0, slice_thickness_mm=0.0, seed=0),
        ).images
    ]).astype(np.float64)[0]  # fmt: skip
    sd = 1.0 / 20.0
    # E[m^2] = s^2 + 2 sd^2 for every voxel of a Rician image, whatever the signal.
    excess = (noisy**2 - clean**2) / (2 * sd**2)
    assert excess.mean() == pytest.approx(1.0, abs=0.25)
    bright = clean > 0.8
    assert (noisy - clean)[bright].std() == pytest.approx(sd, rel=0.1)
    assert clean.min() >= 0


def test_cine_shows_blood_muscle_and_lung(hearts, cine_grid):
    options = CineOptions(snr=50.0, bias=0.0, texture=0.0, slice_thickness_mm=0.0)
    cine = render_cine(hearts[0], [0.0], cine_grid, options=options)
    image, labels = cine.images[0], cine.labels[0]
    mean = {s: np.median(image[labels == s]) for s in Structure}
    assert mean[Structure.LV] > 0.9
    assert mean[Structure.RV] > 0.9
    assert 0.2 < mean[Structure.MYO] < 0.45


def test_cine_is_reproducible_and_frames_differ_in_noise(hearts, cine_grid):
    options = CineOptions(snr=20.0, slice_thickness_mm=0.0, seed=5)
    first = render_cine(hearts[0], [0.0, 0.36], cine_grid, options=options)
    again = render_cine(hearts[0], [0.0], cine_grid, options=options)
    np.testing.assert_array_equal(again.images[0], first.images[0])
    other = render_cine(
        hearts[0], [0.0], cine_grid, options=CineOptions(snr=20.0, slice_thickness_mm=0.0, seed=6)
    )
    assert not np.array_equal(other.images[0], first.images[0])
    assert first.es == 1
    assert again.es is None


def test_cine_thick_slices_blur_along_d(hearts, cine_grid):
    def sharpness(thickness):
        options = CineOptions(snr=float("inf"), slice_thickness_mm=thickness, texture=0.0)
        image = render_cine(hearts[0], [0.0], cine_grid, options=options).images[0]
        return np.abs(np.diff(image, axis=0)).mean()

    assert sharpness(12.0) < sharpness(0.0)
