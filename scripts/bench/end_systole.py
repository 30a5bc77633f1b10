"""How a predicted label map of end systole compares with the true one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from cardiogen.measure.overlap import dice, surface_distances
from cardiogen.measure.volumes import STRUCTURES

Labels = NDArray[np.uint8]


def overlap_row(
    guess: Labels, truth: Labels, spacing: Sequence[float], *, kind: str = ""
) -> dict[str, float]:
    """Return Dice and ASSD (mm) of the structures, and of both ventricles as one (``BiV``).

    ``ASSD BiV voxels`` counts boundary voxels instead of areas, as MedPy and MONAI do: with thick
    slices it is smaller, and published numbers are of that sort.

    Args:
        guess: structures ``(D, H, W)``.
        truth: structures ``(D, H, W)``.
        spacing: mm along (d, h, w).
        kind: added to the names.
    """
    row = {}
    for s in STRUCTURES:
        row[f"Dice {s.name}{kind}"] = dice(guess == s, truth == s)
        row[f"ASSD {s.name}{kind}"] = _assd(guess == s, truth == s, spacing)
    row[f"ASSD BiV{kind}"] = _assd(guess > 0, truth > 0, spacing)
    row[f"ASSD BiV voxels{kind}"] = boundary_voxel_assd(guess > 0, truth > 0, spacing)

    return row


def boundary_voxel_assd(a: NDArray, b: NDArray, spacing: Sequence[float]) -> float:
    """Return the mean distance (mm) of all boundary voxels of two masks to those of the other."""
    edges = [mask & ~binary_erosion(mask) for mask in (a, b)]
    if not all(edge.any() for edge in edges):
        return float("nan")
    to_b, to_a = (
        distance_transform_edt(~other, sampling=spacing)[edge]
        for edge, other in (edges, edges[::-1])
    )

    return float(np.concatenate([to_b, to_a]).mean())


def _assd(a: NDArray, b: NDArray, spacing: Sequence[float]) -> float:
    return surface_distances(a, b, spacing=spacing).assd_mm
