"""Distances of two predictions that ``cardiogen.losses`` does not have: divergence and contours.

Convention: as every term there, they are means over voxels, per sample, within a mask, so their
value depends neither on the size of the image nor on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cardiogen.losses import LabelTerm
from cardiogen.losses.masks import paired
from cardiogen.ops import gradient


@dataclass(frozen=True, kw_only=True)
class KL(LabelTerm):
    """Divergence of the moved probabilities from the fixed, ``sum_k a_k log(a_k / b_k)``, nats.

    Both are mixed with a little of the uniform distribution first, which bounds the slope and
    keeps equal ones at exactly 0. Regions that may overlap give the mean of their binary ones.

    Attributes:
        exclusive: whether channels sum to one.
        smoothing: share of the uniform distribution.
    """

    exclusive: bool = True
    smoothing: float = 1e-3

    def __post_init__(self) -> None:
        if not 1e-5 <= self.smoothing < 1:
            raise ValueError(f"smoothing must lie in [1e-5, 1), got {self.smoothing}")

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the divergence at every voxel, ``(B, 1, *S)``."""
        return self.everywhere(*paired(fixed, moved, spacing, mask))

    def everywhere(self, fixed: Tensor, moved: Tensor) -> Tensor:
        """Return the divergence at every voxel of finite probabilities, ``(B, 1, *S)``."""
        if self.exclusive:
            return self._terms(fixed, moved, fixed.shape[1]).sum(dim=1, keepdim=True)
        both = self._terms(fixed, moved, 2) + self._terms(1 - fixed, 1 - moved, 2)

        return both.mean(dim=1, keepdim=True)

    def _terms(self, fixed: Tensor, moved: Tensor, choices: int) -> Tensor:
        # Rounding may leave an interpolated probability below 0, but far less than is added.
        a, b = ((1 - self.smoothing) * part + self.smoothing / choices for part in (fixed, moved))

        return a * (a.log() - b.log())


@dataclass(frozen=True, kw_only=True)
class Contour(LabelTerm):
    """Squared difference of the slopes, ``l^2 |grad a_k - grad b_k|^2``, mean over the labels.

    Slopes are per mm along every axis, so that thick slices count by their distance. They live at
    borders of structures alone. Pass structures without background, whose slopes repeat theirs.

    Attributes:
        length_mm: l, which makes the term a plain number: a border that is this wide and out of
            place everywhere costs about 1.
    """

    length_mm: float = 2.0

    def __post_init__(self) -> None:
        if not self.length_mm > 0:
            raise ValueError(f"length_mm must be positive, got {self.length_mm}")

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the squared difference at every voxel, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)

        return self.of(fixed - moved, spacing=spacing)

    def of(self, difference: Tensor, *, spacing: tuple[float, ...]) -> Tensor:
        """Return the squared slopes of a difference ``(B, K, *S)``, ``(B, 1, *S)``."""
        slopes = gradient(difference, spacing=spacing).square().sum(dim=(1, 2)).unsqueeze(1)

        return slopes * (self.length_mm**2 / difference.shape[1])
