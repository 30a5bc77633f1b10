"""Parameters of a field on a finer lattice: exactly where splines nest, else the nearest ones.

Convention: see ``lattice.py``. All is linear in the parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.transforms.lattice import ControlSpacing, Lattice, aligned, carry

_TILT = 1e-6
_WHOLE = 1e-6


def refine(
    params: Tensor, lattice: Lattice, grid: Grid, *, control_spacing: ControlSpacing | None = None
) -> tuple[Tensor, Lattice]:
    """Return the field's parameters on another grid, and their lattice.

    Vectors per voxel are interpolated. Splines stay the same function if both grids have the same
    corner voxels and every control spacing stays or is halved (any number of times:
    ``ops.subdivide``); otherwise the field is interpolated and the coefficients are those of the
    least-squares spline.

    Args:
        params: ``(N, *lattice.shape)``.
        lattice: where they live.
        grid: wanted grid.
        control_spacing: wanted spacing of control points, mm; by default it stays.

    Raises:
        ValueError: if an in-plane field is to go to a grid with other planes, or vectors per voxel
            are given a control spacing.
    """
    if control_spacing is not None and lattice.control_spacing is None:
        raise ValueError(
            "control_spacing must be None for a field without control points, "
            f"got {control_spacing}"
        )
    spacing = lattice.control_spacing if control_spacing is None else control_spacing
    wanted = Lattice.of(grid, control_spacing=spacing, in_plane=lattice.in_plane)
    if lattice.in_plane:
        _check_same_planes(lattice.grid, grid)
    if lattice.control_spacing is not None:
        exact = _subdivided(params, lattice, wanted)
        if exact is not None:
            return exact, wanted
    field = lattice.embedded(lattice.field(params))
    carried = wanted.flattened(carry(field, lattice.grid, grid))

    return (carried if wanted.control_spacing is None else fit_control(carried, wanted)), wanted


def fit_control(field: Tensor, lattice: Lattice) -> Tensor:
    """Return the spline coefficients nearest to a field in the least-squares sense.

    Args:
        field: ``(N, 2 or 3, *S)`` at the voxels of the lattice's grid.
        lattice: with control points.

    Returns:
        ``(N, *lattice.shape)``; where voxels do not fix them, those of least norm.
    """
    axes = zip(lattice.sizes, lattice.spacing, lattice.control_spacing, strict=True)
    first = field.ndim - len(lattice.sizes)
    for axis, (size, spacing, control_spacing) in enumerate(axes, start=first):
        if size == 1:
            continue
        basis = _basis(size, spacing, control_spacing).to(field.device)
        solver = torch.linalg.pinv(basis)
        field = (field.movedim(axis, -1).double() @ solver.T).movedim(-1, axis).to(field.dtype)

    return field


def _basis(size: int, spacing: float, control_spacing: float) -> Tensor:
    """Return the value of every control point's spline at every voxel, ``(size, points)``."""
    # A second axis of one voxel makes a line of voxels an image.
    line = {"spacing": (spacing, 1.0), "control_spacing": (control_spacing, 1.0)}
    points = ops.control_shape((size, 1), **line)[0]
    units = torch.eye(points, dtype=torch.float64).view(1, points, points, 1)

    return ops.expand(units, (size, 1), **line)[0, :, :, 0].T


def _subdivided(params: Tensor, lattice: Lattice, wanted: Lattice) -> Tensor | None:
    """Return the same spline on ``wanted``, or None if it does not hold it."""
    halvings = [
        math.log2(old / new)
        for old, new in zip(lattice.control_spacing, wanted.control_spacing, strict=True)
    ]
    whole = all(h > -_WHOLE and abs(h - round(h)) < _WHOLE for h in halvings)
    if not whole or not aligned(lattice.grid, wanted.grid):
        return None
    # The grid comes first: coarse voxels may be wider apart than fine control points.
    moved = Lattice(wanted.grid, lattice.control_spacing, lattice.in_plane)
    if moved.shape != lattice.shape:
        return None
    ratio = [old / new for old, new in zip(lattice.spacing, moved.spacing, strict=True)]
    values = params * params.new_tensor(ratio).view(1, -1, *[1] * (params.ndim - 2))
    first = params.ndim - len(lattice.sizes)
    for axis, times in enumerate(halvings):
        for turn in range(round(times)):
            values = _halved(values, moved, axis, axis + first, 2**turn)

    return values if tuple(values.shape[1:]) == wanted.shape else None


def _halved(values: Tensor, lattice: Lattice, axis: int, dim: int, divisor: int) -> Tensor:
    """Subdivide along one axis, the others being as many independent splines."""
    size = lattice.sizes[axis]
    if size == 1:
        return values
    lines = values.movedim(dim, -1)
    fine = ops.subdivide(
        lines.reshape(1, -1, lines.shape[-1], 1),
        (size, 1),
        spacing=(lattice.spacing[axis], 1.0),
        control_spacing=(lattice.control_spacing[axis] / divisor, 2.0),
    )

    return fine.reshape(*lines.shape[:-1], -1).movedim(-1, dim)


def _check_same_planes(grid: Grid, other: Grid) -> None:
    linear = (other.inverse @ grid.affine)[:3, :3]
    if abs(linear[0, 1:]).max() > _TILT:
        raise ValueError(
            "grid must have the slices' planes of an in-plane transform, got tilted ones; "
            "use displacement(grid) instead"
        )
