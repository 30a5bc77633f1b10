"""Label maps for uncertain anatomy."""

import itertools

import numpy as np
import pytest

from cardiogen.measure.decision import overlap_labels
from cardiogen.measure.overlap import dice


def test_certain_anatomy_is_shown():
    truth = np.random.default_rng(0).integers(0, 4, (3, 5, 6))
    probabilities = np.stack([truth == s for s in (1, 2, 3)]).astype(float)
    np.testing.assert_array_equal(overlap_labels(probabilities), truth)
    assert overlap_labels(probabilities).dtype == np.uint8


def test_no_mask_has_a_larger_expected_dice():
    """Of all masks of ten voxels whose truth is one of seven known, equally probable masks."""
    rng = np.random.default_rng(1)
    every = np.array(list(itertools.product((False, True), repeat=10)))
    gained = []
    for _ in range(20):
        center = rng.normal(4.5, 1.2, 7)
        truths = np.abs(np.arange(10) - center[:, None]) < 2.2
        shown = overlap_labels(truths.mean(axis=0)[None]) == 1
        worth = [np.mean([dice(mask, truth) for truth in truths]) for mask in every]
        own = np.mean([dice(shown, truth) for truth in truths])
        half = np.mean([dice(truths.mean(axis=0) > 0.5, truth) for truth in truths])
        assert own >= max(worth) - 0.02
        gained.append(own - half)
    assert np.mean(gained) > 0.003


def test_a_voxel_is_of_one_structure_and_absent_ones_are_nowhere():
    probabilities = np.zeros((3, 1, 2, 4))
    probabilities[0, 0, 0] = 0.9, 0.6, 0.45, 0.1
    probabilities[1, 0, 0] = 0.1, 0.4, 0.5, 0.3
    found = overlap_labels(probabilities)
    # D of the first 2 (.9 + .6 + .45) / (3 + 2.05) = .77, of the second 2 (1.2) / (3 + 1.3) = .56.
    assert found[0, 0].tolist() == [1, 1, 2, 2]
    assert (found[0, 1] == 0).all()
    assert not (found == 3).any()


@pytest.mark.parametrize(
    "wrong", [np.full((2, 3), 0.7), np.array([[-0.1, 0.2]]), np.array([[np.nan, 0.0]]),
              np.array(0.5)],
)  # fmt: skip
def test_what_are_no_probabilities_are_refused(wrong):
    with pytest.raises(ValueError, match="probabilities must be"):
        overlap_labels(wrong)
