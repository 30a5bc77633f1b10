"""Levels of an image: per sample and channel, so that a sample does not depend on its batch."""

from __future__ import annotations

from torch import Tensor

# Flat images have a deviation of 0; dividing by it must not blow rounding up.
_FLAT = 1e-6


def least(image: Tensor) -> Tensor:
    """Return the darkest value of every channel, ``(B, C, 1, ...)``, without derivative."""
    return _shaped(image.detach().flatten(2).amin(dim=2), image)


def most(image: Tensor) -> Tensor:
    """Return the brightest value of every channel, ``(B, C, 1, ...)``, without derivative."""
    return _shaped(image.detach().flatten(2).amax(dim=2), image)


def mean(image: Tensor) -> Tensor:
    """Return the mean of every channel, ``(B, C, 1, ...)``, without derivative."""
    return _shaped(image.detach().flatten(2).mean(dim=2), image)


def deviation(image: Tensor) -> Tensor:
    """Return the standard deviation of every channel, ``(B, C, 1, ...)``, without derivative."""
    return _shaped(image.detach().flatten(2).std(dim=2, correction=0), image)


def standardized(image: Tensor) -> Tensor:
    """Return every channel less its mean over its standard deviation, differentiably."""
    axes = tuple(range(2, image.ndim))
    centered = image - image.mean(dim=axes, keepdim=True)
    variance = centered.square().mean(dim=axes, keepdim=True)

    return centered * (variance + _FLAT**2).rsqrt()


def _shaped(values: Tensor, image: Tensor) -> Tensor:
    return values.view(*image.shape[:2], *[1] * (image.ndim - 2))
