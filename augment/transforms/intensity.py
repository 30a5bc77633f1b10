"""Curves of intensity: gamma, contrast and brightness."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import Params, Photometric, check_bound, uniform
from augment.transforms.levels import deviation, least, mean, most

# Powers are taken of at least this share of the range: their slope at 0 may be infinite.
_DARKEST = 1e-4


@dataclass(frozen=True, kw_only=True)
class Gamma(Photometric):
    """Bend intensities within their range: ``t -> t^g`` for ``t = (x - min) / (max - min)``.

    Attributes:
        exponent: largest exponent g; its inverse is the smallest.
    """

    exponent: float = 1.6

    def __post_init__(self) -> None:
        check_bound(self.exponent, "exponent", least=1.0, most=10.0)

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw ``log g`` uniformly, ``(B, 1)``."""
        return Params(free=uniform((lattice.batch, 1), generator=generator))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the bent image."""
        low, high = least(image), most(image)
        span = (high - low).clamp(min=torch.finfo(image.dtype).tiny)
        share = ((image - low) / span).clamp(min=_DARKEST)
        exponent = torch.exp(_column(params.free, 0, image) * math.log(self.exponent))

        return image + (high - low) * (share**exponent - share)


@dataclass(frozen=True, kw_only=True)
class Contrast(Photometric):
    """Stretch and shift intensities: ``m + c (x - m) + s b``, m and s mean and deviation.

    Attributes:
        factor: largest contrast c; its inverse is the smallest.
        brightness_sd: largest shift b, in standard deviations of the image.
    """

    factor: float = 1.4
    brightness_sd: float = 0.3

    def __post_init__(self) -> None:
        check_bound(self.factor, "factor", least=1.0, most=100.0)
        check_bound(self.brightness_sd, "brightness_sd")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw ``log c`` and b uniformly, ``(B, 2)``."""
        return Params(free=uniform((lattice.batch, 2), generator=generator))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the stretched and shifted image."""
        change = torch.expm1(_column(params.free, 0, image) * math.log(self.factor))
        shift = _column(params.free, 1, image) * self.brightness_sd

        return image + change * (image - mean(image)) + shift * deviation(image)


def _column(free: Tensor, number: int, image: Tensor) -> Tensor:
    return free[:, number].to(image).view(-1, *[1] * (image.ndim - 1))
