"""How much a prediction on a changed image disagrees with a reference on the original.

``D(reference, T^-1 f(T x))``: probabilities, not logits, are brought back to the lattice of the
original image, where only voxels that both have seen count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augment.chain import Applied
from augment.outputs import Head
from augment.terms import KL, Contour
from cardiogen.losses import Dice
from cardiogen.losses.masks import mean_inside
from cardiogen.ops import resize, resize_field, warp, warp_labels


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Weighted sum of distances between reference and prediction; 0 leaves one out.

    Attributes:
        kl: divergence of the prediction from the reference, nats per voxel.
        mse: squared difference of probabilities.
        dice: one less the soft Dice overlap, mean over structures.
        contour: squared difference of slopes, see ``Contour``.
        confidence: voxels where the reference is less sure than this do not count.
    """

    kl: float = 1.0
    mse: float = 0.0
    dice: float = 0.0
    contour: float = 0.0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.kl, self.mse, self.dice, self.contour)
        if not all(math.isfinite(weight) for weight in weights):
            raise ValueError(f"weights must be finite, got {weights}")
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"weights must not be negative nor all 0, got {weights}")
        if not 0 <= self.confidence < 1:
            raise ValueError(f"confidence must lie in [0, 1), got {self.confidence}")

    def __call__(
        self, reference: Sequence[Head], predicted: Sequence[Head], applied: Applied
    ) -> Tensor:
        """Return the disagreement of every sample ``(B,)``.

        Args:
            reference: heads on the original image, without gradients.
            predicted: heads on the changed image, in the same order.
            applied: the changed image.
        """
        return self.of(paired_heads(reference, predicted, applied))

    def of(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the disagreement of every sample ``(B,)`` of heads that were brought back."""
        # Sums over many voxels; half precision would lose them.
        with torch.autocast(pairs[0].moved.device.type, enabled=False):
            parts = [pair.weight * self._one(pair) for pair in pairs]

            return sum(parts[1:], parts[0]) / sum(pair.weight for pair in pairs)

    def _one(self, pair: Pair) -> Tensor:
        mask = pair.mask
        if self.confidence > 0:
            mask = mask * _confident(pair, self.confidence).to(mask)
        # Probabilities are finite everywhere, so one masked mean serves all terms that are means.
        parts = []
        if self.kl:
            term = KL(exclusive=pair.exclusive)
            parts.append(self.kl * term.everywhere(pair.fixed, pair.moved))
        if self.mse:
            squares = (pair.fixed - pair.moved).square().mean(dim=1, keepdim=True)
            parts.append(self.mse * squares)
        structures = pair.structures()
        if self.contour:
            # Slopes at the mask's border must not read across it.
            difference = (structures[0] - structures[1]) * (mask > 0)
            parts.append(self.contour * Contour().of(difference, spacing=pair.spacing))
        total = mean_inside(sum(parts[1:], parts[0]), mask) if parts else 0.0
        if self.dice:
            overlap = Dice().mean(*structures, spacing=pair.spacing, mask=mask)
            total = total + self.dice * overlap

        return total


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A reference and a prediction on one lattice.

    Attributes:
        fixed: probabilities of the reference, ``(B, K, *S)``.
        moved: probabilities of the prediction, brought back.
        mask: where both count, ``(B, 1, *S)``.
        spacing: mm per axis.
        exclusive: whether channels sum to one, background first.
        weight: share in losses.
    """

    fixed: Tensor
    moved: Tensor
    mask: Tensor
    spacing: tuple[float, ...]
    exclusive: bool
    weight: float

    def structures(self) -> tuple[Tensor, Tensor]:
        """Return both without background, which repeats what the structures say."""
        first = 1 if self.exclusive else 0

        return self.fixed[:, first:], self.moved[:, first:]


def paired_heads(
    reference: Sequence[Head], predicted: Sequence[Head], applied: Applied
) -> list[Pair]:
    """Bring predictions on a changed image back and pair them with their references.

    Raises:
        ValueError: if the two do not have the same heads.
    """
    if len(reference) != len(predicted):
        raise ValueError(
            f"reference must have the {len(predicted)} heads of the prediction, "
            f"got {len(reference)}"
        )
    pairs = []
    for fixed, head in zip(reference, predicted, strict=True):
        if fixed.probs.shape != head.probs.shape or fixed.exclusive != head.exclusive:
            raise ValueError(
                f"reference must have the shape of the prediction, {tuple(head.probs.shape)}, "
                f"and its kind, got {tuple(fixed.probs.shape)}"
            )
        moved, mask, spacing = _brought_back(head, applied)
        pairs.append(
            Pair(
                fixed=fixed.probs.to(moved.dtype), moved=moved, mask=mask, spacing=spacing,
                exclusive=fixed.exclusive, weight=fixed.weight,
            )
        )  # fmt: skip

    return pairs


def class_distances(pair: Pair) -> Tensor:
    """Return one less the soft Dice overlap of every class or region, ``(B, K)``."""
    with torch.no_grad():
        each = [
            Dice().mean(a, b, spacing=pair.spacing, mask=pair.mask)
            for a, b in zip(pair.fixed.split(1, dim=1), pair.moved.split(1, dim=1), strict=True)
        ]

        return torch.stack(each, dim=1)


def _brought_back(head: Head, applied: Applied) -> tuple[Tensor, Tensor, tuple[float, ...]]:
    """Return a head's probabilities on the original image, where they count, and their spacing.

    A coarse head is brought back on its own lattice, by the field resized to it.
    """
    lattice, shape = applied.geometry.lattice, tuple(head.probs.shape[2:])
    if shape == lattice.shape:
        moved = applied.back(head.probs, exclusive=head.exclusive)
        return moved, applied.valid_back, lattice.spacing
    spacing = tuple(
        step * (old - 1) / (new - 1) if new > 1 else step * old
        for step, old, new in zip(lattice.spacing, lattice.shape, shape, strict=True)
    )
    identity = torch.eye(len(shape) + 1, dtype=torch.float64)
    mask = resize(applied.valid_back, shape, affine=identity)[0]
    if not applied.geometry.moves:
        return head.probs, mask, spacing
    field = resize_field(applied.geometry.inverse, shape)
    if head.exclusive:
        return warp_labels(head.probs, field), mask, spacing

    return warp(head.probs, field, padding="zeros"), mask, spacing


def _confident(pair: Pair, least: float) -> Tensor:
    """Return where the reference is surer than ``least``, bool ``(B, 1, *S)``."""
    if pair.exclusive:
        return pair.fixed.amax(dim=1, keepdim=True) >= least
    surest = torch.maximum(pair.fixed, 1 - pair.fixed)

    return surest.amin(dim=1, keepdim=True) >= least
