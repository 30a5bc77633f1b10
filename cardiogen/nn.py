"""Blocks that networks of anatomy share: embedded conditions, convolutions on voxels, reversal.

Convention: nothing here depends on the other examples of a batch, so one heart decodes to the same
values alone and among others, up to rounding.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of leaky rectifiers
_GROUPS = 8


class ConditionEmbedding(nn.Module):
    """Embed factors, any of which may be missing: ``e = b + sum_k (w_k x_k or null_k)``.

    x are the factors less ``center`` in units of ``scale``; a missing one (NaN) adds a learned
    null token instead. Standardized values keep their level, which a normalization of the raw
    vector of years, centimeters and kilograms would lose.

    Args:
        center, scale: mean and SD of every factor in the training data, ``(K,)``.
        width: size of the embedding.
    """

    def __init__(self, center: ArrayLike, scale: ArrayLike, *, width: int) -> None:
        super().__init__()
        center, scale = (torch.as_tensor(part, dtype=torch.float32) for part in (center, scale))
        if not (scale > 0).all():
            raise ValueError(f"scale must be positive, got {scale.tolist()}")
        self.register_buffer("center", center.clone())
        self.register_buffer("scale", scale.clone())
        spread = 1 / math.sqrt(len(center))
        self.weight = nn.Parameter(spread * torch.randn(len(center), width))
        self.null = nn.Parameter(spread * torch.randn(len(center), width))
        self.bias = nn.Parameter(torch.zeros(width))

    def standardized(self, condition: Tensor) -> Tensor:
        """Return ``(condition - center) / scale``, ``(B, K)``; NaN stays NaN."""
        # In float64: a pressure of 120 less its mean keeps its digits.
        standard = (condition.double() - self.center.double()) / self.scale.double()
        return standard.to(self.weight.dtype)

    def forward(self, condition: Tensor) -> Tensor:
        """Return the embedding ``(B, width)`` of a condition ``(B, K)``, NaN where missing."""
        standard = self.standardized(condition)[..., None]
        known = ~torch.isnan(standard)
        tokens = torch.where(known, standard.nan_to_num() * self.weight, self.null)
        return self.bias + tokens.sum(dim=-2)


class MappingNetwork(nn.Module):
    """A condition ``(B, K)`` to its code ``(B, C)``: an embedding and ``depth`` linear layers.

    Weights start by He's rule: through eight layers of PyTorch's default the code would shrink
    more than a thousandfold, and the condition would be lost before training begins.

    Args:
        center, scale: see :class:`ConditionEmbedding`.
        code: size C of the code.
        width: of the hidden layers.
        depth: number of linear layers.
    """

    def __init__(
        self, center: ArrayLike, scale: ArrayLike, *, code: int, width: int = 64, depth: int = 8
    ) -> None:
        super().__init__()
        self.embedding = ConditionEmbedding(center, scale, width=width)
        sizes = [width] * depth + [code]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
            nn.init.zeros_(layer.bias)

    def forward(self, condition: Tensor) -> Tensor:
        """Return the code ``(B, C)``."""
        hidden = self.embedding(condition)
        for layer in self.layers:
            hidden = layer(functional.leaky_relu(hidden, SLOPE))
        return hidden


def drop_factors(condition: Tensor, share: float, *, generator: torch.Generator) -> Tensor:
    """Return a condition ``(B, K)`` with each entry missing (NaN) with probability ``share``."""
    chance = torch.rand(condition.shape, generator=generator, device=condition.device)
    return condition.masked_fill(chance < share, float("nan"))


def halved(shape: tuple[int, ...], times: int = 1) -> tuple[int, ...]:
    """Return the size of a lattice after ``times`` convolutions of stride 2: rounded up."""
    return tuple(-(-n // 2**times) for n in shape)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(_GROUPS, channels), channels)


class DownBlock(nn.Module):
    """Halve a lattice: convolution of width 4 and stride 2, group norm, leaky rectifier.

    A lattice of odd size is given one more plane of zeros, so that halves round up.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, 4, stride=2, padding=1)
        self.norm = _norm(out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return ``(B, C', *halved(S))`` of ``(B, C, *S)``."""
        padding = [part for n in reversed(image.shape[2:]) for part in (0, n % 2)]
        if any(padding):
            image = functional.pad(image, padding)
        return functional.leaky_relu(self.norm(self.conv(image)), SLOPE)


class UpBlock(nn.Module):
    """Double a lattice: leaky rectifier of the normed input, transposed convolution, crop."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.conv = nn.ConvTranspose3d(channels, out_channels, 4, stride=2, padding=1)

    def forward(self, features: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return ``(B, C', *shape)``; the lattice of ``features`` is ``halved(shape)``."""
        d, h, w = shape
        return self.conv(functional.leaky_relu(self.norm(features), SLOPE))[..., :d, :h, :w]


class VoxelEncoder(nn.Module):
    """A volume ``(B, C, *S)`` to one vector ``(B, size)``.

    Args:
        channels: C.
        shape: S, ``(D, H, W)``.
        widths: channels after each halving.
    """

    def __init__(self, channels: int, *, shape: tuple[int, ...], widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (channels, *widths)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(sizes))
        self.size = widths[-1] * math.prod(halved(shape, len(widths)))

    def forward(self, image: Tensor) -> Tensor:
        """Return the features ``(B, size)``."""
        for block in self.blocks:
            image = block(image)
        return image.flatten(1)


class VoxelDecoder(nn.Module):
    """One vector ``(B, Z)`` to a volume ``(B, C, *S)``.

    Args:
        size: Z.
        channels: C.
        shape: S, ``(D, H, W)``.
        widths: channels before each doubling, the finest first (as in the encoder).
    """

    def __init__(
        self, size: int, *, channels: int, shape: tuple[int, ...], widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.shapes = [halved(shape, times) for times in reversed(range(len(widths)))]
        self.base = (widths[-1], *halved(shape, len(widths)))
        self.linear = nn.Linear(size, math.prod(self.base))
        sizes = (*reversed(widths), channels)
        self.blocks = nn.ModuleList(UpBlock(a, b) for a, b in pairwise(sizes))

    def forward(self, latent: Tensor) -> Tensor:
        """Return the volume."""
        volume = self.linear(latent).unflatten(1, self.base)
        for block, shape in zip(self.blocks, self.shapes, strict=True):
            volume = block(volume, shape)
        return volume


class _Reversal(torch.autograd.Function):
    """Identity whose gradient is turned round."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def reverse_gradient(values: Tensor, *, weight: float = 1.0) -> Tensor:
    """Return ``values``; gradients pass back times ``-weight`` (Ganin et al., JMLR 2016).

    One optimizer then trains both sides of a game: what follows learns to tell, what precedes
    learns to hide.
    """
    return _Reversal.apply(values, weight)
