"""Whole volumes from windows: a network that looks at single pixels must give itself back."""

import numpy as np
import pytest
import torch

from augment.segmentation import (
    ImageConfig,
    PredictionConfig,
    UNet,
    predict_frame,
    predict_volume,
    prepare_frame,
)
from augment.segmentation.predict import _starts
from cardiogen.data import Structure

CPU = torch.device("cpu")


def by_value(image):
    """Logits of a network that sees one pixel: each structure has a signal of its own."""
    levels = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 4, 1, 1)
    return -8 * (image - levels).square()


@pytest.mark.parametrize(
    ("length", "size", "overlap"), [(97, 32, 0.5), (33, 32, 0.0), (64, 32, 0.9)]
)
def test_windows_cover_a_line(length, size, overlap):
    starts = _starts(length, size, overlap)
    covered = np.zeros(length, dtype=int)
    for start in starts:
        covered[start : start + size] += 1
    assert starts[0] == 0
    assert starts[-1] == length - size
    assert covered.min() >= 1
    steps = np.diff(starts)
    assert steps.max() <= max(1, int(size * (1 - overlap)))


def test_a_short_line_lies_in_the_middle_of_one_window():
    assert _starts(21, 32, 0.5) == [-5]
    assert _starts(32, 32, 0.5) == [0]


@pytest.mark.parametrize("patch", [16, 32, 64])
@pytest.mark.parametrize("overlap", [0.0, 0.6])
def test_windows_of_any_size_give_a_pixelwise_network_back(heart, patch, overlap):
    config = ImageConfig(spacing_mm=2.0, patch=patch)
    frame = prepare_frame(heart.images[0], None, heart.grid, config)
    options = PredictionConfig(overlap=overlap, windows=5)
    found = predict_frame(by_value, frame, config, options, device=CPU)
    wanted = by_value(frame.image[:, None]).softmax(dim=1).movedim(1, 0)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_labels_come_out_on_the_images_own_lattice(heart):
    config = ImageConfig(spacing_mm=0.9, patch=48)
    values = heart.labels[0].astype(np.float32)

    def network(image):
        # normalization brings 0 and 3 to 0 and 1
        return by_value(image * 3)

    options = PredictionConfig(largest_piece=False)
    found = predict_volume(network, values, heart.grid, config, options)
    assert found.shape == heart.labels[0].shape
    assert found.dtype == np.uint8
    for structure in (Structure.LV, Structure.RV):
        both = (found == structure) & (heart.labels[0] == structure)
        assert both.sum() > 0.9 * (heart.labels[0] == structure).sum()


def test_networks_with_deep_supervision_and_grids_larger_than_a_window(heart):
    network = UNet(widths=(2, 3), deep_supervision=True).eval()
    config = ImageConfig(spacing_mm=2.0, patch=16)
    found = predict_volume(network, heart.images[0], heart.grid, config, PredictionConfig())
    assert set(np.unique(found)) <= {0, 1, 2, 3}
    assert all(parameter.grad is None for parameter in network.parameters())
