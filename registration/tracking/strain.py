"""Strain of tracked motion: of what was seen, and with words where nothing was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, Note
from cardiogen.data import Grid, Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure import Strain, field_strain, lv_frame
from cardiogen.measure.frame import STACK_RATIO, stack_axis
from registration.tracking.inputs import Cine
from registration.tracking.longitudinal import WallShape, wall_shape

# Descent of the mitral ring in healthy hearts: less where the cavity hardly narrows.
_DESCENT_MM = 12.0
_DIRECTIONS = 24
_WHOLE = 5 / 6


def through_plane_doubt(grid: Grid, *, views: int) -> str:
    """Return why motion through the slices of a cine is not measured, or nothing.

    Muscle that moves through a plane shows there only as a slow change of brightness and shape;
    between slices twice as far apart as pixels or more (those of a ``stack_axis``) their smooth
    interpolation explains images as well without any such motion. On the pig (slices of 5 mm,
    pixels of .8 mm) a plausible field has a global longitudinal strain of -0.1 %. The speckled
    muscle of the population says otherwise (-13 % of -13 % at 8 mm), but real muscle is plain, so
    resolution decides: voxels that are nearly cubes show motion alike along all axes.

    Args:
        grid: of the cine.
        views: number of further views.
    """
    if views or (stack_axis(grid) is None and grid.shape[0] > 1):
        return ""
    return (
        f"not measured: motion through slices {grid.spacing[0]:.3g} mm thick is not resolved "
        f"(pixels {max(grid.spacing[1:]):.2g} mm; it takes less than {STACK_RATIO:g} times that, "
        "or a long axis, --view)"
    )


def tracked_strain(
    seen: Tensor,
    cine: Cine,
    sequence: Sequence,
    *,
    planar: bool,
    doubt: str,
    stretch: NDArray[np.float64] | None,
) -> tuple[Strain | None, list[Note]]:
    """Return the strain of what was seen, with inferred motion left out.

    Args:
        seen: ``ed_to_frame`` without inferred motion ``(T, 3, *region)``, voxels.
        cine: what was tracked.
        sequence: its result, with ES.
        planar: motion is known in the slices only.
        doubt: why longitudinal motion is not measured, or nothing.
        stretch: inferred longitudinal stretch of every frame, or None.
    """
    labels, grid = cine.labels[cine.window], cine.region
    try:
        return field_strain(
            seen.cpu().numpy(), labels, grid, phases=sequence.phases, ed=sequence.ed,
            es=sequence.es, cycle_s=sequence.cycle_s, planar=planar,
            leaving=_leaving(cine, stretch) if planar and not cine.one_slice else None,
            unmeasured={"longitudinal": doubt} if doubt and not planar else None,
            orientation=sequence.orientation,
        ), []  # fmt: skip
    except CardiogenError as error:
        # Labels without an open base still have motion and volumes.
        if error.code not in ("L60", "L61"):
            raise
        text = f"no strain: found {error.found}; expected {error.expected}"
        return None, [Note("S83", "tracking", text)]


def _leaving(cine: Cine, stretch: NDArray[np.float64] | None) -> NDArray[np.bool_]:
    labels, grid = cine.labels[cine.window], cine.region
    shape = wall_shape(labels, grid, lv_frame(labels, grid))

    return leaving_wall(labels, shape, stretch, step_mm=grid.spacing[0])


def leaving_wall(
    labels: NDArray, shape: WallShape, stretch: NDArray[np.float64] | None, *, step_mm: float
) -> NDArray[np.bool_]:
    """Return the wall in slices that the base passes on its way down ``(D, H, W)``.

    In every direction from the cavity's axis the wall ends half a slice beyond its last slice:
    a mitral ring is oblique, so that the last ring of a stack is seldom whole. With the apex at
    rest the end at height h goes to ``l h``; where l is not known, it descends as in healthy
    hearts. Slices above it then show other muscle, or none, and a ring that so loses more than a
    sixth (one segment) is left out as a whole, as it is when strain is read clinically. Measured
    on the population, slices 12 mm apart: circumferential strain of the last slice is 14 points
    off, of the others 1 to 4.

    Args:
        labels: structures at ED ``(D, H, W)``.
        shape: of the left ventricle.
        stretch: inferred longitudinal stretch of every frame, or None.
        step_mm: distance of the slices.
    """
    depth, row, column = np.nonzero(labels == Structure.MYO)
    height = np.abs(depth - shape.apex)
    away = np.stack([row, column], axis=1) - shape.centers[depth]
    turn = np.arctan2(away[:, 0], away[:, 1]) / (2 * np.pi) % 1.0
    sector = (turn * _DIRECTIONS).astype(int) % _DIRECTIONS
    ends = np.zeros(_DIRECTIONS)
    np.maximum.at(ends, sector, height + 0.5)
    descent = _DESCENT_MM / step_mm if stretch is None else (1.0 - stretch.min()) * ends
    gone = height > (ends - descent)[sector]
    for level in np.unique(depth[gone]):
        here = depth == level
        whole = len(np.unique(sector[here & ~gone])) >= _WHOLE * _DIRECTIONS
        gone |= here & (not whole)
    found = np.zeros(labels.shape, dtype=bool)
    found[depth[gone], row[gone], column[gone]] = True

    return found
