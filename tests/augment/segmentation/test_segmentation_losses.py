"""Dice and cross-entropy: closed forms, batches as one volume, levels of deep supervision."""

import math

import pytest
import torch
from torch.nn import functional

from augment.segmentation import segmentation_losses

SPACING = (1.9, 2.1)


def labels(batch=2, shape=(12, 20), seed=0):
    codes = torch.randint(0, 4, (batch, *shape), generator=torch.Generator().manual_seed(seed))
    return functional.one_hot(codes, 4).movedim(-1, 1).float()


def test_a_perfect_prediction_costs_nothing():
    target = labels()
    found = segmentation_losses(40 * target, target, spacing=SPACING)
    assert float(found["loss"]) < 1e-5


def test_an_even_guess_costs_what_the_formulas_say():
    target = labels()
    found = segmentation_losses(torch.zeros_like(target), target, spacing=SPACING)
    assert float(found["cross_entropy"]) == pytest.approx(math.log(4), rel=1e-5)
    wanted = []
    for k in (1, 2, 3):
        n, pixels = float(target[:, k].sum()), target[:, k].numel()
        wanted.append(1 - 2 * n / 4 / (n + pixels / 16))
    assert float(found["dice"]) == pytest.approx(sum(wanted) / 3, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(
        float(found["dice"]) + float(found["cross_entropy"]), rel=1e-6
    )


def test_a_structure_absent_from_one_slice_counts_over_the_batch():
    target = torch.zeros(2, 4, 8, 12)
    target[:, 0] = 1
    target[0, 0, 2:6, 3:7], target[0, 1, 2:6, 3:7] = 0, 1
    # LV is right where it is; in the slice without it the network is nearly sure of none.
    logits = 8 * target
    found = segmentation_losses(logits, target, spacing=SPACING)
    assert float(found["dice"]) < 0.7  # MYO and RV are nowhere: 1 each for any guess but LV
    slices = [segmentation_losses(logits[n : n + 1], target[n : n + 1], spacing=SPACING)
              for n in range(2)]  # fmt: skip
    assert float(slices[1]["dice"]) == pytest.approx(1.0)


def test_levels_are_weighted_by_halves():
    target = labels()
    coarse = functional.avg_pool2d(target, 2)
    fine_logits, coarse_logits = torch.randn_like(target), torch.randn_like(coarse)
    both = segmentation_losses([fine_logits, coarse_logits], target, spacing=SPACING)
    one = segmentation_losses(fine_logits, target, spacing=SPACING)
    two = segmentation_losses(coarse_logits, coarse, spacing=tuple(2 * s for s in SPACING))
    wanted = (float(one["loss"]) + 0.5 * float(two["loss"])) / 1.5
    assert float(both["loss"]) == pytest.approx(wanted, rel=1e-5)
    assert float(both["dice"]) == pytest.approx(float(one["dice"]), rel=1e-6)


def test_half_precision_logits_lose_nothing():
    target = labels()
    logits = torch.randn_like(target).half()
    found = segmentation_losses(logits, target, spacing=SPACING)
    wanted = segmentation_losses(logits.float(), target, spacing=SPACING)
    assert torch.equal(found["loss"], wanted["loss"])
