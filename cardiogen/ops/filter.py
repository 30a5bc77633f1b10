"""Gaussian and box filters and finite differences of images and fields ``(B, C, *S)``.

Convention: borders are repeated outwards, so constants stay constant. Lengths are mm where
``spacing`` is given and voxels where it is None.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cardiogen.ops.check import check_floating, check_image, check_spacing, per_axis
from cardiogen.ops.separable import apply_separable, tap_matrix

# Beyond four standard deviations a Gaussian holds 6e-5 of its weight; the rest is renormalized.
_TRUNCATE = 4.0


def gaussian(
    image: Tensor,
    sigma: float | tuple[float, ...],
    *,
    spacing: tuple[float, ...] | None = None,
) -> Tensor:
    """Return the image smoothed by a Gaussian, cut at four standard deviations.

    Args:
        image: ``(B, C, *S)``.
        sigma: standard deviation, one for all axes or one per axis; 0 leaves an axis alone. In mm
            if ``spacing`` is given, else in voxels.
        spacing: mm per axis, or None.
    """
    shape = check_image(image, "image")
    check_floating(image, "image")
    steps = check_spacing(spacing, len(shape)) if spacing is not None else (1.0,) * len(shape)
    sigmas = per_axis(sigma, len(shape), "sigma")
    if not all(0.0 <= s < math.inf for s in sigmas):
        raise ValueError(f"sigma must be finite and not negative, got {sigmas}")
    taps = [_gaussian_taps(s / step) for s, step in zip(sigmas, steps, strict=True)]

    return _filter(image, taps)


def box(image: Tensor, radius: int | tuple[int, ...]) -> Tensor:
    """Return the mean over windows of ``2 radius + 1`` voxels per axis.

    Args:
        image: ``(B, C, *S)``.
        radius: whole number of voxels, one for all axes or one per axis; 0 leaves an axis alone.
    """
    shape = check_image(image, "image")
    check_floating(image, "image")
    radii = per_axis(radius, len(shape), "radius")
    if not all(r >= 0 and r == int(r) for r in radii):
        raise ValueError(f"radius must be whole and not negative, got {radii}")
    taps = [_box_taps(int(r)) for r in radii]

    return _filter(image, taps)


def gradient(image: Tensor, *, spacing: tuple[float, ...]) -> Tensor:
    """Return derivatives along every axis: central differences, one-sided at the borders.

    Args:
        image: ``(B, C, *S)``.
        spacing: distance between voxels per axis, mm; ones give derivatives per voxel.

    Returns:
        ``(B, C, d, *S)``, per mm; 0 along an axis of one voxel.
    """
    shape = check_image(image, "image")
    check_floating(image, "image")
    steps = check_spacing(spacing, len(shape))
    slopes = [_slope(image, axis, step) for axis, step in enumerate(steps, start=2)]

    return torch.stack(slopes, dim=2)


def _slope(image: Tensor, axis: int, step: float) -> Tensor:
    size = image.shape[axis]
    if size == 1:
        return torch.zeros_like(image)
    rise = image.diff(dim=axis)
    first, last = rise.narrow(axis, 0, 1), rise.narrow(axis, size - 2, 1)
    inner = (rise.narrow(axis, 1, size - 2) + rise.narrow(axis, 0, size - 2)) / 2

    return torch.cat([first, inner, last], dim=axis) / step


def _gaussian_taps(sigma: float) -> tuple[float, ...] | None:
    reach = math.floor(_TRUNCATE * sigma + 0.5)
    if reach == 0:
        return None
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    total = math.fsum(weights)

    return tuple(weight / total for weight in weights)


def _box_taps(radius: int) -> tuple[float, ...] | None:
    return (1 / (2 * radius + 1),) * (2 * radius + 1) if radius > 0 else None


def _filter(image: Tensor, taps: list[tuple[float, ...] | None]) -> Tensor:
    matrices = [
        None if weights is None else tap_matrix(weights, size)
        for weights, size in zip(taps, image.shape[2:], strict=True)
    ]

    return apply_separable(image, matrices)
