"""Table of the AHA segments of one frame: wall volume and thickness, ready to be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from numpy.typing import ArrayLike

from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Orientation
from cardiogen.measure.aha import (
    SEGMENT_NAMES,
    aha_segments,
    segment_means,
    segment_volumes,
)
from cardiogen.measure.thickness import wall_thickness

if TYPE_CHECKING:
    import pandas as pd


def segment_table(
    labels: ArrayLike,
    grid: Grid,
    *,
    orientation: Orientation = "trusted",
    segments: Literal[16, 17] = 17,
) -> pd.DataFrame:
    """Return volume and mean thickness of every AHA segment.

    Args:
        labels: structures ``(D, H, W)`` of one frame.
        grid: their lattice.
        orientation: ``mirrored`` if the world mirrors the heart: anterior and inferior change
            places, and with them all segments but septum, lateral wall and cap.
        segments: 16 or 17.

    Returns:
        One row per segment: ``segment``, ``name``, ``volume (mL)``, ``thickness (mm)``; NaN
        thickness where a stack shows nothing of a segment.

    Raises:
        CardiogenError: as ``aha_segments``.
    """
    import numpy as np
    import pandas as pd

    labels = np.asarray(labels)
    map_ = aha_segments(labels, grid, orientation=orientation, segments=segments)
    thickness = wall_thickness(labels, grid)
    return pd.DataFrame(
        {
            "segment": np.arange(1, segments + 1),
            "name": SEGMENT_NAMES[:segments],
            "volume (mL)": segment_volumes(map_, grid, count=segments),
            "thickness (mm)": segment_means(thickness, map_, count=segments),
        }
    )
