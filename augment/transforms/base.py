"""The contract of every transform: draw parameters, bring them back into bounds, apply them.

Convention: ``free`` holds what an adversary may move, in units of the bound, so that 1 is as far
as it goes and a step means the same for every transform; ``fixed`` holds what is drawn and stays.
Zeros in both change nothing, bit for bit. A transform is a frozen record of its bounds, in
physical units; it holds no tensors, and what it does to a sample depends on that sample alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from augment.lattice import Lattice
from cardiogen.ops import voxel_affine_to_displacement, warp

# Directions shorter than this have no direction.
_LEAST_LENGTH = 1e-20


@dataclass(frozen=True, kw_only=True, eq=False)
class Params:
    """Parameters of one transform for a batch.

    Attributes:
        free: searched, in units of the bound, ``(B, ...)``.
        fixed: drawn and not searched, ``(B, ...)``, or None.
    """

    free: Tensor
    fixed: Tensor | None = None

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Params:
        """Return the parameters with both tensors changed."""
        fixed = None if self.fixed is None else change(self.fixed)

        return Params(free=change(self.free), fixed=fixed)

    def with_free(self, free: Tensor) -> Params:
        """Return the parameters with other free ones."""
        return replace(self, free=free)

    def kept(self, on: Tensor) -> Params:
        """Return the parameters with samples where ``on`` ``(B,)`` is false left as they are."""
        return self.mapped(lambda tensor: tensor * _per_sample(on, tensor).to(tensor))

    def chosen(self, other: Params, where: Tensor) -> Params:
        """Return these parameters where ``where`` ``(B,)`` is true and the other's elsewhere."""

        def choose(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(_per_sample(where, mine), mine, theirs)

        fixed = None if self.fixed is None else choose(self.fixed, other.fixed)

        return Params(free=choose(self.free, other.free), fixed=fixed)


class Transform(ABC):
    """What chains and adversaries know of a transform; its bound is a box unless it says not.

    Attributes:
        low: least free value of the box; 0 for amounts without a sign.
    """

    low: ClassVar[float] = -1.0

    @property
    def name(self) -> str:
        """Name in reports."""
        return type(self).__name__

    @abstractmethod
    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw parameters for every sample of a batch, float32 on the generator's device."""

    def project(self, params: Params, lattice: Lattice) -> Params:
        """Return the nearest parameters within the bound."""
        return params.with_free(params.free.clamp(self.low, 1.0))

    def strength(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return how much of the bound is used, ``(B,)``: 1 is all of it."""
        if free[0].numel() == 0:
            return free.new_zeros(len(free))
        return free.flatten(1).abs().amax(dim=1)

    def unit(self, direction: Tensor, lattice: Lattice) -> Tensor:
        """Return a direction of free parameters with a root mean square of 1 per sample."""
        if direction[0].numel() == 0:
            return direction
        length = direction.flatten(1).square().mean(dim=1).sqrt()

        return direction / _per_sample(length.clamp(min=_LEAST_LENGTH), direction)


class Photometric(Transform):
    """A transform of intensities; labels stay where they are."""

    @abstractmethod
    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the changed image ``(B, C, *S)``."""

    def coverage(self, params: Params, lattice: Lattice) -> Tensor | None:
        """Return how much of each voxel is still imaged, ``(B, 1, *S)``; None means all."""
        return None


class Geometric(Transform):
    """A transform of positions: images, labels, points and predictions move together.

    Attributes:
        slicewise: every slice moves in its plane, by itself: next to each other they may differ.
    """

    slicewise: ClassVar[bool] = False

    @abstractmethod
    def pull_back(self, params: Params, lattice: Lattice, *, inverse: bool = False) -> Tensor:
        """Return where every voxel of the result reads the image, or the inverse of that.

        Returns:
            A matrix of voxels ``(B, d + 1, d + 1)``, or a displacement ``(B, d, *S)``, voxels.
        """

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the moved image ``(B, C, *S)``; chains resample once for all their geometry."""
        found = self.pull_back(params, lattice)

        return warp(image, as_displacement(found, lattice).to(image.device))


def as_displacement(pull_back: Tensor, lattice: Lattice) -> Tensor:
    """Return a matrix of voxels or a displacement as a displacement ``(B, d, *S)``."""
    if pull_back.ndim == 3:
        return voxel_affine_to_displacement(pull_back, lattice.shape)
    return pull_back


def in_ball(params: Params, strength: Tensor) -> Params:
    """Return parameters scaled down to strength 1 where they have more."""
    scale = strength.detach().clamp(min=1.0).reciprocal()

    return params.with_free(params.free * _per_sample(scale, params.free))


def at_strength(direction: Tensor, strength: Tensor, wanted: Tensor | float = 1.0) -> Tensor:
    """Return a direction rescaled from a strength ``(B,)`` to a wanted one."""
    scale = wanted / strength.clamp(min=_LEAST_LENGTH)

    return direction * _per_sample(scale, direction)


def uniform(
    shape: tuple[int, ...], *, generator: torch.Generator, low: float = -1.0, high: float = 1.0
) -> Tensor:
    """Draw uniform numbers in [low, high)."""
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def normal(shape: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Draw standard normal numbers."""
    return torch.randn(shape, generator=generator, device=generator.device)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Return values ``(B,)`` with as many axes as ``like`` has."""
    return _per_sample(values, like)


def check_bound(
    value: float, name: str, *, least: float = 0.0, most: float = float("inf")
) -> None:
    """Refuse a bound outside [least, most], NaN and infinities."""
    if not (least <= value <= most) or value == float("inf"):
        limit = f"from {least:g}" + ("" if most == float("inf") else f" to {most:g}")
        raise ValueError(f"{name} must be a finite number {limit}, got {value}")


def need_slices(lattice: Lattice, name: str) -> None:
    """Refuse 2D images where slices are needed."""
    if lattice.ndim != 3:
        raise ValueError(f"{name} needs images (B, C, D, H, W) with slices along D, got 2D")


def _per_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
