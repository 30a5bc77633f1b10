"""What label models minimize, and label maps from logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.losses import CrossEntropy, Dice
from cardiogen.models.voxel.lattice import CLASSES

_CROSS_ENTROPY, _DICE = CrossEntropy(), Dice()


def channels(labels: Tensor, present: Tensor) -> Tensor:
    """Return one-hot frames side by side ``(B, T * 4, D, H, W)``; a missing frame is all zeros.

    Args:
        labels: structures ``(B, T, D, H, W)``.
        present: ``(B, T)``.
    """
    hot = ops.one_hot(labels.flatten(0, 1)[:, None], CLASSES).unflatten(0, labels.shape[:2])
    return (hot * present[:, :, None, None, None, None]).flatten(1, 2)


def label_losses(
    probs: Tensor, labels: Tensor, present: Tensor, *, spacing: tuple[float, ...]
) -> dict[str, Tensor]:
    """Return cross-entropy (nats per voxel) and one less soft Dice of the three structures.

    Means over the frames that are there, then over the batch.

    Args:
        probs: ``(B, T, 4, D, H, W)``.
        labels: structures ``(B, T, D, H, W)``.
        present: which frames count ``(B, T)``.
        spacing: mm.
    """
    # Frame by frame: what one frame needs stays in the cache of a CPU.
    rows = [
        _frame_losses(frame, truth, spacing)
        for frame, truth in zip(probs.flatten(0, 1), labels.flatten(0, 1), strict=True)
    ]
    found = torch.stack(rows).unflatten(0, labels.shape[:2])  # (B, T, 2)
    weights = present / present.sum(dim=1, keepdim=True).clamp(min=1)
    cross_entropy, dice = (found * weights[:, :, None]).sum(dim=1).mean(dim=0)
    return {"cross_entropy": cross_entropy, "dice": dice}


def _frame_losses(probs: Tensor, labels: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Return both losses ``(2,)`` of one frame ``(4, D, H, W)``."""
    fixed = ops.one_hot(labels[None, None], CLASSES)
    moved = probs.float()[None]
    return torch.cat(
        [
            _CROSS_ENTROPY.value(fixed, moved, spacing=spacing),
            _DICE.value(fixed[:, 1:], moved[:, 1:], spacing=spacing),
        ]
    )


def probabilities(logits: Tensor) -> Tensor:
    """Return frames of probabilities ``(B, T, 4, D, H, W)`` of ``(B, T * 4, D, H, W)``."""
    return logits.unflatten(1, (-1, CLASSES)).softmax(dim=2)


def hard_labels(logits: Tensor) -> NDArray[np.uint8]:
    """Return the most probable structures ``(T, D, H, W)`` of one heart ``(T, 4, D, H, W)``.

    Nothing is filled, joined or removed: a fault of the model stays to be seen and counted.
    """
    return ops.argmax_labels(logits)[:, 0].cpu().numpy()


def mean_dice(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the overlap of LV, MYO and RV of equal label maps, ``(3,)``; NaN if in neither."""
    found = np.full(CLASSES - 1, np.nan)
    for k in range(1, CLASSES):
        one, other = predicted == k, truth == k
        size = one.sum() + other.sum()
        if size:
            found[k - 1] = 2.0 * (one & other).sum() / size
    return found


def validation_means(
    losses: ArrayLike, overlaps: ArrayLike, *, dice_weight: float
) -> dict[str, float]:
    """Return what a task's ``validate`` tells of held-out hearts.

    Args:
        losses: cross-entropy and Dice distance of every heart ``(N, 2)``.
        overlaps: Dice of LV, MYO and RV ``(N, 3)``; NaN where there is none.
        dice_weight: of the Dice distance in the loss.
    """
    cross_entropy, dice = np.mean(losses, axis=0)
    lv, myo, rv = np.nanmean(overlaps, axis=0)
    return {
        "loss": cross_entropy + dice_weight * dice,
        "dice_lv": lv, "dice_myo": myo, "dice_rv": rv,
    }  # fmt: skip
