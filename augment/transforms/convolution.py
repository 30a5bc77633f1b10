"""Random convolutions: other textures and contrasts of the same shapes.

Source: Xu et al., ICLR 2021 (random convolutions); Ouyang et al., IEEE Trans. Med. Imaging 2023
(two layers with a rectifier, mixed with the image).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import Params, Photometric, check_bound, uniform
from augment.transforms.levels import deviation, mean, standardized

_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class RandomConvolution(Photometric):
    """Mix an image with what a random network of two 3-voxel convolutions makes of it.

    ``(1 - a) x + a (m + s z)``: z is the network's output, standardized, and m and s the mean and
    deviation of the image. Free parameters ``(B, 1 + K)`` are the share a and the K weights.

    Attributes:
        share: largest a.
        hidden: channels between the two convolutions.
    """

    low: ClassVar[float] = -1.0
    share: float = 0.5
    hidden: int = 2

    def __post_init__(self) -> None:
        check_bound(self.share, "share", most=1.0)
        if self.hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {self.hidden}")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw share and weights uniformly."""
        share = uniform((lattice.batch, 1), generator=generator, low=0.0)
        weights = uniform((lattice.batch, sum(self._sizes(lattice))), generator=generator)

        return Params(free=torch.cat([share, weights], dim=1))

    def project(self, params: Params, lattice: Lattice) -> Params:
        """Return the parameters clamped; the share is not negative."""
        share, weights = params.free[:, :1].clamp(0, 1), params.free[:, 1:].clamp(-1, 1)

        return params.with_free(torch.cat([share, weights], dim=1))

    def strength(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return the share in units of its bound, ``(B,)``."""
        return free[:, 0].abs()

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the mixed image."""
        free = params.free.to(image)
        share = (self.share * free[:, 0]).view(-1, *[1] * (image.ndim - 1))
        first, second = free[:, 1:].split(self._sizes(lattice), dim=1)
        features = F.leaky_relu(_convolved(standardized(image), first, self.hidden), _SLOPE)
        other = standardized(_convolved(features, second, lattice.channels))

        return image + share * (mean(image) + deviation(image) * other - image)

    def _sizes(self, lattice: Lattice) -> list[int]:
        return [lattice.channels * self.hidden * 3**lattice.ndim] * 2


def _convolved(image: Tensor, weights: Tensor, channels: int) -> Tensor:
    """Return every sample convolved by its own kernels; borders are repeated outwards."""
    batch, before, *shape = image.shape
    ndim = len(shape)
    kernels = weights.reshape(batch * channels, before, *[3] * ndim) / math.sqrt(before * 3**ndim)
    padded = F.pad(image, [1, 1] * ndim, mode="replicate").flatten(0, 1).unsqueeze(0)
    convolve = F.conv2d if ndim == 2 else F.conv3d

    return convolve(padded, kernels, groups=batch).view(batch, channels, *shape)
