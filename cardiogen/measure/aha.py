"""AHA segments of the left ventricular wall from labels, 17 or 16 (Cerqueira et al. 2002).

Convention: basal, mid and apical thirds of the cavity's length, the cap 17 below the cavity. The
septum lies between the two insertions of the right ventricle and is divided in halves, the free
wall in four equal angles; the apical third has four quarters about the middle of the septum.
Anterior is where ``y = z x x`` points, with z from apex to base and x from the left to the right
ventricle; that holds in a world that does not mirror the heart (checked on ``human_cine``). No
header tells whether its world does, as all of ACDC's do: taken wrongly, anterior and inferior
change places in segments 1-6, 7-12 and 13-16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Orientation
from cardiogen.measure.frame import LvFrame, lv_frame, require

SEGMENT_NAMES = (
    "basal anterior", "basal anteroseptal", "basal inferoseptal", "basal inferior",
    "basal inferolateral", "basal anterolateral", "mid anterior", "mid anteroseptal",
    "mid inferoseptal", "mid inferior", "mid inferolateral", "mid anterolateral",
    "apical anterior", "apical septal", "apical inferior", "apical lateral", "apex",
)  # fmt: skip

# Free wall from the anterior insertion to the inferior one; apical quarters from the septum on.
_FREE_WALL = np.array([1, 6, 5, 4])
_APICAL = np.array([14, 13, 16, 15])
_BIN_MM = 4.0


@dataclass(frozen=True, eq=False)
class Insertions:
    """Where the right ventricle is attached to the left one.

    Angles are in the short-axis plane from ``septal`` towards ``anterior``, rad; ``inferior`` is
    below ``anterior`` by the width of the septum.

    Attributes:
        septal: unit vector ``(3,)`` from the left ventricle to the right one.
        anterior: unit vector ``(3,)`` in the plane, perpendicular to it.
        basal: (inferior, anterior) angle in the basal third.
        mid: (inferior, anterior) angle in the middle third.
        levels: level of every plane with contact, mm ``(K,)``.
        angles: (inferior, anterior) angle in every such plane ``(K, 2)``.
    """

    septal: NDArray[np.float64]
    anterior: NDArray[np.float64]
    basal: tuple[float, float]
    mid: tuple[float, float]
    levels: NDArray[np.float64]
    angles: NDArray[np.float64]

    def angle(self, radial: ArrayLike) -> NDArray[np.float64]:
        """Return the angle of in-plane offsets ``(..., 3)``, rad in (-pi, pi]."""
        radial = np.asarray(radial)
        return np.arctan2(radial @ self.anterior, radial @ self.septal)


def rv_insertions(
    labels: ArrayLike, grid: Grid, frame: LvFrame, *, orientation: Orientation = "trusted"
) -> Insertions:
    """Find the insertions of the right ventricle: both ends of the arc where RV touches MYO.

    In every short-axis plane (slice of a stack; 4 mm slab of a volume) these are the two places
    where RV, MYO and background meet. The ends are those of the largest gap of contact, and the
    median over the planes of a third is taken, so that a stray voxel moves nothing.

    Args:
        labels: structures ``(D, H, W)``.
        grid: their lattice.
        frame: frame of the left ventricle.
        orientation: ``mirrored`` if the world mirrors the heart; then anterior is ``-z x x``.
            ``assumed`` takes the header's word, like ``trusted``: the caller says that anterior
            and inferior rest on it (``measure_path`` with note L63).

    Raises:
        CardiogenError: L62 if there is no RV, or none that touches MYO.
    """
    contact = _contact_points(np.asarray(labels), grid, frame)
    if len(contact) == 0:
        raise CardiogenError(
            "L62", "labels", found="no right ventricle in contact with the myocardium",
            expected="RV next to MYO: its insertions tell septum from free wall",
            remedy="labels with the right ventricle, or measures without AHA segments",
        )  # fmt: skip
    radial = frame.radial(contact)
    septal = (radial / np.linalg.norm(radial, axis=1, keepdims=True)).mean(axis=0)
    septal = septal - frame.axis * (septal @ frame.axis)
    septal = septal / np.linalg.norm(septal)
    anterior = np.cross(frame.axis, septal) * (-1.0 if orientation == "mirrored" else 1.0)
    angle = np.arctan2(radial @ anterior, radial @ septal)
    levels, angles = _arcs_by_plane(frame.level(contact), angle, frame)
    third = np.clip(((levels - frame.apex) / (frame.base - frame.apex) * 3).astype(int), 0, 2)
    everywhere = _median_arc(angles)
    basal, mid = (_median_arc(angles[third == k]) if (third == k).any() else None for k in (2, 1))
    basal, mid = basal or mid or everywhere, mid or basal or everywhere
    return Insertions(septal, anterior, basal, mid, levels, angles)


def _contact_points(labels: NDArray, grid: Grid, frame: LvFrame) -> NDArray[np.float64]:
    """World centers ``(N, 3)`` of the faces between MYO and RV that do not lie in the plane."""
    found = [np.empty((0, 3))]
    for axis in range(3):
        column = grid.affine[:3, axis]
        if abs(column @ frame.axis) > 0.7 * np.linalg.norm(column):
            continue  # steps between slices say nothing about the arc in a slice
        first, second = labels.swapaxes(0, axis)[:-1], labels.swapaxes(0, axis)[1:]
        meets = (first == Structure.MYO) & (second == Structure.RV)
        meets |= (first == Structure.RV) & (second == Structure.MYO)
        where = np.argwhere(meets.swapaxes(0, axis)).astype(np.float64)
        where[:, axis] += 0.5
        found.append(grid.to_world(where))
    return np.concatenate(found)


def _arcs_by_plane(
    level: NDArray, angle: NDArray, frame: LvFrame
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean level ``(K,)`` and arc ends ``(K, 2)`` of the contact in every plane."""
    height = frame.step if frame.stack_axis is not None else max(_BIN_MM, frame.step)
    # In a stack, levels are multiples of the step from the first slice: round, do not cut.
    plane = np.rint((level - frame.apex) / height - 0.5).astype(int)
    levels, arcs = [], []
    for index in np.unique(plane):
        inside = plane == index
        levels.append(level[inside].mean())
        arcs.append(_arc(angle[inside]))
    return np.array(levels), np.array(arcs)


def _arc(angle: NDArray) -> tuple[float, float]:
    """First and last angle of the arc that holds all angles and leaves the largest gap out."""
    angle = np.sort(angle)
    gaps = np.diff(angle, append=angle[0] + 2 * np.pi)
    last = int(np.argmax(gaps))
    first = (last + 1) % len(angle)
    start, end = float(angle[first]), float(angle[last])
    if start > end:
        # The arc crosses +-pi: count both ends from the turn that keeps its middle near 0.
        start, end = (start - 2 * np.pi, end) if start + end > 0 else (start, end + 2 * np.pi)
    return start, end


def _median_arc(arcs: NDArray) -> tuple[float, float]:
    first, last = np.median(arcs, axis=0)
    return float(first), float(last)


def aha_segments(
    labels: ArrayLike,
    grid: Grid,
    *,
    orientation: Orientation = "trusted",
    segments: Literal[16, 17] = 17,
) -> NDArray[np.uint8]:
    """Return the AHA segment of every voxel of MYO.

    Args:
        labels: structures ``(D, H, W)`` of one frame.
        grid: their lattice.
        orientation: whether the world mirrors the heart (see ``rv_insertions``).
        segments: 17, or 16: the same without the cap, whose voxels then have no segment.

    Returns:
        ``(D, H, W)`` uint8: 1..17 in MYO, 0 elsewhere.

    Raises:
        CardiogenError: L60 without LV or MYO, L61 without an open base, L62 without an RV that
            touches MYO: there is no other way to tell septum from free wall, and none is guessed.
    """
    labels = np.asarray(labels)
    if segments not in (16, 17):
        raise ValueError(f"segments must be 16 or 17, got {segments}")
    require(labels, Structure.LV, Structure.MYO)
    frame = lv_frame(labels, grid)
    insertions = rv_insertions(labels, grid, frame, orientation=orientation)
    wall = np.argwhere(labels == Structure.MYO)
    result = np.zeros(labels.shape, dtype=np.uint8)
    result[tuple(wall.T)] = segment_of_points(grid.to_world(wall), frame, insertions)
    if segments == 16:
        result[result == 17] = 0
    return result


def segment_of_points(
    points: ArrayLike, frame: LvFrame, insertions: Insertions
) -> NDArray[np.uint8]:
    """Return the AHA segment 1..17 of world points ``(N, 3)`` of the wall."""
    points = np.asarray(points, dtype=np.float64)
    fraction = frame.fraction(points)
    angle = insertions.angle(frame.radial(points))
    basal = _ring(angle, *insertions.basal)
    mid = _ring(angle, *insertions.mid) + 6
    quarter = np.mod(angle - sum(insertions.mid) / 2 + np.pi / 4, 2 * np.pi) // (np.pi / 2)
    apical = _APICAL[np.minimum(quarter, 3).astype(int)]
    levels = [fraction < 0, fraction < 1 / 3, fraction < 2 / 3]
    return np.select(levels, [17, apical, mid], basal).astype(np.uint8)


def _ring(angle: NDArray, inferior: float, anterior: float) -> NDArray[np.int64]:
    """Segment 1..6 of angles in a ring whose septum reaches from ``inferior`` to ``anterior``."""
    along = np.mod(angle - inferior, 2 * np.pi)
    septum = anterior - inferior
    free = (along - septum) / (2 * np.pi - septum) * 4
    outside = _FREE_WALL[np.clip(free.astype(int), 0, 3)]
    return np.where(along < septum / 2, 3, np.where(along < septum, 2, outside))


def segment_means(values: ArrayLike, segments: ArrayLike, *, count: int = 17) -> NDArray:
    """Return the mean of ``values`` in every segment 1..count, NaN where there is none.

    NaN values are left out. Both arrays have one shape.
    """
    values, segments = np.asarray(values, dtype=np.float64), np.asarray(segments)
    if values.shape != segments.shape:
        raise ValueError(f"values must have shape {segments.shape}, got {values.shape}")
    used = np.isfinite(values) & (segments > 0) & (segments <= count)
    number = np.bincount(segments[used], minlength=count + 1)[1:]
    total = np.bincount(segments[used], weights=values[used], minlength=count + 1)[1:]
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def segment_volumes(segments: ArrayLike, grid: Grid, *, count: int = 17) -> NDArray[np.float64]:
    """Return the wall volume of every segment 1..count, mL ``(count,)``."""
    number = np.bincount(np.asarray(segments).reshape(-1), minlength=count + 1)[1 : count + 1]
    return number * grid.voxel_volume_ml
