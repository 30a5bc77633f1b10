"""Where the base of the left ventricle lies in the frames of a cycle.

A heart is posed by its ED frame. Where only another frame is known it can be posed by that frame
alone, whose base has descended by up to 15 mm; the mean descent of every slot mends most of that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.engine.map_estimate import initial_pose
from cardiogen.models.voxel.examples import LabelExamples
from cardiogen.population.pose import Pose

_AVERAGED = 100


def base_height_mm(labels: NDArray[np.uint8], lattice: Grid) -> float:
    """Return z of the base that the labels ``(D, H, W)`` of one frame show, heart frame."""
    return float(initial_pose(labels, lattice, mirrored=False).origin[2])


def mean_base_mm(examples: LabelExamples) -> NDArray[np.float64]:
    """Return the mean height of the base in every slot ``(T,)``, mm; 0 at ED.

    Over the first hundred hearts. A slot that none of them shows takes the mean of the others.
    """
    heights = np.full((min(len(examples), _AVERAGED), len(examples.slots)), np.nan)
    first = 1 if examples.slots.frames != "es" else 0
    for index, row in enumerate(heights):
        labels = examples.labels(index)
        for slot in np.flatnonzero(examples.examples[index].present):
            if slot >= first:
                row[slot] = base_height_mm(labels[slot], examples.lattice)
    seen = ~np.isnan(heights)
    means = np.nansum(heights, axis=0) / np.maximum(seen.sum(axis=0), 1)
    unseen = ~seen.any(axis=0)
    if unseen.any() and seen.any():
        means[unseen] = means[~unseen].mean()
    means[:first] = 0.0
    # As a bundle keeps it.
    return means.astype(np.float32).astype(np.float64)


def lifted(pose: Pose, base_mm: float) -> Pose:
    """Return the pose at ED of a heart whose base, at ``base_mm``, gave ``pose``."""
    return Pose(pose.axes, pose.origin - pose.axes[:, 2] * base_mm)
