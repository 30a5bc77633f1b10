"""Mutual information of a fixed and a moved image by Parzen windows.

Convention: intensities are spread over bins by B-splines (Thevenaz and Unser, IEEE Trans. Image
Process. 2000), whose weights sum to 1, so that the marginals of the joint histogram are those of
the images. Information is in nats.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cardiogen.losses.histogram import joint_histogram, mean_over_bins
from cardiogen.losses.masks import count, paired
from cardiogen.losses.term import ImageTerm

# Ends of two cubic windows meet in shares so small that their inverse overflows float32.
_LEAST_SHARE = 1e-12


@dataclass(frozen=True, kw_only=True)
class _Information(ImageTerm):
    """What both information terms share: bins, ranges and the joint histogram.

    Attributes:
        bins: number of bins per image.
        degree: of the Parzen B-spline, 1 or 3; only 3 has a continuous derivative.
        fixed_range: intensities of the first and last bin; None takes those of each image.
        moved_range: the same of the moved image; give the moving image's to keep the bins from
            following the deformation. Where None, the bins are constants of differentiation.
    """

    bins: int = 32
    degree: Literal[1, 3] = 3
    fixed_range: tuple[float, float] | None = None
    moved_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.bins < 4:
            raise ValueError(f"bins must be at least 4, got {self.bins}")
        if self.degree not in (1, 3):
            raise ValueError(f"degree must be 1 or 3, got {self.degree}")

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the share of every voxel in the mean, ``(B, 1, *S)``; mean over channels."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        places_f, places_m = self._places(fixed, moved, mask)
        joint = self._joint(places_f, places_m, mask, fixed.shape[1])
        shares = mean_over_bins(self._pointwise(joint), places_f, places_m, degree=self.degree)

        return self._offset() + shares.view_as(fixed).mean(dim=1, keepdim=True)

    def mean(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the mean of the map, ``(B,)``, from the joint histogram alone."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        places_f, places_m = self._places(fixed, moved, mask)
        joint = self._joint(places_f, places_m, mask, fixed.shape[1])
        means = (joint * self._pointwise(joint)).sum(dim=(-2, -1)).view(fixed.shape[:2])
        means = self._offset() + means.mean(dim=1)

        return means if mask is None else means * (count(mask, ()) > 0)

    @abstractmethod
    def _offset(self) -> float:
        """Return what is added to the mean."""

    @abstractmethod
    def _pointwise(self, joint: Tensor) -> Tensor:
        """Return the energy of every pair of bins, whose mean under the joint is the term."""

    def _places(self, fixed: Tensor, moved: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return where intensities lie among the bins, ``(B C, N)``."""
        return (
            _bin_places(fixed, mask, self.fixed_range, self.bins, self.degree),
            _bin_places(moved, mask, self.moved_range, self.bins, self.degree),
        )

    def _joint(
        self, places_f: Tensor, places_m: Tensor, mask: Tensor | None, channels: int
    ) -> Tensor:
        if mask is None:
            weights = torch.ones_like(places_f[:1])
        else:
            batch = len(places_f) // channels
            weights = mask.to(places_f.dtype).flatten(1).expand(batch, -1)
            weights = weights.repeat_interleave(channels, dim=0)
        joint = joint_histogram(
            places_f, places_m, weights.expand_as(places_f), bins=self.bins, degree=self.degree
        )
        total = joint.sum(dim=(-2, -1), keepdim=True)

        return joint / total.where(total > 0, 1)


@dataclass(frozen=True, kw_only=True)
class MI(_Information):
    """Negative mutual information ``-sum p_ab log(p_ab / (p_a p_b))``.

    The share of a voxel is ``-sum_ab w_a(f) w_b(m) log(p_ab / (p_a p_b))``.
    """

    def _offset(self) -> float:
        return 0.0

    def _pointwise(self, joint: Tensor) -> Tensor:
        log_f, log_m = _log_marginals(joint)

        return log_f + log_m - _safe_log(joint)


@dataclass(frozen=True, kw_only=True)
class NMI(_Information):
    """Two less Studholme's normalized mutual information, ``2 - (H_f + H_m) / H_fm``.

    Between 0 (each image tells the other; the blur of a cubic window keeps some distance to it)
    and 1 (independent, or flat) (Studholme, Hill and Hawkes, Pattern Recognit. 1999). The share
    of a voxel is
    ``2 + sum_ab w_a(f) w_b(m) (log p_a + log p_b) / H_fm``.
    """

    def _offset(self) -> float:
        return 2.0

    def _pointwise(self, joint: Tensor) -> Tensor:
        log_f, log_m = _log_marginals(joint)
        entropy = -(joint * _safe_log(joint)).sum(dim=(-2, -1), keepdim=True)
        flat = entropy < 1e-6
        scaled = (log_f + log_m) / entropy.where(~flat, 1)

        return scaled.where(~flat, -1.0)


def _bin_places(
    image: Tensor, mask: Tensor | None, limits: tuple[float, float] | None, bins: int, degree: int
) -> Tensor:
    """Map intensities to bin positions, leaving the spline's support inside the histogram."""
    flat = image.flatten(2).flatten(0, 1)  # (B C, N)
    if limits is None:
        low, high = _data_range(image.detach(), mask)
    else:
        low, high = (flat.new_full((len(flat), 1), limit) for limit in limits)
    margin = (degree - 1) / 2
    span = (high - low).where(high > low, 1)
    places = (flat - low) / span * (bins - 1 - 2 * margin)

    return places.clamp(0, bins - 1 - 2 * margin) + margin


def _data_range(image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if mask is None:
        low, high = image.flatten(2).aminmax(dim=2)
    else:
        inside = mask > 0
        low = image.where(inside, torch.inf).flatten(2).amin(dim=2)
        high = image.where(inside, -torch.inf).flatten(2).amax(dim=2)
        low, high = low.where(low <= high, 0), high.where(low <= high, 0)

    return low.flatten().unsqueeze(1), high.flatten().unsqueeze(1)


def _log_marginals(joint: Tensor) -> tuple[Tensor, Tensor]:
    return _safe_log(joint.sum(dim=-1, keepdim=True)), _safe_log(joint.sum(dim=-2, keepdim=True))


def _safe_log(share: Tensor) -> Tensor:
    """Return the logarithm, and 0 where next to nothing is: ``p log p`` is 0 there."""
    there = share > _LEAST_SHARE

    return share.where(there, 1).log()
