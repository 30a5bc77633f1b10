"""Laws of the network's lattice: the world stays, volumes stay, what goes comes back."""

import numpy as np
import pytest
import torch

from augment.segmentation import ImageConfig, prepare_frame, prepare_sequence
from augment.segmentation.predict import largest_pieces, restore
from augment.segmentation.prepare import in_plane, indicator_channels, normalize, plane_grid
from cardiogen.base import CardiogenError
from cardiogen.data import Grid, Structure
from cardiogen.measure import dice


@pytest.mark.parametrize("spacing_mm", [0.9, 1.4, 2.6])
def test_the_plane_is_resampled_and_slices_stay(oblique_grid, spacing_mm):
    target = plane_grid(oblique_grid, spacing_mm)
    np.testing.assert_allclose(target.spacing, (8.0, spacing_mm, spacing_mm), rtol=1e-12)
    # Both lattices have one middle, and no voxel lies outside.
    middles = [g.to_world((np.array(g.shape) - 1) / 2) for g in (oblique_grid, target)]
    np.testing.assert_allclose(*middles, atol=1e-9)
    places = oblique_grid.to_voxel(target.corners())
    assert places.min() >= -1e-9
    assert (places <= np.array(oblique_grid.shape) - 1 + 1e-9).all()
    assert target.shape[0] == oblique_grid.shape[0]


def test_an_exact_fit_keeps_its_last_voxel():
    grid = Grid.regular((3, 11, 7), (8.0, 0.7, 0.7))
    assert plane_grid(grid, 0.7).shape == grid.shape
    assert plane_grid(grid, 1.4).shape == (3, 6, 4)


@pytest.mark.parametrize("spacing_mm", [1.0, 2.5])
def test_a_ramp_of_the_world_stays_one(oblique_grid, spacing_mm):
    slope = np.array([0.3, -0.2, 0.5])

    def ramp(grid):
        voxels = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
        return torch.as_tensor(grid.to_world(voxels) @ slope)[None, None]

    target = plane_grid(oblique_grid, spacing_mm)
    found = in_plane(ramp(oblique_grid), oblique_grid, target)
    # The blur of a coarser lattice bends ramps at borders, by the width of its Gaussian.
    inner = (..., slice(2, -2), slice(2, -2)) if spacing_mm > 2 else (...,)
    torch.testing.assert_close(found[inner], ramp(target)[inner], rtol=0, atol=2e-2)


@pytest.mark.parametrize("spacing_mm", [1.1, 3.2])
def test_areas_of_structures_stay(heart, spacing_mm):
    frame = prepare_sequence(heart, ImageConfig(spacing_mm=spacing_mm), frames="ed+es")[0]
    area = spacing_mm**2 * frame.structures.float().sum(dim=(1, 2, 3))
    voxel = heart.grid.spacing[1] * heart.grid.spacing[2]
    true = [voxel * (heart.labels[0] == s).sum() for s in (Structure.LV, Structure.MYO)]
    np.testing.assert_allclose(area[:2], true, rtol=0.02)


def test_the_center_is_that_of_the_heart(heart):
    frame = prepare_frame(heart.images[0], heart.labels[0], heart.grid, ImageConfig())
    place = frame.grid.to_world([1, *frame.center])
    voxels = np.argwhere(heart.labels[0] > 0).mean(axis=0)
    np.testing.assert_allclose(place, heart.grid.to_world([1, *voxels[1:]]), atol=0.2)
    bare = prepare_frame(heart.images[0], None, heart.grid, ImageConfig())
    assert bare.center == tuple((n - 1) / 2 for n in bare.image.shape[1:])
    assert bare.structures is None


def test_background_takes_what_structures_leave():
    shares = torch.rand(2, 3, 5, 7) / 3
    channels = indicator_channels(shares)
    torch.testing.assert_close(channels.sum(dim=1), torch.ones(2, 5, 7))


@pytest.mark.parametrize("kind", ["zscore", "range"])
def test_normalization_forgets_scale_and_offset(kind):
    image = torch.rand(5, 9, 11, generator=torch.Generator().manual_seed(1))
    changed = normalize(700 * image - 40, kind)
    torch.testing.assert_close(changed, normalize(image, kind), rtol=1e-4, atol=1e-5)
    if kind == "zscore":
        assert abs(float(changed.mean())) < 1e-5
        assert float(changed.std()) == pytest.approx(1, abs=1e-4)
    else:
        assert np.percentile(changed.numpy(), (0.5, 99.5)) == pytest.approx([0, 1], abs=1e-5)


def test_labels_come_back_to_the_images_own_lattice(heart):
    frame = prepare_frame(
        heart.images[0], heart.labels[0], heart.grid, ImageConfig(spacing_mm=1.0)
    )
    probs = indicator_channels(frame.structures[None])[0]
    back = restore(probs, frame.grid, heart.grid, largest_piece=True)
    for structure in (Structure.LV, Structure.MYO, Structure.RV):
        assert dice(back == structure, heart.labels[0] == structure) > 0.985
    assert back.dtype == np.uint8


def test_only_the_largest_piece_of_a_structure_stays():
    labels = np.zeros((3, 9, 11), dtype=np.uint8)
    labels[1, 2:6, 2:6] = Structure.LV
    labels[2, 2:4, 2:4] = Structure.LV  # touches the first one across slices
    labels[0, 8, 10] = Structure.LV
    labels[0, :2, :2] = Structure.RV
    kept = largest_pieces(labels)
    assert kept[0, 8, 10] == 0
    assert (kept == Structure.LV).sum() == 20
    assert (kept == Structure.RV).sum() == 4


def test_broken_intensities_are_named(heart):
    image = heart.images[0].copy()
    image[0, 3, 4] = np.nan
    with pytest.raises(CardiogenError, match=r"CG-N26 me, frame 3: found 1 voxels"):
        prepare_frame(image, None, heart.grid, ImageConfig(), subject_id="me", number=3)
    with pytest.raises(CardiogenError, match=r"CG-N39 .*every voxel is 2"):
        prepare_frame(np.full_like(image, 2), None, heart.grid, ImageConfig())
    with pytest.raises(ValueError, match=r"image must be \(D, H, W\)"):
        prepare_frame(image[0], None, heart.grid, ImageConfig())
    with pytest.raises(ValueError, match="must have images and labels"):
        prepare_sequence(heart.with_(images=None), ImageConfig(), frames="all")


def test_fat_that_is_larger_than_the_right_ventricle_is_not_taken_for_it():
    labels = np.zeros((5, 40, 50), dtype=np.uint8)
    labels[1:4, 15:25, 20:30] = Structure.MYO
    labels[1:4, 17:23, 22:28] = Structure.LV
    labels[1:4, 16:24, 12:18] = Structure.RV  # two pixels from the wall, as networks draw it
    wanted = labels.copy()
    labels[:, 33:40, :30] = Structure.RV
    assert np.array_equal(largest_pieces(labels), wanted)
    alone = np.where(labels == Structure.RV, labels, 0)
    # Without a left ventricle nothing says which piece is the heart.
    assert np.array_equal(np.unique(np.nonzero(largest_pieces(alone))[1]), np.arange(33, 40))
