"""The one frame that the encoder reads, moved to its own base.

A frame other than ED can only be posed by itself (``models.voxel.base``), so an encoder of any
frame learns from frames that are moved to their own base.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.models.voxel import base_height_mm


def at_own_base(labels: NDArray[np.uint8], lattice: Grid) -> NDArray[np.uint8]:
    """Move a frame ``(D, H, W)`` along the long axis, by whole voxels, until its base is at 0."""
    # D runs to the apex: a base at -12 mm lies 12 mm down the array.
    step = round(base_height_mm(labels, lattice) / lattice.spacing[0])
    moved = np.zeros_like(labels)
    if step <= 0:
        moved[: len(labels) + step] = labels[-step:]
    else:
        moved[step:] = labels[: len(labels) - step]
    return moved
