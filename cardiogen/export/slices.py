"""Slices of a label map along any world plane, in color, with letters for their directions.

Labels are sampled as one-hot with linear interpolation, as everywhere; edges come out smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.export.axes import HeartAxes
from cardiogen.export.palette import structure_colors

# Shares to the power of 8 turn edges, blurred over one voxel, into edges of about a pixel.
_SQUARINGS = 3
# Hides the stairs of voxels that a slice cuts at a slant; walls are five times thicker.
_SMOOTHING_MM = 1.1


@dataclass(frozen=True, eq=False)
class Plane:
    """A square window in the world: center (mm), and unit vectors to the image's right and up."""

    center: NDArray[np.float64]
    right: NDArray[np.float64]
    up: NDArray[np.float64]

    def points(self, *, half_width_mm: float, pixels: int) -> NDArray[np.float64]:
        """Return the world positions of pixel centers ``(pixels, pixels, 3)``, top row first."""
        step = 2.0 * half_width_mm / pixels
        along = (np.arange(pixels) + 0.5) * step - half_width_mm
        return (
            self.center + along[None, :, None] * self.right - along[:, None, None] * self.up
        )  # fmt: skip


def short_axis_plane(axes: HeartAxes, fraction: float) -> Plane:
    """Return the plane across the LV at a fraction of its length, seen from the apex (RV left)."""
    aside = (axes.middle - axes.center) @ axes.frame.T
    center = axes.level(fraction) + aside[0] * axes.rightward + aside[1] * axes.anterior
    return Plane(center, -axes.rightward, axes.anterior)


def four_chamber_plane(axes: HeartAxes) -> Plane:
    """Return the plane through the long axis and the RV, apex up and RV left."""
    aside = (axes.middle - axes.center) @ axes.frame.T
    center = axes.center + aside[0] * axes.rightward + aside[2] * axes.long_axis
    return Plane(center, -axes.rightward, -axes.long_axis)


def direction_letters(direction: NDArray[np.float64]) -> str:
    """Return anatomical letters of a world RAS direction, strongest first (``"A"``, ``"SL"``)."""
    letters = [("L", "R"), ("P", "A"), ("I", "S")]
    order = np.argsort(-np.abs(direction), kind="stable")
    strong = [axis for axis in order if abs(direction[axis]) >= 0.45][:2]
    return "".join(letters[axis][int(direction[axis] > 0)] for axis in strong)


def sample_structures(
    labels: NDArray[np.integer], grid: Grid, points: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the share of every structure ``(4, ...)`` at world points ``(..., 3)``.

    Shares add up to 1; outside the grid all is background.
    """
    from scipy.ndimage import map_coordinates

    box = _bounding_box(labels)
    coords = np.moveaxis(grid.to_voxel(points) - [s.start for s in box], -1, 0)
    cropped = labels[box]
    shares = np.zeros((len(Structure), *points.shape[:-1]), dtype=np.float32)
    for structure in list(Structure)[1:]:
        one_hot = (cropped == structure).astype(np.uint8)
        map_coordinates(one_hot, coords, output=shares[structure], order=1, mode="constant")
    shares[Structure.BACKGROUND] = np.maximum(1.0 - shares[1:].sum(axis=0), 0.0)
    return shares


def _bounding_box(labels: NDArray[np.integer]) -> tuple[slice, slice, slice]:
    """Return the box of the structures and one voxel around it: the rest only costs time."""
    box = []
    for axis, size in enumerate(labels.shape):
        other = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(labels.any(axis=other))
        first, last = (filled[0], filled[-1]) if len(filled) else (0, 0)
        box.append(slice(max(int(first) - 1, 0), min(int(last) + 2, size)))
    return tuple(box)


def slice_pictures(
    labels: NDArray[np.integer],
    grid: Grid,
    planes: list[Plane],
    *,
    half_width_mm: float,
    pixels: int,
) -> NDArray[np.float32]:
    """Return colored slices ``(len(planes), pixels, pixels, 3)`` sRGB of one label map.

    Args:
        labels: structures ``(D, H, W)``.
        grid: their lattice.
        planes: windows to look through.
        half_width_mm: half the side of every window.
        pixels: side of every picture in pixels.
    """
    from scipy.ndimage import gaussian_filter1d

    points = np.stack([p.points(half_width_mm=half_width_mm, pixels=pixels) for p in planes])
    weights = sample_structures(labels, grid, points)
    sigma = _SMOOTHING_MM * pixels / (2.0 * half_width_mm)
    for axis in (2, 3):
        weights = gaussian_filter1d(weights, sigma, axis=axis, truncate=2.5, mode="nearest")
    for _ in range(_SQUARINGS):
        weights = np.square(weights)
    weights /= weights.sum(axis=0)
    return np.tensordot(weights, structure_colors().astype(np.float32), axes=(0, 0))
