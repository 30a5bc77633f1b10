"""Motion through the slices, inferred where it cannot be seen: the wall keeps its volume.

Slices far apart show the heart in their planes only. Muscle is all but incompressible, so what the
wall of a slice gains in area it loses in height. With the apex at rest and one longitudinal
stretch l per frame, muscle at height z goes to ``l z``, and areas A of the wall obey

    l A_t(l z) = A_ED(z),

where A_t at fixed slices is what in-plane tracking sees. l is the least-squares solution over
slices between the apex and the base, whose rings are complete in all frames.

Muscle that moves along the wall follows its shape: with the center c and the radius rho of the
wall at ED, ``(z, x)`` goes to ``(l z, c(l z) + rho(l z) / rho(z) (x - c(z)))``. This is a model,
not a measurement: outside the left ventricle it says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid, Structure
from cardiogen.measure import LvFrame
from cardiogen.transforms.temporal import fourier_basis

Array = NDArray[np.float64]

_LOW, _HIGH = 0.2, 0.72
_TRIALS = np.linspace(0.7, 1.15, 451)
_LEAST_RADIUS = 0.5
_FEWEST = 2


@dataclass(frozen=True, eq=False)
class WallShape:
    """The left ventricle at ED, slice by slice.

    Attributes:
        apex: position of the wall's apical end along axis 0, voxels.
        centers: in-plane center of the cavity's axis ``(D, 2)``, voxels.
        radii: radius of a disk as large as cavity and wall ``(D,)``, voxels, bounded from below.
        areas: of the wall ``(D,)``, voxels.
        usable: slices that tell of the longitudinal stretch ``(D,)``.
    """

    apex: float
    centers: Array
    radii: Array
    areas: Array
    usable: NDArray[np.bool_]


def wall_shape(labels: NDArray, grid: Grid, frame: LvFrame) -> WallShape:
    """Return the shape of the left ventricle in labels ``(D, H, W)`` of slices along axis 0."""
    depth = len(labels)
    wall = (labels == Structure.MYO).sum(axis=(1, 2)).astype(np.float64)
    disk = wall + (labels == Structure.LV).sum(axis=(1, 2))
    levels = np.flatnonzero(disk > 0)
    upward = (grid.affine[:3, 0] @ frame.axis) > 0
    apex = levels[0] - 0.5 if upward else levels[-1] + 0.5
    line = frame.center + np.outer(_levels_mm(grid, frame, depth), frame.axis + frame.drift)
    radii = np.sqrt(disk / np.pi)
    radii = np.interp(np.arange(depth), levels, radii[levels])
    fraction = frame.fraction(line)

    return WallShape(
        apex=float(apex),
        centers=grid.to_voxel(line)[:, 1:],
        radii=np.maximum(radii, _LEAST_RADIUS * radii.max()),
        areas=wall,
        usable=(fraction > _LOW) & (fraction < _HIGH) & (wall > 0),
    )


def _levels_mm(grid: Grid, frame: LvFrame, depth: int) -> Array:
    middle = [(n - 1) / 2 for n in grid.shape[1:]]
    slices = np.array([[d, *middle] for d in range(depth)])

    return frame.level(grid.to_world(slices))


def longitudinal_stretch(
    in_plane: Tensor, labels: NDArray, shape: WallShape, phases: Tensor, *, harmonics: int
) -> Array | None:
    """Return l of every frame ``(T,)``, 1 at ED, or None if too few slices tell.

    Args:
        in_plane: ``ed_to_frame`` in the planes ``(T, 3, D, H, W)``, voxels.
        labels: structures at ED ``(D, H, W)``.
        shape: of the left ventricle.
        phases: fractions of the cycle since ED ``(T,)``; l follows a Fourier series over them.
        harmonics: of that series.
    """
    if shape.usable.sum() < _FEWEST:
        return None
    wall = torch.from_numpy(labels == Structure.MYO).to(in_plane)
    ratio = ops.jacobian_determinant(in_plane)[:, 0]
    areas = (ratio * wall).sum(dim=(2, 3)).double().cpu().numpy()
    here = np.flatnonzero(shape.usable)
    # The ED slice from which muscle has come, for every trial, and its area.
    source = shape.apex + (here - shape.apex) / _TRIALS[:, None]
    before = np.interp(source, np.arange(len(shape.areas)), shape.areas)
    misfit = ((_TRIALS[:, None] * areas[:, None, here] - before) ** 2).sum(axis=-1)
    found = _TRIALS[misfit.argmin(axis=1)]
    count = max(1, min(harmonics, (len(phases) - 1) // 2))
    basis = fourier_basis(phases, count).numpy()

    return 1.0 + basis @ np.linalg.lstsq(basis, found - 1.0, rcond=None)[0]


def sliding(stretch: Array, shape: WallShape, grid: Grid, *, device: torch.device) -> Tensor:
    """Return the motion along the wall of every stretch ``(T,)`` as ``(T, 3, *S)``, voxels.

    Exactly 0 for a stretch of 1. The motion of ``1 / l`` is the inverse of that of l.
    """
    depth = np.arange(grid.shape[0], dtype=np.float64)
    after = shape.apex + np.asarray(stretch)[:, None] * (depth - shape.apex)
    scale = np.interp(after, depth, shape.radii) / shape.radii
    shift = _along(after, depth, shape.centers)
    field = torch.zeros(len(after), 3, *grid.shape, device=device)
    field[:, 0] = _tensor(after - depth, device)[:, :, None, None]
    for axis in (0, 1):
        view = [1, 1, 1, 1]
        view[2 + axis] = -1
        place = torch.arange(grid.shape[1 + axis], device=device).float().view(view)
        center = _tensor(shape.centers[:, axis], device).view(1, -1, 1, 1)
        moved = _tensor(shift[..., axis], device)[:, :, None, None]
        grown = _tensor(scale - 1, device)[:, :, None, None]
        field[:, 1 + axis] = moved - center + grown * (place - center)

    return field


def _along(after: Array, depth: Array, centers: Array) -> Array:
    """Return the centers at positions ``(T, D)`` along axis 0, also beyond its ends."""
    slope = (centers[-1] - centers[0]) / max(len(depth) - 1, 1)

    return centers[0] + after[..., None] * slope


def _tensor(values: Array, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float().to(device)
