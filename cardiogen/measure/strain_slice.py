"""Strain of a cine of one slice: a frame without apex and base, and sectors without a height.

In the plane, radial and circumferential strain are defined in one slice as in many. What one slice
cannot tell: whether it lies in the basal, the middle (six segments each) or the apical third
(four), and which of its sides faces the apex. The latter decides which way round the heart
anterior lies, so it is taken from the patient's pose in the header: from apex to base a heart
points to the right, backwards and up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Orientation
from cardiogen.measure.aha import SEGMENT_NAMES, rv_insertions, segment_of_points
from cardiogen.measure.frame import LvFrame, require, stack_axis
from cardiogen.measure.strain_tensor import slice_normal

SECTOR_NAMES = tuple(name.replace("basal ", "") + " sector" for name in SEGMENT_NAMES[:6])
SECTOR_REASON = (
    "sector of one slice: its AHA segment (six basal or mid ones, four apical ones) cannot be "
    "known from one slice"
)
NO_TWIST = "one slice: no apex to turn against the base"
_TO_BASE = np.array([1.0, -1.0, 1.0]) / np.sqrt(3.0)
# Planes whose normal is nearly perpendicular to that direction are not short-axis planes of a
# heart in its usual place.
_LEAST_POSE = 0.3
_UNKNOWN = "no sectors: one slice, and its header does not tell the side of the apex"


def single_slice_axis(labels: NDArray, grid: Grid) -> int | None:
    """Return the axis across the slices if one alone shows the ventricle, else None."""
    across = grid.shape.index(1) if 1 in grid.shape else stack_axis(grid)
    if across is None:
        return None
    others = tuple(axis for axis in range(3) if axis != across)
    heart = (labels == Structure.LV) | (labels == Structure.MYO)
    return across if heart.any(axis=others).sum() == 1 else None


def slice_frame(labels: NDArray, grid: Grid, across: int) -> LvFrame:
    """Return a frame whose axis is the slice's normal and whose height is the slice's.

    Raises:
        CardiogenError: L60 if LV or MYO is absent.
    """
    require(labels, Structure.LV, Structure.MYO)
    normal = slice_normal(grid, across)
    step = float(abs(grid.affine[:3, across] @ normal))
    return LvFrame(
        center=grid.to_world(np.argwhere(labels == Structure.LV)).mean(axis=0),
        axis=normal * (1.0 if normal @ _TO_BASE >= 0 else -1.0), drift=np.zeros(3),
        apex=-step / 2, base=step / 2, step=step, stack_axis=across,
    )  # fmt: skip


def slice_sectors(
    points: NDArray, labels: NDArray, grid: Grid, frame: LvFrame, orientation: Orientation
) -> tuple[NDArray[np.uint8], str]:
    """Return the sector 1..6 of every point of the wall, or 0 for all and why.

    Raises:
        CardiogenError: L62 without a right ventricle that touches the wall.
    """
    if orientation == "mirrored" or frame.axis @ _TO_BASE < _LEAST_POSE:
        return np.zeros(len(points), dtype=np.uint8), _UNKNOWN
    insertions = rv_insertions(labels, grid, frame, orientation=orientation)
    # The slice is its own middle third: segments 7 to 12 are the six sectors.
    return (segment_of_points(points, frame, insertions) - 6).astype(np.uint8), ""
