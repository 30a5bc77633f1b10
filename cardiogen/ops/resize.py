"""Change the number of voxels of images and fields, with their affines.

Convention: first and last voxels stay where they are in the world, so voxel k of m sits at
``k (n - 1) / (m - 1)`` of the old n; affine columns grow by ``(n - 1) / (m - 1)``, displacements
in voxels by its inverse, and the origin does not move. One new voxel is the old first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from cardiogen.ops.check import check_field, check_floating, check_image, check_shape
from cardiogen.ops.filter import gaussian
from cardiogen.ops.sample import sample
from cardiogen.ops.separable import apply_separable, linear_matrix

# Standard deviation that takes an image of unit blur (a voxel as full width at half maximum) to
# one of f voxels is 0.4247 sqrt(f^2 - 1) (Cardoso et al., MICCAI 2015).
_FWHM_TO_SIGMA = 0.42466090014400953
# A numpy array (ops does not import numpy) or a tensor.
Affine = TypeVar("Affine")


def resize(
    image: Tensor, shape: Sequence[int], *, affine: Affine, order: int = 1
) -> tuple[Tensor, Affine]:
    """Return the image with another number of voxels, and its affine.

    Nothing is smoothed: use ``pyramid`` to shrink without aliasing.

    Args:
        image: ``(B, C, *S)``.
        shape: wanted spatial shape.
        affine: voxel-to-world ``(d + 1, d + 1)``, numpy array or tensor.
        order: 0, 1 or 3.

    Returns:
        Image ``(B, C, *shape)`` and its affine, array or tensor like the one given.
    """
    old = check_image(image, "image")
    check_shape(affine, f"{len(old) + 1} {len(old) + 1}", "affine")
    factors = _factors(old, shape)
    columns = [*factors, 1.0]
    scale = affine.new_tensor(columns) if isinstance(affine, Tensor) else columns

    return _resampled(image, shape, factors, order), affine * scale


def resize_field(displacement: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a displacement on another number of voxels, in voxels of the new grid.

    Values change by ``(m - 1) / (n - 1)`` per axis: the world displacement stays.

    Args:
        displacement: ``(B, d, *S)``, voxels.
        shape: wanted spatial shape.
    """
    old = check_field(displacement, "displacement")
    factors = _factors(old, shape)
    scale = displacement.new_tensor([1 / factor for factor in factors])

    return _resampled(displacement, shape, factors, 1) * scale.view(1, -1, *[1] * len(old))


def pyramid(
    image: Tensor, levels: int, *, affine: Affine, min_size: int = 8
) -> list[tuple[Tensor, Affine]]:
    """Return the image at ``levels`` resolutions, finest first, each with its affine.

    From level to level an axis of n voxels goes to ``(n + 1) // 2``, if it keeps ``min_size``
    voxels and its spacing is below twice the finest of that level: thick slices wait until the
    plane has caught up. Before, the axis is smoothed by a Gaussian of ``0.4247 sqrt(f^2 - 1)``
    voxels for its factor f, against aliasing.

    Args:
        image: ``(B, C, *S)``.
        levels: number of levels, from 1.
        affine: voxel-to-world ``(d + 1, d + 1)``.
        min_size: fewest voxels of an axis that was halved.
    """
    shape = check_image(image, "image")
    check_floating(image, "image")
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    check_shape(affine, f"{len(shape) + 1} {len(shape) + 1}", "affine")
    found = [(image, affine)]
    for _ in range(levels - 1):
        image, affine = _halved(image, affine, min_size)
        found.append((image, affine))

    return found


def _halved(image: Tensor, affine: Affine, min_size: int) -> tuple[Tensor, Affine]:
    matrix = affine.detach() if isinstance(affine, Tensor) else torch.tensor(affine)
    spacing = torch.linalg.vector_norm(matrix[:-1, :-1], dim=0).tolist()
    finest = min(spacing)
    old = tuple(image.shape[2:])
    shape = tuple(
        (size + 1) // 2 if step < 2 * finest and (size + 1) // 2 >= max(min_size, 2) else size
        for size, step in zip(old, spacing, strict=True)
    )
    sigma = tuple(_FWHM_TO_SIGMA * (f**2 - 1) ** 0.5 for f in _factors(old, shape))

    return resize(gaussian(image, sigma), shape, affine=affine)


def _factors(old: Sequence[int], new: Sequence[int]) -> list[float]:
    """Return how much the distance between voxels grows, per axis."""
    if len(old) != len(new) or min(new) < 1:
        raise ValueError(f"shape must be {len(old)} positive numbers, got {tuple(new)}")
    if any(n == 1 and m > 1 for n, m in zip(old, new, strict=True)):
        raise ValueError(f"shape must keep axes of one voxel, got {tuple(new)} from {tuple(old)}")

    return [(n - 1) / (m - 1) if m > 1 else 1.0 for n, m in zip(old, new, strict=True)]


def _resampled(image: Tensor, shape: Sequence[int], factors: list[float], order: int) -> Tensor:
    if order == 1:
        check_floating(image, "image")
        pairs = zip(image.shape[2:], shape, strict=True)
        return apply_separable(image, [None if n == m else linear_matrix(n, m) for n, m in pairs])
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32
    axes = [
        (torch.arange(size, dtype=torch.float64) * factor).to(dtype).to(image.device)
        for size, factor in zip(shape, factors, strict=True)
    ]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)

    return sample(image, coords, order=order)
