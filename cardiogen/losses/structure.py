"""Image distances across modalities by local structure: edges and self-similarity.

Convention: both compare what an image does around a voxel and not its intensity, so contrast may
change or invert. Differences are taken in mm and only between voxels inside the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from cardiogen.losses.masks import channel_means, inverse_of, inverse_root, paired, standardized
from cardiogen.losses.term import ImageTerm
from cardiogen.losses.windows import neighbor_slopes, reach_voxels, window_means
from cardiogen.ops import box


@dataclass(frozen=True, kw_only=True)
class NGF(ImageTerm):
    """Normalized gradient fields: ``1 - (x^2 + 4 x^2 / (p + q) + 1) / ((p + 1) (q + 1))``.

    ``x = <f', m'>``, ``p = |f'|^2`` and ``q = |m'|^2`` of the gradients over ``edge`` times their
    root mean square over the mask. Parallel and antiparallel edges of one strength match exactly
    (0), an edge and no edge or edges across do not (to 1), and slopes well below ``edge`` hardly
    count. Without the middle term and the last 1 it is the distance of Haber and Modersitzki
    (MICCAI 2006), for which weak edges mismatch themselves.

    Attributes:
        edge: slope at which an edge begins to count, in root mean squares of the image's slopes.
    """

    edge: float = 0.5

    def __post_init__(self) -> None:
        if not self.edge > 0:
            raise ValueError(f"edge must be positive, got {self.edge}")

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the mismatch of edges at every voxel, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        slopes_f = self._slopes(fixed, spacing, mask)  # (B, C, d, *S)
        slopes_m = self._slopes(moved, spacing, mask)
        inner = (slopes_f * slopes_m).sum(dim=2).square()
        power_f = slopes_f.square().sum(dim=2)
        power_m = slopes_m.square().sum(dim=2)
        equal = 4 * inner * inverse_of(power_f + power_m)
        match = (inner + equal + 1) / ((power_f + 1) * (power_m + 1))

        return 1 - match.mean(dim=1, keepdim=True)

    def _slopes(self, image: Tensor, spacing: tuple[float, ...], mask: Tensor | None) -> Tensor:
        image = standardized(image, mask)
        slopes = torch.stack(
            [_slope(image, axis, step, mask) for axis, step in enumerate(spacing, start=2)], dim=2
        )
        typical = channel_means(slopes.square().sum(dim=2), mask).unsqueeze(2)

        return slopes * inverse_root(self.edge**2 * typical)


def _slope(image: Tensor, axis: int, step: float, mask: Tensor | None) -> Tensor:
    before, after, sides = neighbor_slopes(image, axis, step, mask)

    return (before + after) / sides.clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class MIND(ImageTerm):
    """Squared difference of self-similarity contexts (MIND-SSC).

    Around every voxel, the patches of pairs of neighbors along different axes are compared,
    ``D_p = mean_patch (I(x + a_p) - I(x + b_p))^2`` (12 pairs in 3D, 4 in 2D), and
    ``exp(-(D_p - min D) / mean D)`` describes the voxel; the distance is the mean over p of the
    squared difference (Heinrich et al., MICCAI 2013).

    Attributes:
        distance_mm: from the voxel to its neighbors; at least one voxel along the two finest
            axes, and none along an axis whose voxels are longer than twice that.
        radius_mm: half width of the patch; at least one voxel along the finest axis.
    """

    distance_mm: float = 3.0
    radius_mm: float = 3.0

    def __post_init__(self) -> None:
        if not (self.distance_mm > 0 and self.radius_mm > 0):
            raise ValueError(
                "distance_mm and radius_mm must be positive, "
                f"got {self.distance_mm} and {self.radius_mm}"
            )

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the squared difference of descriptors at every voxel, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        difference = self.descriptor(fixed, spacing=spacing, mask=mask) - self.descriptor(
            moved, spacing=spacing, mask=mask
        )

        return difference.square().mean(dim=1, keepdim=True)

    def descriptor(
        self, image: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the context of every voxel, in [0, 1].

        Args:
            image: ``(B, C, *S)``; channels are described apart.
            spacing: mm per axis.
            mask: ``(B or 1, 1, *S)``; only pairs and patches inside it are compared.

        Returns:
            ``(B, C P, *S)`` with P pairs of neighbors.
        """
        batch, channels, *shape = image.shape
        image = standardized(image, mask).flatten(0, 1).unsqueeze(1)
        distances = self._distances(image, mask, channels, spacing)  # (B C, P, *S)
        distances = distances - distances.amin(dim=1, keepdim=True)
        spread = distances.mean(dim=1, keepdim=True)
        typical = channel_means(spread.view(batch, channels, *shape), mask)
        typical = typical.view(-1, *[1] * (image.ndim - 1))
        # Where nothing varies, any floor will do: the distances are 0 as well.
        low = (1e-3 * typical).clamp(min=1e-9)
        spread = torch.minimum(torch.maximum(spread, low), 1e6 * low)

        return torch.exp(-distances / spread).reshape(batch, -1, *shape)

    def _distances(
        self, image: Tensor, mask: Tensor | None, channels: int, spacing: tuple[float, ...]
    ) -> Tensor:
        shape = tuple(image.shape[2:])
        radii = reach_voxels(self.radius_mm, shape, spacing, at_least=1)
        pairs = _pairs(reach_voxels(self.distance_mm, shape, spacing, at_least=2))
        squares = torch.cat(
            [(_shifted(image, *a) - _shifted(image, *b)).square() for a, b in pairs], dim=1
        )
        if mask is None:
            return box(squares, radii)
        inside = (mask > 0).to(image.dtype)
        both = torch.cat([_shifted(inside, *a) * _shifted(inside, *b) for a, b in pairs], dim=1)
        both = both.expand(len(image) // channels, *both.shape[1:])

        return window_means(
            squares, both.repeat_interleave(channels, dim=0), lambda part: box(part, radii)
        )


Offset = tuple[int, int]


def _pairs(reach: tuple[int, ...]) -> list[tuple[Offset, Offset]]:
    """Return all pairs of neighbors on different axes, each as (axis, voxels)."""
    axes = [(axis, voxels) for axis, voxels in enumerate(reach, start=2) if voxels]

    return [
        ((first, sign * near), (second, other * far))
        for (first, near), (second, far) in combinations(axes, 2)
        for sign, other in product((-1, 1), repeat=2)
    ]


def _shifted(image: Tensor, axis: int, voxels: int) -> Tensor:
    """Return ``image(x + voxels e_axis)``, the border repeated outwards."""
    size = image.shape[axis]
    index = (torch.arange(size, device=image.device) + voxels).clamp(0, size - 1)

    return image.index_select(axis, index)
