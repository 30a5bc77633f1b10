"""Label distances of one-hot or probability maps ``(B, K, *S)``, fixed and moved.

Convention: a label that is absent from both has distance 0 and counts in the mean over labels, so
that the weight of a label does not depend on what else is in view. Pass the labels that shall
count; background is one of them only if it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cardiogen.losses.masks import inverse_of, paired, sums_inside
from cardiogen.losses.term import LabelTerm
from cardiogen.losses.windows import window_means
from cardiogen.ops import gaussian


@dataclass(frozen=True, kw_only=True)
class Dice(LabelTerm):
    """One less the soft Dice overlap, ``1 - 2 <a, b> / (<a, a> + <b, b>)``.

    The sums of squares make equal probabilities, soft ones too, match exactly; on hard labels it
    is the usual overlap (Milletari et al., 3DV 2016). The share of a voxel is
    ``N (a - b)^2 / (<a, a> + <b, b>)``.
    """

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the share of every voxel in the distance, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)

        return _dice_map(fixed, moved, mask)


@dataclass(frozen=True, kw_only=True)
class Jaccard(LabelTerm):
    """One less the soft Jaccard overlap, ``1 - <a, b> / (<a, a> + <b, b> - <a, b>)``.

    The share of a voxel is ``N (a - b)^2 / (<a, a> + <b, b> - <a, b>)``.
    """

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the share of every voxel in the distance, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        union, voxels = sums_inside(fixed.square() + moved.square() - fixed * moved, mask)
        shares = voxels * (fixed - moved).square() * inverse_of(union)

        return shares.mean(dim=1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(LabelTerm):
    """Cross-entropy of the moved labels under the fixed, ``-sum_k a_k log((1 - s) b_k + s)``.

    Unlike the overlaps it sums over labels, since all of them, background included, share one
    voxel.

    Attributes:
        smoothing: s, what a label that is surely absent still has; it bounds the slope by 1/s.
    """

    smoothing: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 < self.smoothing < 1:
            raise ValueError(f"smoothing must lie in (0, 1), got {self.smoothing}")

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the cross-entropy of every voxel in nats, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        # Interpolation may leave a probability below 0 by rounding.
        smoothed = (1 - self.smoothing) * moved.clamp(min=0) + self.smoothing

        return -(fixed * smoothed.log()).sum(dim=1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class MultiScaleDice(LabelTerm):
    """Mean of Dice distances of labels smoothed by Gaussians of several widths.

    Wide ones pull labels that do not overlap yet, narrow ones settle the border (Hu et al., Med.
    Image Anal. 2018).

    Attributes:
        scales_mm: standard deviations; 0 is the labels themselves.
    """

    scales_mm: tuple[float, ...] = (0.0, 2.0, 4.0, 8.0)

    def __post_init__(self) -> None:
        # A config file gives a list; the record stays hashable.
        object.__setattr__(self, "scales_mm", tuple(self.scales_mm))
        if not self.scales_mm or min(self.scales_mm) < 0:
            raise ValueError(f"scales_mm must be some numbers from 0, got {self.scales_mm}")

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the share of every voxel in the mean distance, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        shares = [
            _dice_map(
                _smoothed(fixed, scale, spacing, mask),
                _smoothed(moved, scale, spacing, mask),
                mask,
            )
            for scale in self.scales_mm
        ]

        return sum(shares[1:], shares[0]) / len(shares)


def _dice_map(fixed: Tensor, moved: Tensor, mask: Tensor | None) -> Tensor:
    power, voxels = sums_inside(fixed.square() + moved.square(), mask)
    shares = voxels * (fixed - moved).square() * inverse_of(power)

    return shares.mean(dim=1, keepdim=True)


def _smoothed(
    labels: Tensor, scale_mm: float, spacing: tuple[float, ...], mask: Tensor | None
) -> Tensor:
    return window_means(labels, mask, lambda part: gaussian(part, scale_mm, spacing=spacing))
