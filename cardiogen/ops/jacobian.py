"""Jacobians of ``x -> x + u(x)`` and the test whether a sampled field folds.

Convention: ``J[i, j] = d (x + u)_i / d x_j``; in voxels unless a spacing is given. The determinant
is the local change of volume and has no unit.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from cardiogen.ops.check import check_field, check_spacing
from cardiogen.ops.filter import gradient
from cardiogen.ops.kernels import choose
from cardiogen.ops.warp import identity_coords


def jacobian(displacement: Tensor, *, spacing: tuple[float, ...] | None = None) -> Tensor:
    """Return ``I + du/dx`` by central differences, one-sided at the borders.

    Args:
        displacement: ``(B, d, *S)``, voxels.
        spacing: mm per axis; the result then maps mm to mm along the grid's axes
            (``J[i, j] s_i / s_j``). None keeps voxels.

    Returns:
        ``(B, d, d, *S)``, row i the component, column j the axis.
    """
    shape = check_field(displacement, "displacement")
    ndim = len(shape)
    steps = check_spacing(spacing, ndim) if spacing is not None else (1.0,) * ndim
    lengths = displacement.new_tensor(steps).view(1, ndim, *[1] * ndim)
    slopes = gradient(displacement * lengths, spacing=steps)
    eye = torch.eye(ndim, dtype=slopes.dtype, device=slopes.device)

    return slopes + eye.view(1, ndim, ndim, *[1] * ndim)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Return the local volume ratio by central differences, ``(B, 1, *S)``.

    Central differences skip the voxel itself and so can miss folds; ``folding`` cannot.

    Args:
        displacement: ``(B, d, *S)``, voxels.
    """
    check_field(displacement, "displacement")

    return choose(_jacobian_determinant, displacement)(displacement)


class Folding(NamedTuple):
    """Where a displacement folds.

    Attributes:
        fraction: share of cells that fold, of every sample ``(B,)``, float64.
        mask: cells that fold ``(B, *cells)``, bool; a cell lies between neighboring voxels.
        determinants: all determinants ``(B, 4 or 10, *cells)``.
    """

    fraction: Tensor
    mask: Tensor
    determinants: Tensor


def folding(displacement: Tensor) -> Folding:
    """Return the cells in which the displacement is not one-to-one.

    See ``folding_determinants``: a cell folds unless all of its determinants are positive (NaN is
    not).

    Args:
        displacement: ``(B, d, *S)``, voxels.
    """
    determinants = folding_determinants(displacement)
    mask = ~(determinants > 0).all(dim=1)

    return Folding(mask.flatten(1).double().mean(dim=1), mask, determinants)


def folding_determinants(displacement: Tensor) -> Tensor:
    """Return the finite-difference determinants that must be positive in every cell.

    A 3D cell splits into five tetrahedra in two ways: four at alternate corners of the cell and
    one in its middle. The eight corner tetrahedra are the eight combinations of forward and
    backward differences, the two middle ones the additional ``J*_1`` and ``J*_2``; each
    determinant is the volume of its deformed tetrahedron over that at rest. If all ten are
    positive everywhere, both piecewise linear interpolations are one-to-one within every cell. In
    2D the four corner triangles are both triangulations (Liu et al., IJCV 2024).

    Args:
        displacement: ``(B, d, *S)``, voxels. An axis of one voxel counts as not deformed.

    Returns:
        ``(B, 10, D-1, H-1, W-1)`` or ``(B, 4, H-1, W-1)``; the corners come first, in binary order
        of (d, h, w); an axis of one voxel gives one cell.
    """
    check_field(displacement, "displacement")

    return choose(_folding_determinants, displacement)(displacement)


def _jacobian_determinant(displacement: Tensor) -> Tensor:
    matrix = jacobian(displacement)

    return column_determinant(list(matrix.unbind(dim=2))).unsqueeze(1)


def _folding_determinants(displacement: Tensor) -> Tensor:
    corners = _cell_corners(displacement)
    ndim = displacement.ndim - 2
    determinants = [_corner_determinant(corners, corner) for corner in corners]
    if ndim == 3:
        determinants += [_middle_determinant(corners, apex) for apex in ((0, 0, 0), (1, 1, 1))]

    return torch.stack(determinants, dim=1)


def _cell_corners(displacement: Tensor) -> dict[tuple[int, ...], Tensor]:
    """Return where the corners of all cells go, each ``(B, d, *cells)``, keyed by their bits."""
    shape = displacement.shape[2:]
    identity = identity_coords(shape, dtype=displacement.dtype, device=displacement.device)
    positions = identity + displacement
    for axis, size in enumerate(shape):
        if size == 1:
            step = torch.zeros_like(positions)
            step[:, axis] = 1
            positions = torch.cat([positions, positions + step], dim=axis + 2)

    return {bits: _shifted(positions, bits) for bits in product((0, 1), repeat=len(shape))}


def _shifted(positions: Tensor, bits: tuple[int, ...]) -> Tensor:
    for axis, bit in enumerate(bits, start=2):
        positions = positions.narrow(axis, bit, positions.shape[axis] - 1)

    return positions


def _corner_determinant(corners: dict[tuple[int, ...], Tensor], corner: tuple[int, ...]) -> Tensor:
    columns = []
    for axis in range(len(corner)):
        low, high = ((*corner[:axis], bit, *corner[axis + 1 :]) for bit in (0, 1))
        columns.append(corners[high] - corners[low])

    return column_determinant(columns)


def _middle_determinant(
    corners: dict[tuple[int, ...], Tensor], apex: tuple[int, int, int]
) -> Tensor:
    # The three other corners of this tetrahedron are two bits away; |det| is 2 for a unit cell.
    columns = []
    for axis in range(3):
        far = tuple(bit if other == axis else 1 - bit for other, bit in enumerate(apex))
        low, high = (
            (corners[apex], corners[far]) if apex[0] == 0 else (corners[far], corners[apex])
        )
        columns.append(high - low)

    return column_determinant(columns) / 2


def column_determinant(columns: list[Tensor]) -> Tensor:
    """Determinant of matrices given by their columns, each ``(B, d, *S)``: ``(B, *S)``."""
    if len(columns) == 2:
        (a, c), (b, d) = (column.unbind(1) for column in columns)
        return a * d - b * c

    return _triple(*(column.unbind(1) for column in columns))


def _triple(a: tuple[Tensor, ...], b: tuple[Tensor, ...], c: tuple[Tensor, ...]) -> Tensor:
    return (
        a[0] * (b[1] * c[2] - b[2] * c[1])
        + a[1] * (b[2] * c[0] - b[0] * c[2])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
    )
