"""Roughness of a displacement field in physical units: first and second differences.

Convention: the field ``u`` is in voxels, its components are compared in mm (``s_i u_i``) and its
differences are per mm, so a field has the same energy on any spacing that resolves it. Only
differences inside the grid count: nothing is padded, and a border neither pulls nor holds.
"""

from __future__ import annotations

import math
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiogen.ops.check import check_batch, check_field, check_same, check_spacing
from cardiogen.ops.kernels import choose


def diffusion_map(displacement: Tensor, *, spacing: tuple[float, ...]) -> Tensor:
    """Return the squared first differences of a displacement, shared out to voxels.

    Every edge along axis j between neighboring voxels has the energy
    ``sum_i (s_i / s_j)^2 (u_i(x + e_j) - u_i(x))^2`` and gives half of it to each of its two
    voxels, so that the map sums to the sum over edges. No edge, no energy: axes of one voxel give
    0.

    Args:
        displacement: ``(B, d, *S)``, voxels.
        spacing: mm per axis.

    Returns:
        ``(B, 1, *S)``, without unit (mm per mm, squared); float32 or wider.
    """
    lengths = check_spacing(spacing, len(check_field(displacement, "displacement")))
    total = torch.zeros_like(_wide(displacement[:, :1]))
    for axis, edges in _diffusion_edges(displacement, lengths):
        total = total + _share(edges.square().sum(dim=1, keepdim=True), (axis,))

    return total


def diffusion_energy(
    displacement: Tensor, *, spacing: tuple[float, ...], weight: Tensor | None = None
) -> Tensor:
    """Return the mean over voxels of ``weight * diffusion_map``, per sample.

    Args:
        displacement: ``(B, d, *S)``, voxels.
        spacing: mm per axis.
        weight: ``(B or 1, 1, *S)``; None means 1.

    Returns:
        ``(B,)``, without unit; float32 or wider.
    """
    lengths = check_spacing(spacing, len(check_field(displacement, "displacement")))
    if weight is None:
        return choose(_diffusion_energy, displacement)(displacement, lengths)
    _check_weight(weight, displacement)

    return (weight * diffusion_map(displacement, spacing=lengths)).flatten(1).mean(dim=1)


def bending_map(displacement: Tensor, *, spacing: tuple[float, ...]) -> Tensor:
    """Return the squared second differences of a displacement, shared out to voxels.

    ``sum_i s_i^2 [sum_j (B_j u_i)^2 / s_j^4 + 2 sum_{j<k} (D_j D_k u_i)^2 / (s_j s_k)^2]``, where
    ``B_j`` is the second difference at a voxel between two others of axis j and belongs to that
    voxel, and ``D_j D_k`` the mixed forward difference of a cell of 2 x 2 voxels, each of which
    gets a quarter. Affine fields have energy 0 up to the borders (Rueckert et al., IEEE Trans.
    Med. Imaging 1999, eq. 8, as differences).

    Args:
        displacement: ``(B, d, *S)``, voxels.
        spacing: mm per axis.

    Returns:
        ``(B, 1, *S)``, 1/mm^2; float32 or wider.
    """
    lengths = check_spacing(spacing, len(check_field(displacement, "displacement")))
    total = torch.zeros_like(_wide(displacement[:, :1]))
    for axes, bends in _bending_cells(displacement, lengths):
        squares = bends.square().sum(dim=1, keepdim=True)
        own = len(axes) == 1
        total = total + (_between(squares, axes[0]) if own else 2 * _share(squares, axes))

    return total


def bending_energy(
    displacement: Tensor, *, spacing: tuple[float, ...], weight: Tensor | None = None
) -> Tensor:
    """Return the mean over voxels of ``weight * bending_map``, per sample.

    Args:
        displacement: ``(B, d, *S)``, voxels.
        spacing: mm per axis.
        weight: ``(B or 1, 1, *S)``; None means 1.

    Returns:
        ``(B,)``, 1/mm^2; float32 or wider.
    """
    lengths = check_spacing(spacing, len(check_field(displacement, "displacement")))
    if weight is None:
        return choose(_bending_energy, displacement)(displacement, lengths)
    _check_weight(weight, displacement)

    return (weight * bending_map(displacement, spacing=lengths)).flatten(1).mean(dim=1)


def _diffusion_energy(displacement: Tensor, spacing: tuple[float, ...]) -> Tensor:
    total = _wide(displacement).new_zeros(len(displacement))
    for _, edges in _diffusion_edges(displacement, spacing):
        total = total + edges.square().flatten(1).sum(dim=1)

    return total / math.prod(displacement.shape[2:])


def _bending_energy(displacement: Tensor, spacing: tuple[float, ...]) -> Tensor:
    total = _wide(displacement).new_zeros(len(displacement))
    for axes, bends in _bending_cells(displacement, spacing):
        total = total + len(axes) * bends.square().flatten(1).sum(dim=1)

    return total / math.prod(displacement.shape[2:])


def _diffusion_edges(displacement: Tensor, spacing: tuple[float, ...]) -> list[tuple[int, Tensor]]:
    field_mm = _in_mm(displacement, spacing)
    axes = [a for a in range(2, displacement.ndim) if displacement.shape[a] > 1]

    return [(a, field_mm.diff(dim=a) / spacing[a - 2]) for a in axes]


def _bending_cells(
    displacement: Tensor, spacing: tuple[float, ...]
) -> list[tuple[tuple[int, ...], Tensor]]:
    edges = _diffusion_edges(displacement, spacing)
    cells: list[tuple[tuple[int, ...], Tensor]] = [
        ((a,), slope.diff(dim=a) / spacing[a - 2]) for a, slope in edges if slope.shape[a] > 1
    ]
    for (first, slope), (second, _) in combinations(edges, 2):
        cells.append(((first, second), slope.diff(dim=second) / spacing[second - 2]))

    return cells


def _in_mm(displacement: Tensor, spacing: tuple[float, ...]) -> Tensor:
    ndim = len(spacing)
    wide = _wide(displacement)

    return wide * wide.new_tensor(spacing).view(1, ndim, *[1] * ndim)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _share(cells: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Give the value between neighbors along ``axes`` to them in equal parts."""
    for axis in axes:
        cells = (_padded(cells, axis, 1, 0) + _padded(cells, axis, 0, 1)) / 2

    return cells


def _between(values: Tensor, axis: int) -> Tensor:
    return _padded(values, axis, 1, 1)


def _padded(values: Tensor, axis: int, before: int, after: int) -> Tensor:
    return F.pad(values, [0, 0] * (values.ndim - 1 - axis) + [before, after])


def _check_weight(weight: Tensor, displacement: Tensor) -> None:
    if weight.ndim != displacement.ndim or weight.shape[1] != 1:
        raise ValueError(
            f"weight must have shape (B or 1, 1, *S) with S={tuple(displacement.shape[2:])}, "
            f"got {tuple(weight.shape)}"
        )
    check_same(weight.shape[2:], displacement.shape[2:], "weight", "displacement")
    check_batch(len(weight), len(displacement), "weight", "displacement")
