"""Means over masks, and intensities scaled so that flat ones do no harm."""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen.ops.check import check_batch, check_floating, check_image, check_same, check_spacing

# Below this share of the root mean square, a deviation in float32 is rounding and not an image.
_FLAT = 1e-5

# Cubes of inverse roots and squares of inverses of less overflow float32 in a backward pass.
_LEAST_SQUARE = 1e-24
_LEAST_TOTAL = 1e-12


def check_map(weights: Tensor, like: Tensor, name: str) -> None:
    """Refuse masks and weights that are not ``(B or 1, 1, *S)`` for ``like``."""
    if weights.ndim != like.ndim or weights.shape[1] != 1:
        raise ValueError(
            f"{name} must have shape (B or 1, 1, *S) with S={tuple(like.shape[2:])}, "
            f"got {tuple(weights.shape)}"
        )
    check_same(weights.shape[2:], like.shape[2:], name, "the inputs")
    check_batch(len(weights), len(like), name, "the inputs")


def paired(
    fixed: Tensor, moved: Tensor, spacing: tuple[float, ...], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return both images in float32 or wider, of one batch size, and 0 outside the mask.

    Zeros keep what lies outside, NaN included, away from every sum and every gradient.
    """
    shape = check_image(moved, "moved")
    check_spacing(spacing, len(shape))
    check_floating(moved, "moved")
    check_image(fixed, "fixed")
    check_same(fixed.shape[1:], moved.shape[1:], "fixed", "moved")
    check_batch(len(fixed), len(moved), "fixed", "moved")
    wide = torch.promote_types(moved.dtype, torch.float32)
    fixed, moved = torch.broadcast_tensors(fixed.to(wide), moved.to(wide))
    if mask is None:
        return fixed, moved
    check_map(mask, moved, "mask")
    inside = mask > 0

    return fixed.where(inside, 0), moved.where(inside, 0)


def count(mask: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Return the number of voxels that count, float64: of every mask, or of the shape."""
    if mask is None:
        return torch.tensor(float(torch.Size(shape).numel()), dtype=torch.float64)

    return mask.flatten(1).sum(dim=1, dtype=torch.float64)


def mean_inside(voxels: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of ``(B, 1, *S)`` over the mask, ``(B,)``; 0 where the mask is empty."""
    if mask is None:
        return voxels.flatten(1).mean(dim=1)
    check_map(mask, voxels, "mask")

    return channel_means(voxels, mask).flatten()


def channel_means(image: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of every channel over the mask, ``(B, C, 1, ...)``; 0 if it is empty."""
    if mask is None:
        return image.mean(dim=tuple(range(2, image.ndim)), keepdim=True)
    total, voxels = sums_inside(image.where(mask > 0, 0), mask)

    return total * inverse_of(voxels)


def standardized(image: Tensor, mask: Tensor | None) -> Tensor:
    """Return every channel less its mean over its standard deviation; flat channels give 0.

    Mean and deviation are those of the mask, in two passes, so they survive a bright offset.
    """
    power = channel_means(image.square(), mask)
    centered = image - channel_means(image, mask)
    centered = centered if mask is None else centered.where(mask > 0, 0)
    variance = channel_means(centered.square(), mask)

    return centered * inverse_root(variance, floor=_FLAT**2 * power)


def inverse_root(square: Tensor, *, floor: Tensor | None = None) -> Tensor:
    """Return ``1 / sqrt(square)``, and 0 with derivative 0 where it is not above the floor."""
    clear = square > _LEAST_SQUARE
    clear = clear if floor is None else clear & (square > floor)

    return square.where(clear, 1).rsqrt().where(clear, 0)


def inverse_of(total: Tensor) -> Tensor:
    """Return ``1 / total``, and 0 where there is nothing to divide by."""
    there = total > _LEAST_TOTAL

    return total.where(there, 1).reciprocal().where(there, 0)


def sums_inside(image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | int]:
    """Return the sum of every channel over the mask ``(B, C, 1, ...)`` and its voxels."""
    axes = tuple(range(2, image.ndim))
    if mask is None:
        return image.sum(dim=axes, keepdim=True), image[0, 0].numel()
    weights = mask.to(image.dtype)

    return (image * weights).sum(dim=axes, keepdim=True), weights.sum(dim=axes, keepdim=True)
