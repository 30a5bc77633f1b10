"""Bring intensities of two images to one scale before they are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen import ops
from registration.config import PrepareConfig

# Quantiles need no more voxels than this; sorting all of a large image would cost more than a fit.
_SAMPLED = 1 << 17
_LEVELS = 129


def prepare_images(
    fixed: Tensor, moving: Tensor, *, spacing: tuple[float, ...], config: PrepareConfig
) -> tuple[Tensor, Tensor]:
    """Return both images scaled, matched and smoothed, sample by sample.

    Args:
        fixed: ``(B, C, *S)``.
        moving: ``(B, C, *S)``.
        spacing: mm per axis.
        config: what to do.
    """
    pairs = [_prepared(f.float(), m.float(), config) for f, m in zip(fixed, moving, strict=True)]
    fixed, moving = (torch.stack(images) for images in zip(*pairs, strict=True))
    if config.smooth_mm > 0:
        sigma = in_plane_lengths(config.smooth_mm, spacing)
        fixed, moving = (ops.gaussian(x, sigma, spacing=spacing) for x in (fixed, moving))

    return fixed, moving


def in_plane_lengths(length_mm: float, spacing: tuple[float, ...]) -> tuple[float, ...]:
    """Return a length along the axes of a plane and 0 along one of thick slices."""
    finest = min(spacing)

    return tuple(length_mm if step < 2 * finest else 0.0 for step in spacing)


def _prepared(fixed: Tensor, moving: Tensor, config: PrepareConfig) -> tuple[Tensor, Tensor]:
    if config.scale == "joint":
        both = torch.cat([_sampled(fixed), _sampled(moving)], dim=1)
        ends = _ends(both, config)
        fixed, moving = _scaled(fixed, ends, config.clip), _scaled(moving, ends, config.clip)
    elif config.scale == "each":
        fixed = _scaled(fixed, _ends(_sampled(fixed), config), config.clip)
        moving = _scaled(moving, _ends(_sampled(moving), config), config.clip)
    if config.match:
        moving = _matched(moving, fixed)

    return fixed, moving


def _sampled(image: Tensor) -> Tensor:
    """Return every channel's intensities at a regular subset of voxels, ``(C, N)``."""
    flat = image.flatten(1)

    return flat[:, :: -(-flat.shape[1] // _SAMPLED)]


def _ends(values: Tensor, config: PrepareConfig) -> Tensor:
    shares = values.new_tensor([config.low / 100, config.high / 100])

    return torch.quantile(values, shares, dim=1)


def _scaled(image: Tensor, ends: Tensor, clip: bool) -> Tensor:
    shape = (-1, *[1] * (image.ndim - 1))
    low, high = (end.view(shape) for end in ends)
    # A flat channel becomes 0 instead of noise.
    span = torch.where(high > low, high - low, torch.inf)
    scaled = (image - low) / span

    return scaled.clamp(0, 1) if clip else scaled


def _matched(moving: Tensor, fixed: Tensor) -> Tensor:
    """Map the intensities of every moving channel to the fixed one's equal quantiles."""
    shares = torch.linspace(0, 1, _LEVELS, device=moving.device)
    channels = []
    for values, wanted in zip(moving, fixed, strict=True):
        source = torch.quantile(_sampled(values[None])[0], shares)
        target = torch.quantile(_sampled(wanted[None])[0], shares)
        channels.append(_interpolated(values, source, target))

    return torch.stack(channels)


def _interpolated(values: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Return the piecewise linear map source -> target, constant beyond its ends."""
    upper = torch.searchsorted(source, values.contiguous()).clamp(1, len(source) - 1)
    low, high = source[upper - 1], source[upper]
    # Repeated quantiles (a flat background) leave an interval of width 0.
    share = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)

    return target[upper - 1] + share * (target[upper] - target[upper - 1])
