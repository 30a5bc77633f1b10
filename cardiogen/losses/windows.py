"""Windows and neighbors of voxels, given in mm, that stay inside a mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def window_means(
    images: Tensor, mask: Tensor | None, smooth: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the windowed means of images, over what the mask leaves of each window.

    Args:
        images: ``(B, C, *S)``.
        mask: ``(B or 1, 1 or C, *S)`` or None.
        smooth: linear filter that keeps constants.

    Returns:
        ``(B, C, *S)``; 0 where a window is empty.
    """
    if mask is None:
        return smooth(images)
    shares = smooth(mask.to(images.dtype))
    filled = shares > 1e-6

    return (smooth(images * mask) / shares.where(filled, 1)).where(filled, 0)


def reach_voxels(
    reach_mm: float, shape: tuple[int, ...], spacing: tuple[float, ...], *, at_least: int
) -> tuple[int, ...]:
    """Return a length in whole voxels per axis, 0 along axes of one voxel.

    Args:
        reach_mm: length.
        shape: voxels per axis.
        spacing: mm per axis.
        at_least: so many of the finest axes reach one voxel even where that is longer, because
            a window of one voxel says nothing.
    """
    long = [a for a, size in enumerate(shape) if size > 1]
    if len(long) < at_least:
        raise ValueError(f"images must have {at_least} axes of more than one voxel, got {shape}")
    finest = sorted(long, key=lambda a: spacing[a])[:at_least]

    return tuple(
        max(round(reach_mm / step), int(a in finest)) if a in long else 0
        for a, step in enumerate(spacing)
    )


def neighbor_slopes(
    image: Tensor, axis: int, step: float, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the slopes from the voxel before and to the voxel after, and how many there are.

    A slope counts where both of its voxels are inside the mask, and is 0 otherwise.

    Args:
        image: ``(B, C, *S)``.
        axis: dimension of ``image``.
        step: mm between voxels.
        mask: ``(B or 1, 1, *S)`` or None.

    Returns:
        Before and after, shape of ``image``, and their number 0, 1 or 2, broadcastable.
    """
    size = image.shape[axis]
    slope = image.diff(dim=axis) / step
    there = torch.ones_like(image[:1, :1]) if mask is None else (mask > 0).to(image.dtype)
    there = there.narrow(axis, 1, size - 1) * there.narrow(axis, 0, size - 1)
    before, after = _beside(slope * there, axis)
    sides = _beside(there, axis)

    return before, after, sides[0] + sides[1]


def _beside(edges: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the edge before and the edge after every voxel, 0 beyond the ends."""
    inner = [0, 0] * (edges.ndim - 1 - axis)

    return F.pad(edges, [*inner, 1, 0]), F.pad(edges, [*inner, 0, 1])
