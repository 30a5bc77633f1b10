"""Jacobians, folding, energies and filters by Triton: raw functions without autograd.

Convention: tensors are contiguous float32 on one device; fields ``(B, d, *S)`` are in voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen.ops.kernels.cuda.launch import launch, padded, tiling, volume


def jacobian_determinant(u: Tensor) -> Tensor:
    """Return ``det(I + Du)`` by central differences, one-sided at borders.

    Args:
        u: ``(B, d, *S)``, voxels.

    Returns:
        ``(B, 1, *S)``.
    """
    from cardiogen.ops.kernels.cuda.lattice_kernels import determinant_kernel

    out = u.new_empty(u.shape[0], 1, *u.shape[2:])
    lattice = padded(u.shape[2:])
    launch(determinant_kernel, u.shape[0], lattice, (u, out, lattice[0]), _ndim(u))

    return out


def jacobian_determinant_backward(grad: Tensor, u: Tensor) -> Tensor:
    """Return the gradient of ``jacobian_determinant``; nothing is added in varying order.

    Args:
        grad: ``(B, 1, *S)``.
        u: ``(B, d, *S)``, voxels.
    """
    from cardiogen.ops.kernels.cuda.lattice_kernels import determinant_gradient_kernel

    out = torch.empty_like(u)
    lattice = padded(u.shape[2:])
    arguments = (grad, u, out, lattice[0])
    launch(determinant_gradient_kernel, u.shape[0], lattice, arguments, _ndim(u))

    return out


def folding_determinants(u: Tensor) -> Tensor:
    """Return the determinants that must be positive in every cell (Liu et al., IJCV 2024).

    Args:
        u: ``(B, d, *S)``, voxels.

    Returns:
        ``(B, 10, *cells)`` in 3D, ``(B, 4, *cells)`` in 2D; an axis of one voxel has one cell.
    """
    from cardiogen.ops.kernels.cuda.lattice_kernels import folding_kernel

    cells = tuple(max(n - 1, 1) for n in u.shape[2:])
    out = u.new_empty(u.shape[0], 10 if u.shape[1] == 3 else 4, *cells)
    arguments = (u, out, *padded(u.shape[2:]), volume(u.shape[2:], "u"))
    launch(folding_kernel, u.shape[0], padded(cells), arguments, _ndim(u))

    return out


def stiffness(u: Tensor, *, order: int, spacing: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return a quadratic energy ``E = <u, Q u> / 2`` of every sample, and ``Q u``.

    With D forward and B second differences, s the spacing: order 1, diffusion,
    ``E = sum_ij (s_i / s_j)^2 |D_j u_i|^2``; order 2, bending,
    ``E = sum_i s_i^2 (sum_j |B_j u_i|^2 / s_j^4 + 2 sum_{j<k} |D_j D_k u_i|^2 / (s_j s_k)^2)``.
    Every tile of voxels is added up in float32, the tiles in float64 and in fixed order.

    Args:
        u: ``(B, d, *S)``, voxels.
        order: 1 or 2.
        spacing: mm per axis.

    Returns:
        Energies ``(B,)`` and their gradients ``(B, d, *S)``.
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}")
    from cardiogen.ops.kernels.cuda.stencil_kernels import stiffness_kernel

    batch, ndim, *shape = u.shape
    lattice = padded(shape)
    out = torch.empty_like(u)
    energy = u.new_empty(batch, ndim * lattice[0] * tiling(lattice)[0])
    steps = (1.0, *spacing)[-3:]
    squares, inverses = [s**2 for s in steps], [1 / s**2 for s in steps]
    arguments = (u, out, energy, *squares, *inverses, ndim, lattice[0])
    constants = {"ORDER": order, "DEEP": ndim == 3}
    launch(stiffness_kernel, batch * ndim, lattice, arguments, constants)

    return energy.sum(dim=1, dtype=torch.float64).float(), out


def banded(tensor: Tensor, axis: int, first: Tensor, weights: Tensor) -> Tensor:
    """Apply a banded matrix along an axis: ``out[r] = sum_t weights[r, t] in[first[r] + t]``.

    Args:
        tensor: ``(B, C, *S)``.
        axis: spatial axis, from 0.
        first: column of the first weight of every row, int32 ``(m,)``.
        weights: ``(m, taps)``; where one is 0 its column may lie outside and is not read.

    Returns:
        ``(B, C, *S)`` with m voxels along the axis.
    """
    from cardiogen.ops.kernels.cuda.stencil_kernels import banded_kernel

    batch, channels, *shape = tensor.shape
    size, taps = shape[axis], weights.shape[1]
    volume(shape, "tensor")
    shape[axis] = weights.shape[0]
    out = tensor.new_empty(batch, channels, *shape)
    before, after = torch.Size(shape[:axis]).numel(), torch.Size(shape[axis + 1 :]).numel()
    last = after == 1
    lattice = (1, before, shape[axis]) if last else (before, shape[axis], after)
    arguments = (tensor, out, first, weights, size, taps)
    launch(banded_kernel, batch * channels, lattice, arguments, {"LAST": last})

    return out


def _ndim(field: Tensor) -> dict[str, int | bool]:
    return {"NDIM": field.shape[1]}
