"""Noise of a standard deviation relative to that of the image.

Convention: free parameters are the noise itself ``(B, C, *S)`` in units of its largest standard
deviation; they are bounded by their root mean square over the voxels, which means the same at any
size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import (
    Params,
    Photometric,
    at_strength,
    check_bound,
    in_ball,
    normal,
    uniform,
)
from augment.transforms.levels import deviation, least


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Photometric):
    """Add noise n: ``x + s n`` for the standard deviation s of the image.

    Attributes:
        sd: largest root mean square of the noise, in standard deviations of the image.
    """

    sd: float = 0.1

    def __post_init__(self) -> None:
        check_bound(self.sd, "sd")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw white noise of a strength that is uniform in [0, 1]."""
        return _white(lattice, parts=1, generator=generator)

    def project(self, params: Params, lattice: Lattice) -> Params:
        """Return the noise scaled down to the largest root mean square."""
        return in_ball(params, self.strength(params.free, lattice))

    def strength(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return the root mean square over channels and voxels, ``(B,)``."""
        return _rms(free)

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the noisy image."""
        return image + (self.sd * deviation(image)) * params.free.to(image)


@dataclass(frozen=True, kw_only=True)
class RicianNoise(Photometric):
    """Noise of magnitude images: ``sqrt((x + s n_1)^2 + (s n_2)^2)``, x from the darkest value.

    It lifts dark regions and hardly moves the mean of bright ones (Gudbjartsson and Patz, Magn.
    Reson. Med. 1995).

    Attributes:
        sd: largest root mean square of each of the two parts, in standard deviations of the image.
    """

    sd: float = 0.1

    def __post_init__(self) -> None:
        check_bound(self.sd, "sd")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw both parts ``(B, 2 C, *S)``, of a strength that is uniform in [0, 1]."""
        return _white(lattice, parts=2, generator=generator)

    def project(self, params: Params, lattice: Lattice) -> Params:
        """Return the noise scaled down to the largest root mean square."""
        return in_ball(params, self.strength(params.free, lattice))

    def strength(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return the root mean square over parts, channels and voxels, ``(B,)``."""
        return _rms(free)

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the noisy image."""
        above = image - least(image)
        real, imaginary = (
            (self.sd * deviation(image)) * part for part in params.free.to(image).chunk(2, dim=1)
        )
        square = (above + real).square() + imaginary.square()
        # The root has no derivative at 0, where signal and noise both vanish.
        there = square > 0
        magnitude = square.where(there, 1.0).sqrt().where(there, 0.0)

        return image + (magnitude - above)


def _white(lattice: Lattice, *, parts: int, generator: torch.Generator) -> Params:
    shape = (lattice.batch, parts * lattice.channels, *lattice.shape)
    free = normal(shape, generator=generator)
    wanted = uniform((lattice.batch,), generator=generator, low=0.0)

    return Params(free=at_strength(free, _rms(free), wanted))


def _rms(free: Tensor) -> Tensor:
    return free.flatten(1).square().mean(dim=1).sqrt()
