"""Chains in batchgeneratorsv2: one draw for all of a sample, nnU-Net's order of steps."""

import pytest
import torch

pytest.importorskip("batchgeneratorsv2")

from augment import Affine, Chain, GaussianNoise, Morph, classic_chain
from augment.adapters.for_batchgenerators import ChainTransform, add_to_pipeline


def sample():
    image = torch.rand(2, 5, 22, 26, generator=torch.Generator().manual_seed(0))
    codes = torch.zeros(1, 5, 22, 26, dtype=torch.int16)
    codes[:, 1:4, 6:15, 7:18] = 3
    return image, codes


def test_the_example_runs(run_example):
    names = run_example("for_batchgenerators")
    assert names["image"].shape == (1, 9, 32, 40)
    assert names["labels"].dtype == torch.int16


def test_image_labels_and_target_move_alike(shifted):
    codes = sample()[1]
    torch.manual_seed(4)
    transform = ChainTransform(shifted, spacing=(7.0, 1.4, 1.9))
    given = {"image": (codes == 3).float(), "segmentation": codes.clone(),
             "regression_target": (codes == 3).float()}  # fmt: skip
    moved = transform(**given)
    assert torch.equal(moved["image"], moved["regression_target"])
    inside = moved["image"][0] > 0.5
    assert ((moved["segmentation"][0] == 3) == inside).float().mean() > 0.99
    assert not torch.equal(moved["segmentation"], codes)


def test_draws_follow_torchs_seed_and_probability():
    image = sample()[0]
    transform = ChainTransform(classic_chain(), spacing=(7.0, 1.4, 1.9), probability=0.5)
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append([transform(image=image)["image"] for _ in range(12)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    kept = sum(torch.equal(each, image) for each in found[0])
    assert 0 < kept < 12
    with pytest.raises(ValueError, match=r"probability must lie in \[0, 1\], got 2"):
        ChainTransform(classic_chain(), spacing=(1.0, 1.0), probability=2)


def test_the_chain_follows_the_spatial_step_of_a_pipeline():
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

    spatial = SpatialTransform((5, 16, 16), 0, random_crop=False)
    blur = GaussianBlurTransform((0.5, 1.0))
    chain = ChainTransform(classic_chain(), spacing=(7.0, 1.4, 1.9))
    pipeline = add_to_pipeline(ComposeTransforms([spatial, blur]), chain)
    assert pipeline.transforms == [spatial, chain, blur]
    image, codes = sample()
    assert pipeline(image=image, segmentation=codes)["image"].shape == (2, 5, 16, 16)
    with pytest.raises(ValueError, match="must have a SpatialTransform"):
        add_to_pipeline(ComposeTransforms([blur]), chain)


def test_the_chain_waits_until_folded_slices_are_an_axis_again():
    """nnU-Net folds thick slices into channels: do_dummy_2d_data_aug=True."""
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.pseudo2d import (
        Convert2DTo3DTransform,
        Convert3DTo2DTransform,
    )

    spatial = SpatialTransform((16, 18), 0, random_crop=False)
    fold, unfold = Convert3DTo2DTransform(), Convert2DTo3DTransform()
    blur = GaussianBlurTransform((0.5, 1.0))
    chain = ChainTransform(classic_chain(), spacing=(7.0, 1.4, 1.9))
    pipeline = add_to_pipeline(ComposeTransforms([fold, spatial, unfold, blur]), chain)
    assert pipeline.transforms == [fold, spatial, unfold, chain, blur]
    image, codes = sample()
    moved = pipeline(image=image, segmentation=codes)
    assert moved["image"].shape == (2, 5, 16, 18)
    assert moved["segmentation"].shape == (1, 5, 16, 18)


def test_keypoints_stay_on_what_they_mark():
    """An image of coordinates: where a keypoint is found after the move, it reads the old ones."""
    from scipy.ndimage import map_coordinates

    shape = (9, 40, 34)
    image = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"))
    keypoints = torch.tensor([[4.0, 20.0, 17.0], [3.2, 15.5, 12.25], [5.0, 26.0, 21.0]])
    chain = Chain(transforms=(Affine(shift_mm=4.0, tilt_deg=3.0), Morph()), least=2)
    transform = ChainTransform(chain, spacing=(7.0, 1.4, 1.9))
    for seed in range(3):
        torch.manual_seed(seed)
        moved = transform(image=image.clone(), keypoints=keypoints.clone())
        places = moved["keypoints"]
        assert places.dtype == torch.float32
        assert (places - keypoints).abs().max() > 0.5
        read = [
            torch.from_numpy(map_coordinates(c.numpy(), places.T.numpy(), order=1))
            for c in moved["image"]
        ]
        torch.testing.assert_close(torch.stack(read, dim=1), keypoints, rtol=0, atol=0.15)


def test_keypoints_of_slices_whole_numbers_and_none_at_all(shifted):
    torch.manual_seed(2)
    image = torch.zeros(1, 31, 27)
    image[0, 15, 12] = 1
    moved = ChainTransform(shifted, spacing=(1.5, 2.0))(
        image=image, keypoints=torch.tensor([[15, 12]])
    )
    mass = moved["image"][0]
    places = torch.stack(torch.meshgrid(torch.arange(31.0), torch.arange(27.0), indexing="ij"))
    center = (places * mass).sum(dim=(1, 2)) / mass.sum()
    torch.testing.assert_close(moved["keypoints"][0], center, rtol=0, atol=0.02)
    none = ChainTransform(shifted, spacing=(1.5, 2.0))(image=image, keypoints=torch.zeros(0, 2))
    assert none["keypoints"].shape == (0, 2)
    transform = ChainTransform(shifted, spacing=(1.5, 2.0))
    with pytest.raises(ValueError, match=r"voxels \(N, 2\), .* got \(1, 3\)"):
        transform(image=image, keypoints=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="got NaN or infinity in point 1"):
        transform(image=image, keypoints=torch.tensor([[1.0, 2.0], [float("nan"), 3.0]]))


def test_boxes_are_refused_where_they_would_have_to_move(shifted):
    image, boxes = sample()[0], torch.tensor([[1.0, 4.0, 5.0, 3.0, 9.0, 9.0]])
    for probability in (0.0, 1.0):
        transform = ChainTransform(shifted, spacing=(7.0, 1.4, 1.9), probability=probability)
        with pytest.raises(ValueError, match=r"bbox cannot move .* geometry of \['Affine'\]"):
            transform(image=image, bbox=boxes)
    noise = ChainTransform(Chain(transforms=(GaussianNoise(),)), spacing=(7.0, 1.4, 1.9))
    assert torch.equal(noise(image=image, bbox=boxes)["bbox"], boxes)
