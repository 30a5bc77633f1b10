"""Linear operators that act axis by axis, as small dense matrices.

A filter, a B-spline expansion or a prefilter along an axis of n voxels is an (m, n) matrix. That
is exact at the borders, has the transposed matrix as its adjoint and any derivative for free.
Matrices are made in float64 and applied in the tensor's own precision, float32 or wider.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def apply_separable(tensor: Tensor, matrices: Sequence[Tensor | None]) -> Tensor:
    """Apply one matrix ``(m, n)`` to each spatial axis of ``(B, C, *S)``; None leaves it alone."""
    work = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    # Autocast would take products of coordinates down to half precision.
    with torch.autocast(tensor.device.type, enabled=False):
        for axis, matrix in enumerate(matrices, start=2):
            if matrix is not None:
                matrix = matrix.to(dtype=work.dtype, device=work.device)
                work = torch.movedim(torch.movedim(work, axis, -1) @ matrix.T, -1, axis)

    return work.to(tensor.dtype)


def tap_matrix(weights: Tensor, size: int) -> Tensor:
    """Return the ``(size, size)`` filter of odd-length ``weights``, borders repeated outwards."""
    reach = len(weights) // 2
    rows = torch.arange(size).unsqueeze(1).expand(size, len(weights))
    columns = (rows + torch.arange(-reach, reach + 1)).clamp(0, size - 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)

    return matrix.index_put_((rows, columns), weights.double().expand(size, -1), accumulate=True)


def cubic_weights(share: Tensor) -> list[Tensor]:
    """Return the four uniform cubic B-spline weights at ``share`` in [0, 1] of a cell."""
    rest = 1 - share

    return [
        rest**3 / 6,
        2 / 3 - share**2 * (2 - share) / 2,
        2 / 3 - rest**2 * (2 - rest) / 2,
        share**3 / 6,
    ]


def mirrored(index: Tensor, size: int) -> Tensor:
    """Fold integer positions into [0, size) by reflection at the centers of the end voxels."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    folded = index.remainder(period)

    return torch.minimum(folded, period - folded)


def cubic_prefilter_matrix(size: int) -> Tensor:
    """Return the matrix from values to the cubic B-spline coefficients that interpolate them.

    The samples ``(c[k-1] + 4 c[k] + c[k+1]) / 6`` with mirrored ends are inverted (Unser, Aldroubi
    and Eden, IEEE Trans. Signal Process. 1993), which is what scipy's ``mode="mirror"`` means.
    """
    rows = torch.arange(size).unsqueeze(1).expand(size, 3)
    columns = mirrored(rows + torch.arange(-1, 2), size)
    weights = torch.tensor([1.0, 4.0, 1.0], dtype=torch.float64) / 6
    samples = torch.zeros(size, size, dtype=torch.float64)
    samples.index_put_((rows, columns), weights.expand(size, 3), accumulate=True)

    return torch.linalg.inv(samples)
