"""Read images at positions between voxels, and the exact adjoint of that.

Convention: ``coords`` are absolute voxel positions in axis order; 0 and n - 1 are the centers of
the first and last voxels (what torch calls align_corners=True). This file and its kernels alone
know how positions become array reads. The linear form is written with explicit weights, because
torch's own sampler has no second derivative in 3D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from cardiogen.ops.check import check_batch, check_floating, check_image
from cardiogen.ops.kernels import choose
from cardiogen.ops.separable import (
    apply_separable,
    cubic_prefilter_matrix,
    cubic_weights,
    mirrored,
)

Padding = Literal["border", "zeros"]
_PADDINGS = ("border", "zeros")
_ORDERS = (0, 1, 3)


def sample(
    image: Tensor, coords: Tensor, *, order: int = 1, padding: Padding = "border"
) -> Tensor:
    """Return the values of ``image`` at ``coords``.

    Orders: 0 nearest (halves round up), 1 linear, 3 cubic B-spline that interpolates (equal to
    scipy's ``mode="mirror"`` inside the grid). Outside the grid, ``"border"`` repeats the value at
    the nearest point of the grid; ``"zeros"`` also fades it linearly to 0 over one voxel per axis,
    which for order 1 is the same as an image surrounded by zeros (order 0 is 0 beyond half a
    voxel). NaN positions give NaN (0 in integer images), infinite ones what lies outside.

    Args:
        image: ``(B, C, *S)``, 2D or 3D; orders 1 and 3 need floating point.
        coords: voxel positions ``(B, d, *out)``, float32 or wider, any shape ``out``. Either batch
            may be 1 and is then shared.
        order: 0, 1 or 3.
        padding: what lies outside.

    Returns:
        ``(B, C, *out)`` in the dtype of ``image``. Order 1 is differentiable twice in both
        arguments, order 3 too; order 0 in ``image`` alone.
    """
    shape = check_image(image, "image")
    _check_coords(coords, shape, padding)
    check_batch(coords.shape[0], image.shape[0], "coords", "image")
    if order not in _ORDERS:
        raise ValueError(f"order must be 0, 1 or 3, got {order}")
    if order > 0:
        check_floating(image, "image")

    if order == 1:
        return choose(sample_linear, image, coords)(image, coords, padding)
    if order == 3:
        return _sample_cubic(image, coords, padding)
    return _sample_nearest(image, coords, padding)


def push(
    values: Tensor, coords: Tensor, shape: Sequence[int], *, padding: Padding = "border"
) -> Tensor:
    """Add ``values`` to the voxels around ``coords``: the adjoint of linear ``sample``.

    For any image and values, ``<sample(image, coords), values> = <image, push(values, coords)>``.

    Args:
        values: ``(B, C, *out)`` floating point.
        coords: voxel positions ``(B, d, *out)``, float32 or wider.
        shape: spatial shape ``S`` of the result.
        padding: that of the ``sample`` whose adjoint is wanted; ``"zeros"`` drops what lies
            a voxel or more outside, ``"border"`` moves it to the border.

    Returns:
        ``(B, C, *S)`` in the dtype of ``values``, differentiable twice in both arguments.
    """
    shape = tuple(int(n) for n in shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape must be 2 or 3 positive numbers, got {shape}")
    _check_coords(coords, shape, padding)
    check_floating(values, "values")
    check_batch(values.shape[0], coords.shape[0], "values", "coords")
    if values.shape[2:] != coords.shape[2:] or values.ndim < 2:
        raise ValueError(
            f"values must have shape (B, C, {', '.join(map(str, coords.shape[2:]))}) like coords, "
            f"got {tuple(values.shape)}"
        )

    return choose(_push, values, coords)(values, coords, shape, padding)


def count(coords: Tensor, shape: Sequence[int], *, padding: Padding = "border") -> Tensor:
    """Return how much weight every voxel gets: ``push`` of ones, ``(B, 1, *S)``."""
    ones = torch.ones_like(coords[:, :1])

    return push(ones, coords, shape, padding=padding)


def _check_coords(coords: Tensor, shape: tuple[int, ...], padding: str) -> None:
    if coords.ndim < 2 or coords.shape[1] != len(shape):
        raise ValueError(
            f"coords must have shape (B, {len(shape)}, ...), one component per axis of the image, "
            f"got {tuple(coords.shape)}"
        )
    if coords.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"coords must be float32 or float64, got {coords.dtype}: half precision misplaces "
            "voxels"
        )
    check_padding(padding)


def check_padding(padding: str) -> None:
    """Refuse what is none of the two kinds of padding."""
    if padding not in _PADDINGS:
        raise ValueError(f"padding must be 'border' or 'zeros', got {padding!r}")


def sample_linear(image: Tensor, coords: Tensor, padding: str) -> Tensor:
    work, coords = _working_copies(image, coords)

    return _weighted_reads(work, coords, _linear_corners, padding).to(image.dtype)


def _sample_cubic(image: Tensor, coords: Tensor, padding: str) -> Tensor:
    work, coords = _working_copies(image, coords)
    work = apply_separable(work, [cubic_prefilter_matrix(n) for n in image.shape[2:]])

    return _weighted_reads(work, coords, _cubic_corners, padding).to(image.dtype)


def _weighted_reads(image: Tensor, coords: Tensor, corners: Callable, padding: str) -> Tensor:
    shape, out = tuple(image.shape[2:]), coords.shape[2:]
    image, coords = _same_batch(image.flatten(2), coords.flatten(2))
    inside = _inside(coords, shape)
    total: Tensor | float = 0.0
    for index, weight in corners(inside, shape):
        total = total + _gather(image, index) * weight.unsqueeze(1)
    if padding == "zeros":
        total = total * _fade(coords, inside).unsqueeze(1)

    return total.unflatten(2, out)


def _same_batch(image: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Share images or coords among consecutive samples; a single set of coords stays single."""
    batch = _batch(image, coords)
    image = image.expand(batch, -1, -1) if image.shape[0] == 1 else _repeated(image, batch)

    return image, coords if coords.shape[0] == 1 else _repeated(coords, batch)


def _batch(first: Tensor, second: Tensor) -> int:
    """Return the batch size of the result; an empty batch stays empty."""
    sizes = first.shape[0], second.shape[0]

    return 0 if 0 in sizes else max(sizes)


def _repeated(tensor: Tensor, batch: int) -> Tensor:
    repeats = batch // max(tensor.shape[0], 1)

    return tensor if repeats == 1 else tensor.repeat_interleave(repeats, dim=0)


def _push(values: Tensor, coords: Tensor, shape: tuple[int, ...], padding: str) -> Tensor:
    work, coords = _working_copies(values.flatten(2), coords.flatten(2))
    inside = _inside(coords, shape)
    if padding == "zeros":
        work = work * _fade(coords, inside).unsqueeze(1)
    batch = _batch(values, coords)
    voxels = torch.Size(shape).numel()
    total = work.new_zeros(batch, work.shape[1], voxels)
    for index, weight in _linear_corners(inside, shape):
        part = (work * weight.unsqueeze(1)).expand(batch, -1, -1)
        total = total.scatter_add(2, index.unsqueeze(1).expand_as(part), part)

    return total.to(values.dtype).unflatten(2, shape)


def _working_copies(values: Tensor, coords: Tensor) -> tuple[Tensor, Tensor]:
    """Bring values and coords to one dtype, float32 or wider, also under autocast."""
    dtype = torch.promote_types(values.dtype, coords.dtype)

    return values.to(dtype), coords.to(dtype)


def _inside(coords: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Move positions ``(B, d, M)`` to the nearest point of the grid; NaN stays NaN."""
    axes = zip(coords.unbind(1), shape, strict=True)

    return torch.stack([axis.clamp(0, size - 1) for axis, size in axes], dim=1)


def _fade(coords: Tensor, inside: Tensor) -> Tensor:
    """Return the share of a voxel that is left outside the grid, ``(B, M)``."""
    return (1 - (coords - inside).abs()).clamp(min=0).prod(dim=1)


def _gather(flat: Tensor, index: Tensor) -> Tensor:
    """Read voxels ``index`` ``(B or 1, M)`` of every channel of ``flat`` ``(B, C, N)``."""
    batch, channels, _ = flat.shape

    return flat.gather(2, index.unsqueeze(1).expand(batch, channels, -1))


def _cell(axis: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the lower voxel of the cell that holds a position, and the position in the cell."""
    # The last voxel belongs to the cell before it, so that its derivative is one-sided, not 0.
    lower = torch.nan_to_num(axis.detach().floor(), nan=0.0).clamp(0, max(size - 2, 0))

    return lower.long(), axis - lower


def _corners(
    reads: list[list[tuple[Tensor, Tensor]]], shape: tuple[int, ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield flat index and weight of every combination of per-axis (index, weight) pairs."""
    for combination in product(*reads):
        index, weight = combination[0]
        for (step, factor), size in zip(combination[1:], shape[1:], strict=True):
            index, weight = index * size + step, weight * factor
        yield index, weight


def _linear_corners(inside: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    reads = []
    for axis, size in zip(inside.unbind(1), shape, strict=True):
        lower, share = _cell(axis, size)
        reads.append([(lower, 1 - share), ((lower + 1).clamp(max=size - 1), share)])

    return _corners(reads, shape)


def _cubic_corners(inside: Tensor, shape: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    reads = []
    for axis, size in zip(inside.unbind(1), shape, strict=True):
        lower, share = _cell(axis, size)
        steps = [mirrored(lower + step, size) for step in (-1, 0, 1, 2)]
        reads.append(list(zip(steps, cubic_weights(share), strict=True)))

    return _corners(reads, shape)


def _sample_nearest(image: Tensor, coords: Tensor, padding: str) -> Tensor:
    shape, out = tuple(image.shape[2:]), coords.shape[2:]
    flat, coords = _same_batch(image.flatten(2), coords.flatten(2))
    index = torch.zeros_like(coords[:, 0], dtype=torch.long)
    outside = torch.zeros_like(index, dtype=torch.bool)
    for axis, size in zip(coords.detach().unbind(1), shape, strict=True):
        nearest = torch.nan_to_num((axis + 0.5).floor(), nan=0.0)
        outside = outside | (nearest < 0) | (nearest > size - 1)
        index = index * size + nearest.clamp(0, size - 1).long()
    values = _gather(flat, index)
    if padding == "zeros":
        values = values.masked_fill(outside.unsqueeze(1), 0)
    missing = coords.isnan().any(dim=1).unsqueeze(1)
    values = values.masked_fill(missing, float("nan") if values.is_floating_point() else 0)

    return values.unflatten(2, out)
