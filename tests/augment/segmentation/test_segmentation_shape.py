"""Where hearts lie in patches, and the arm that searches a model of anatomy."""

import numpy as np
import pytest
import torch

from augment.segmentation import (
    AugmentationConfig,
    Augmented,
    ImageConfig,
    SliceExamples,
    UNet,
    population_sequence,
    prepare_frame,
    prepare_sequence,
    segmentation_losses,
)
from augment.segmentation.build import build_arm
from augment.segmentation.examples import mix
from cardiogen.cli.segmentation_data import shape_space
from cardiogen.engine.fit import StepInfo
from cardiogen.population import sample_heart

CONFIG = ImageConfig(spacing_mm=3.0, patch=48, heart_share=1.0)


@pytest.fixture(scope="module")
def heart():
    return population_sequence(0, 1, spacing_mm=3.0, size=56)


@pytest.fixture(scope="module")
def examples(heart):
    return SliceExamples(tuple(prepare_sequence(heart, CONFIG, frames="ed+es")), CONFIG)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_heart_frame_is_that_of_the_population(heart, examples):
    """Vertices in the world and in the heart's own frame, by two ways."""
    true = sample_heart(0, 1)
    frame = examples.frames[0]
    points = heart.vertices[0]
    voxels = frame.grid.to_voxel(points)
    found = voxels @ frame.to_heart[:3, :3].numpy().T + frame.to_heart[:3, 3].numpy()
    wanted = true.pose.to_heart(points)
    assert np.linalg.norm(found - wanted, axis=1).mean() < 10.0


def test_a_patch_knows_its_own_place(examples):
    batch = examples.patch(4, generator())
    depth = examples.places[4][1]
    plane = examples.frames[0].image[depth]
    # The corner of the patch in its slice, found by its content.
    size = CONFIG.patch
    window = batch.image[0, 0]
    starts = [(r, c) for r in range(plane.shape[0] - size + 1)
              for c in range(plane.shape[1] - size + 1)
              if torch.equal(plane[r : r + size, c : c + size], window)]  # fmt: skip
    ((top, left),) = starts
    whole = examples.frames[0].to_heart
    place = torch.tensor([0.0, 7.0, 11.0, 1.0], dtype=torch.float64)
    shifted = torch.tensor([depth, 7.0 + top, 11.0 + left, 1.0], dtype=torch.float64)
    torch.testing.assert_close(batch.to_heart[0] @ place, whole @ shifted)


def test_hearts_that_labels_do_not_show_have_no_place(heart):
    labels = np.where(heart.labels[0] == 3, 0, heart.labels[0]).astype(np.uint8)
    for given in (labels, np.zeros_like(labels), None):
        frame = prepare_frame(heart.images[0], given, heart.grid, CONFIG)
        assert frame.to_heart.isnan().all()


def test_augmented_patches_lose_their_place(examples):
    batch = mix([3, 4, 5, 6], examples, None, 0.0, generator())
    arm = Augmented(lambda image, one_hot, generator: (image, one_hot), share=0.5)
    changed = arm.changed(batch, generator(2))
    lost = changed.to_heart.isnan().flatten(1).all(dim=1)
    assert 0 < int(lost.sum()) < 4
    assert torch.equal(changed.to_heart[~lost], batch.to_heart[~lost])


def test_a_search_in_a_model_of_anatomy_raises_the_loss(examples):
    shape = shape_space(None)
    arm = build_arm(AugmentationConfig(arm="shape", ramp_share=0.0), spacing=(3.0, 3.0),
                    shape=shape)  # fmt: skip
    batch = mix([3, 5, 7, 9], examples, None, 0.0, generator())
    network = UNet(widths=(3, 4, 6))
    info = StepInfo(step=0, steps=1, epoch=0, kl_weight=0.0, free_bits=0.0,
                    device=torch.device("cpu"))  # fmt: skip
    for seed in range(4):
        found = arm.losses(
            network, batch, lambda o, t: segmentation_losses(o, t, spacing=(3.0, 3.0)),
            step=info, generator=generator(seed),
        )  # fmt: skip
        assert float(found["consistency"]) >= float(found["start"]) - 1e-6
        assert torch.isfinite(found["loss"].detach())


def test_the_arm_needs_a_model():
    with pytest.raises(ValueError, match="shape must be given for the arm shape"):
        build_arm(AugmentationConfig(arm="shape"), spacing=(3.0, 3.0))
