"""Free-form deformations: cubic B-splines on a lattice of control points.

Convention: along every axis control point 1 sits on voxel 0 and control points are
``control_spacing`` apart; one lies before the grid and enough after it to cover the last voxel.
An axis of one voxel has one control point. Coefficients carry the unit of what they expand to,
voxels for displacements (Rueckert et al., IEEE TMI 1999).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cardiogen.ops.check import check_floating, check_image, check_spacing
from cardiogen.ops.separable import apply_separable, axis_matrix, cubic_weights

# Cells are counted with this slack, so that 12 x 1.4 mm / 4.2 mm is 4 cells and not 5.
_SLACK = 1e-9


def control_shape(
    shape: Sequence[int], *, spacing: tuple[float, ...], control_spacing: tuple[float, ...]
) -> tuple[int, ...]:
    """Return the control points per axis that cover a grid: cells + 3, or 1 for one voxel.

    Args:
        shape: voxels per axis.
        spacing: mm per axis between voxels.
        control_spacing: mm per axis between control points, at least ``spacing``.
    """
    strides = _strides(shape, spacing, control_spacing)

    return tuple(
        1 if size == 1 else _cells(size, stride) + 3
        for size, stride in zip(shape, strides, strict=True)
    )


def expand(
    control: Tensor,
    shape: Sequence[int],
    *,
    spacing: tuple[float, ...],
    control_spacing: tuple[float, ...],
) -> Tensor:
    """Return the spline at every voxel: ``u(x) = sum_k c_k prod_a beta(x_a / r_a - k_a)``.

    Constant coefficients give that constant and coefficients linear in position that linear
    function, exactly.

    Args:
        control: coefficients ``(B, C, *control_shape)``.
        shape: voxels per axis S.
        spacing: mm per axis between voxels.
        control_spacing: mm per axis between control points.

    Returns:
        ``(B, C, *S)`` in the unit and dtype of ``control``.
    """
    _check_control(control, shape, spacing, control_spacing)
    strides = _strides(shape, spacing, control_spacing)

    matrices = [
        None if size == 1 else _basis_matrix(size, stride)
        for size, stride in zip(shape, strides, strict=True)
    ]

    return apply_separable(control, matrices)


def subdivide(
    control: Tensor,
    shape: Sequence[int],
    *,
    spacing: tuple[float, ...],
    control_spacing: tuple[float, ...],
) -> Tensor:
    """Return the coefficients of the same function at half the control spacing.

    ``c'[2k] = (c[k-1] + 6 c[k] + c[k+1]) / 8`` and ``c'[2k+1] = (c[k] + c[k+1]) / 2``; the spline
    does not change (Lane and Riesenfeld, IEEE PAMI 1980).

    Args:
        control: coefficients ``(B, C, *control_shape)``.
        shape: voxels per axis of the grid that the spline covers.
        spacing: mm per axis between voxels.
        control_spacing: mm per axis between the control points given; half of it must not be
            below ``spacing``.

    Returns:
        Coefficients of ``control_shape`` at ``control_spacing / 2``.
    """
    _check_control(control, shape, spacing, control_spacing)
    halved = tuple(length / 2 for length in control_spacing)
    fine = control_shape(shape, spacing=spacing, control_spacing=halved)
    matrices = [
        None if points == 1 else _subdivision_matrix(points, wanted)
        for points, wanted in zip(control.shape[2:], fine, strict=True)
    ]

    return apply_separable(control, matrices)


def control_coords(
    shape: Sequence[int], *, spacing: tuple[float, ...], control_spacing: tuple[float, ...]
) -> Tensor:
    """Return where the control points lie, in voxels, float64 ``(1, d, *control_shape)``."""
    strides = _strides(shape, spacing, control_spacing)
    points = control_shape(shape, spacing=spacing, control_spacing=control_spacing)
    axes = [
        (torch.arange(n, dtype=torch.float64) - int(n > 1)) * stride
        for n, stride in zip(points, strides, strict=True)
    ]

    return torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)


def _strides(
    shape: Sequence[int], spacing: tuple[float, ...], control_spacing: tuple[float, ...]
) -> tuple[float, ...]:
    """Return voxels between control points, per axis."""
    spacing = check_spacing(spacing, len(shape))
    control_spacing = check_spacing(control_spacing, len(shape), "control_spacing")
    strides = tuple(c / s for c, s in zip(control_spacing, spacing, strict=True))
    narrow = [
        stride < 1 - _SLACK and size > 1 for stride, size in zip(strides, shape, strict=True)
    ]
    if any(narrow):
        raise ValueError(
            f"control_spacing must not be below the voxel spacing {spacing} mm, "
            f"got {control_spacing} mm"
        )

    return strides


def _cells(size: int, stride: float) -> int:
    return max(1, math.ceil((size - 1) / stride - _SLACK))


def _check_control(
    control: Tensor,
    shape: Sequence[int],
    spacing: tuple[float, ...],
    control_spacing: tuple[float, ...],
) -> None:
    found = check_image(control, "control")
    check_floating(control, "control")
    wanted = control_shape(shape, spacing=spacing, control_spacing=control_spacing)
    if found != wanted:
        raise ValueError(f"control must have the control_shape of the grid, {wanted}, got {found}")


@axis_matrix
def _basis_matrix(size: int, stride: float) -> Tensor:
    """Return the weight of every control point at every voxel, ``(size, cells + 3)``."""
    cells = _cells(size, stride)
    position = torch.arange(size, dtype=torch.float64) / stride
    cell = position.floor().clamp(max=cells - 1)
    columns = cell.long().unsqueeze(1) + torch.arange(4)
    weights = torch.stack(cubic_weights(position - cell), dim=1)

    return torch.zeros(size, cells + 3, dtype=torch.float64).scatter_(1, columns, weights)


@axis_matrix
def _subdivision_matrix(points: int, wanted: int) -> Tensor:
    """Return the first rows of the refinement ``(2 cells + 3, cells + 3)``, points cells + 3."""
    # Fine point s sits at knot s - 1 of the halved lattice, coarse point s at knot s - 1.
    matrix = torch.zeros(2 * points - 3, points, dtype=torch.float64)
    for row in range(2 * points - 3):
        below = row // 2
        if row % 2 == 0:
            matrix[row, below : below + 2] = 0.5
        else:
            matrix[row, below : below + 3] = torch.tensor([1.0, 6.0, 1.0]).double() / 8

    return matrix[:wanted]
