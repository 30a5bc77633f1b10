"""Dice and cross-entropy of a batch of patches, also of several sizes under deep supervision."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from cardiogen.losses import CrossEntropy, Dice

_DICE, _CROSS_ENTROPY = Dice(), CrossEntropy(smoothing=1e-6)


def segmentation_losses(
    output: Tensor | list[Tensor], target: Tensor, *, spacing: tuple[float, float]
) -> dict[str, Tensor]:
    """Return ``loss``, ``dice`` and ``cross_entropy`` of logits, means over the batch.

    ``loss = dice + cross_entropy``. Under deep supervision that of every level counts, halving
    from level to level; the two parts that are logged are those of full size.

    The Dice distance takes all patches of a batch as one volume: most slices lack a structure, and
    a distance to what is absent is 1 for any guess and teaches nothing (``batch_dice`` of
    nnU-Net).

    Args:
        output: logits ``(B, K, H, W)``, or a list of them, each half the size of the one before.
        target: shares of classes ``(B, K, H, W)``, background first.
        spacing: mm of a pixel.
    """
    levels = [output] if isinstance(output, Tensor) else list(output)
    weights = [0.5**n for n in range(len(levels))]
    parts = []
    for number, logits in enumerate(levels):
        step = 2**number
        coarse = functional.avg_pool2d(target, step) if number else target
        parts.append(_level(logits, coarse, tuple(s * step for s in spacing)))
    total = sum(w * (d + c) for w, (d, c) in zip(weights, parts, strict=True)) / sum(weights)
    dice, cross_entropy = parts[0]
    return {"loss": total, "dice": dice.detach(), "cross_entropy": cross_entropy.detach()}


def _level(logits: Tensor, target: Tensor, spacing: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    probs = logits.float().softmax(dim=1)
    # Patches become slices of one volume; their distance plays no part in an overlap.
    whole, wanted = (part.movedim(0, 1)[None] for part in (probs, target))
    dice = _DICE.mean(wanted[:, 1:], whole[:, 1:], spacing=(1.0, *spacing)).mean()
    cross_entropy = _CROSS_ENTROPY.mean(target, probs, spacing=spacing).mean()
    return dice, cross_entropy
