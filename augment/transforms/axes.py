"""Linear operators along one axis whose width is a parameter of each sample.

``cardiogen.ops`` filters by constants; an adversary needs the derivative by the width. The
matrices are ``(B, n, n)``, small beside the images they act on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Gaussians of less variance (voxels squared) are the identity in float32.
_LEAST_VARIANCE = 1e-4
_LEAST_WEIGHT = 1e-12


def blur_matrix(variance: Tensor, size: int) -> Tensor:
    """Return Gaussian filters ``(B, n, n)`` along an axis of n voxels, rows summing to one.

    Args:
        variance: ``(B,)``, voxels squared; 0 gives the identity exactly.
        size: n.
    """
    steps = torch.arange(size, dtype=variance.dtype, device=variance.device)
    squares = (steps.unsqueeze(1) - steps).square()
    weights = torch.exp(-squares / (2 * variance.clamp(min=_LEAST_VARIANCE).view(-1, 1, 1)))
    # Tails that float32 holds as denormal numbers alone make products 40 times slower.
    weights = weights * (weights > _LEAST_WEIGHT)

    return weights / weights.sum(dim=2, keepdim=True)


def coarse_matrix(factor: Tensor, size: int) -> Tensor:
    """Return "sample every ``factor`` voxels, then interpolate back" as ``(B, n, n)``.

    Coarse voxel k lies at ``c + factor (k - c)`` for the center c of the axis, so that nothing
    shifts; both steps interpolate linearly and a factor of 1 gives the identity exactly.

    Args:
        factor: ``(B,)``, at least 1.
        size: n.
    """
    factor = factor.view(-1, 1, 1)
    steps = torch.arange(size, dtype=factor.dtype, device=factor.device)
    center = (size - 1) / 2
    fine, coarse = steps.view(1, -1, 1), steps.view(1, 1, -1)
    # A coarse grid that runs over the edge reads the edge.
    read = (center + factor * (steps.view(1, -1, 1) - center)).clamp(0, size - 1)
    down = _hats(read - coarse)
    up = _hats(center + (fine - center) / factor - coarse)

    return up @ down


def apply_along(image: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Apply a matrix ``(B, n, n)`` of each sample along every axis; None leaves an axis alone."""
    work = image.to(torch.promote_types(image.dtype, torch.float32))
    last = work.ndim - 1
    with torch.autocast(image.device.type, enabled=False):
        for axis, matrix in enumerate(matrices, start=2):
            if matrix is None:
                continue
            # Axes are never moved: that would copy the image.
            if axis == last:
                moved = work.flatten(1, -2) @ matrix.to(work).mT
            else:
                moved = matrix.to(work).unsqueeze(1) @ work.flatten(axis + 1).flatten(1, axis - 1)
            work = moved.view(work.shape)

    return work.to(image.dtype)


def _hats(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)
