"""Deformation gradients and strain tensors of a sampled displacement, in mm.

Convention: ``F[i, j] = d x_i / d X_j`` maps lengths at ED (Lagrangian, X) to lengths at a frame
(x), both in world mm, whatever the pose and the spacing of the grid:

    F = A (I + du/dvoxel) A^-1,    E = (F^T F - I) / 2,    stretch along n: |F n|,

with A the grid's 3 x 3 affine. Strain along a unit vector n is ``n^T E n`` (Green-Lagrange) or
``|F n| - 1`` (engineering, relative change of length); ``E = (stretch^2 - 1) / 2`` ties the two.
Strains are fractions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid

Array = NDArray[np.float64]
Definition = Literal["engineering", "green_lagrange"]
Derivative = Literal["central", "wall", "spline"]

DEFINITIONS: tuple[Definition, ...] = ("engineering", "green_lagrange")
DERIVATIVES: dict[str, str] = {
    "central": "central differences of order 4, also across the borders of the wall",
    "wall": "differences inside the wall, central of order 4, one-sided at its borders",
    "spline": "exact derivative of the cubic spline through the voxels of every line",
}

Stencil = dict[int, float]  # step -> weight


def _mirrored(stencil: Stencil) -> Stencil:
    return {-step: -weight for step, weight in stencil.items()}


_BESIDE: Stencil = {-1: -1 / 3, 0: -1 / 2, 1: 1.0, 2: -1 / 6}
_EDGE: Stencil = {0: -11 / 6, 1: 3.0, 2: -3 / 2, 3: 1 / 3}
_THIN: Stencil = {0: -3 / 2, 1: 2.0, 2: -1 / 2}
_NARROW: Stencil = {-1: -1 / 2, 1: 1 / 2}
# In order of preference: order 4, 3 next to a border, 2, and one-sided at a border.
_STENCILS: tuple[Stencil, ...] = (
    {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}, _BESIDE, _mirrored(_BESIDE), _NARROW,
    _EDGE, _mirrored(_EDGE), _THIN, _mirrored(_THIN),
)  # fmt: skip
# Where the wall is one or two voxels thin along an axis.
_ACROSS: tuple[Stencil, ...] = (_NARROW, {0: -1.0, 1: 1.0}, {-1: -1.0, 0: 1.0})


def deformation_gradient(
    displacement: NDArray,
    grid: Grid,
    voxels: NDArray[np.int64],
    *,
    derivative: Derivative = "wall",
    wall: NDArray[np.bool_] | None = None,
    across: int | None = None,
) -> Array:
    """Return the deformation gradient F at some voxels of a displacement.

    Args:
        displacement: ``ed_to_frame`` ``(3, D, H, W)``, voxels.
        grid: its lattice.
        voxels: where, indices ``(N, 3)``.
        derivative: ``central`` differences (order 4) reach two voxels beyond the wall: exact
            where the motion goes on smoothly, as in the annulus. ``wall`` takes voxels of
            ``wall`` alone, one-sided (order 3 or 2) at its borders, so that blood, which narrows
            where the wall thickens, is not mixed in; only where the wall is one or two voxels
            thin along an axis differences reach across. ``spline`` is the slope of the cubic
            interpolant along every line of voxels (not-a-knot ends). At the border of the grid
            all differences are one-sided.
        wall: ``(D, H, W)``; needed for ``wall``.
        across: axis across slices whose motion is only known in the plane: F then is that of the
            in-plane motion, and maps the slice's normal to itself.

    Returns:
        ``(N, 3, 3)`` in world axes, no unit.

    Raises:
        ValueError: for a grid that is one voxel thin along an axis other than ``across``, or
            displacements that are not finite where a spline needs them.
    """
    field = np.asarray(displacement)
    if field.shape != (3, *grid.shape):
        raise ValueError(f"displacement must be (3, D, H, W) on {grid.shape}, got {field.shape}")
    slopes = np.zeros((len(voxels), 3, 3))
    for axis in range(3):
        if axis == across:
            continue
        if grid.shape[axis] == 1:
            raise ValueError(
                f"grid must have two voxels or more along axis {axis} to derive motion, got 1; "
                "slices alone need planar=True"
            )
        slopes[:, :, axis] = _slope(field, voxels, axis, derivative, wall)
    to_world = grid.affine[:3, :3]
    if across is not None:
        normal = slice_normal(grid, across)
        to_world = to_world - np.outer(normal, normal @ to_world)
    return np.eye(3) + to_world @ slopes @ grid.inverse[:3, :3]


def slice_normal(grid: Grid, across: int) -> Array:
    """Return the unit normal ``(3,)`` of the planes that hold the two other axes."""
    first, second = (grid.affine[:3, axis] for axis in range(3) if axis != across)
    normal = np.cross(first, second)
    return normal / np.linalg.norm(normal)


def _slope(
    field: NDArray, voxels: NDArray, axis: int, derivative: str, wall: NDArray | None
) -> Array:
    """Slope of all components ``(N, 3)`` along one array axis, per voxel."""
    if derivative == "spline":
        return _spline_slope(field, voxels, axis)
    if derivative not in DERIVATIVES:
        raise ValueError(f"derivative must be one of {list(DERIVATIVES)}, got {derivative!r}")
    if derivative == "wall" and wall is None:
        raise ValueError("wall must be given for derivative 'wall', got None")
    usable = wall if derivative == "wall" else None
    attempts = [(stencil, usable) for stencil in _STENCILS]
    attempts += [(stencil, None) for stencil in _ACROSS]
    slope = np.full((len(voxels), 3), np.nan)
    left = np.arange(len(voxels))
    for stencil, where in attempts:
        fits = _fits(voxels[left], axis, stencil, field.shape[1:], where)
        slope[left[fits]] = _apply(field, voxels[left[fits]], axis, stencil)
        left = left[~fits]
    return slope


def _fits(
    voxels: NDArray, axis: int, stencil: Stencil, shape: tuple[int, ...], usable: NDArray | None
) -> NDArray[np.bool_]:
    """Whether all voxels of a stencil lie in the grid and in ``usable``, ``(N,)``."""
    result = np.ones(len(voxels), dtype=bool)
    for step in stencil:
        there = voxels.copy()
        there[:, axis] += step
        result &= (there[:, axis] >= 0) & (there[:, axis] < shape[axis])
        if usable is not None:
            result[result] = usable[tuple(there[result].T)]
    return result


def _apply(field: NDArray, voxels: NDArray, axis: int, stencil: Stencil) -> Array:
    total = np.zeros((len(voxels), 3))
    for step, weight in stencil.items():
        there = voxels.copy()
        there[:, axis] += step
        total += weight * field[(slice(None), *there.T)].T
    return total


def _spline_slope(field: NDArray, voxels: NDArray, axis: int) -> Array:
    from scipy.interpolate import CubicSpline

    others = [other for other in range(3) if other != axis]
    lines, line = np.unique(voxels[:, others], axis=0, return_inverse=True)
    along = np.moveaxis(field, [axis + 1, 0], [0, -1])[:, lines[:, 0], lines[:, 1]]  # (n, L, 3)
    if not np.isfinite(along).all():
        raise ValueError("displacement must be finite along every line of voxels for a spline")
    position = np.arange(len(along), dtype=np.float64)
    slopes = CubicSpline(position, along.astype(np.float64), axis=0)(position, 1)
    return slopes[voxels[:, axis], line.reshape(-1)]


def green_lagrange(gradient: Array) -> Array:
    """Return ``E = (F^T F - I) / 2`` of gradients ``(..., 3, 3)``."""
    return (np.swapaxes(gradient, -1, -2) @ gradient - np.eye(3)) / 2


def local_strain(gradient: Array, axes: Array) -> Array:
    """Return the Green-Lagrange tensor in local axes, ``R E R^T``.

    Args:
        gradient: F ``(N, 3, 3)``, world axes.
        axes: unit vectors radial, circumferential, longitudinal as rows ``(N, 3, 3)``.

    Returns:
        ``(N, 3, 3)``, e.g. ``[:, 1, 2]`` the circumferential-longitudinal shear.
    """
    return axes @ green_lagrange(gradient) @ np.swapaxes(axes, -1, -2)


def directional_strain(gradient: Array, axes: Array, definition: Definition) -> Array:
    """Return the strain along every local axis.

    Args:
        gradient: F ``(N, 3, 3)``, world axes.
        axes: unit vectors as rows ``(N, C, 3)``.
        definition: ``engineering`` or ``green_lagrange``.

    Returns:
        ``(N, C)``.
    """
    stretch = np.linalg.norm(np.einsum("nij,ncj->nci", gradient, axes), axis=-1)
    return strain_of_stretch(stretch, definition)


def strain_of_stretch(stretch: Array, definition: Definition) -> Array:
    """Return ``stretch - 1`` or ``(stretch^2 - 1) / 2``."""
    if definition == "engineering":
        return stretch - 1.0
    if definition == "green_lagrange":
        return (stretch**2 - 1.0) / 2.0
    raise ValueError(f"definition must be one of {list(DEFINITIONS)}, got {definition!r}")
