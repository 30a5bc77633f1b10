"""Strain of the left ventricle from the motion of an image: ED to every frame on one grid.

What enters: every voxel of the wall at ED (Lagrangian, directions fixed there), each with the
same weight. What that means is stored in the result, for strains of other definitions, masks or
directions differ by more than hearts do. ``mesh_strain`` measures moving meshes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Orientation
from cardiogen.measure.aha import SEGMENT_NAMES, rv_insertions, segment_of_points
from cardiogen.measure.frame import LvFrame, lv_frame
from cardiogen.measure.strain_axes import (
    DIRECTIONS,
    Directions,
    cylinder_axes,
    planar_axes,
    wall_axes,
)
from cardiogen.measure.strain_curves import (
    NORMAL_COMPONENTS,
    Strain,
    check_cycle_arguments,
    orientation_words,
)
from cardiogen.measure.strain_slice import (
    NO_TWIST,
    SECTOR_NAMES,
    SECTOR_REASON,
    single_slice_axis,
    slice_frame,
    slice_sectors,
)
from cardiogen.measure.strain_tensor import (
    DERIVATIVES,
    Definition,
    Derivative,
    deformation_gradient,
    directional_strain,
)
from cardiogen.measure.strain_twist import TorsionUnit, Twist, lv_twist, no_twist

Array = NDArray[np.float64]

FEWEST_VOXELS = 5
PLANAR_REASON = "motion known in the plane only (2D): no longitudinal strain"
LEAVING_REASON = "its muscle leaves the imaged planes"
_MOST_LEAVING = 0.5


def field_strain(
    ed_to_frame: ArrayLike,
    labels: ArrayLike,
    grid: Grid,
    *,
    phases: ArrayLike,
    ed: int = 0,
    es: int | None = None,
    cycle_s: float | None = None,
    definition: Definition = "engineering",
    derivative: Derivative = "wall",
    directions: Directions = "wall",
    planar: bool = False,
    mask: ArrayLike | None = None,
    leaving: ArrayLike | None = None,
    unmeasured: Mapping[str, str] | None = None,
    segments: Literal[16, 17] = 17,
    orientation: Orientation = "trusted",
    torsion: TorsionUnit = "deg/cm",
) -> Strain:
    """Return radial, circumferential and longitudinal strain of a tracked left ventricle.

    Strain is computed at every voxel of the wall from the deformation gradient there
    (``deformation_gradient``) and averaged over segments and over the whole wall.

    Args:
        ed_to_frame: displacements ``(T, 3, D, H, W)`` from ED to every frame, voxels.
        labels: structures at ED ``(D, H, W)``; they give wall, frame and segments.
        grid: lattice of both.
        phases: fraction of the cycle of every frame ``(T,)``, increasing but for the return to 0
            at an ED that is not the first frame.
        ed: frame of end diastole.
        es: frame of end systole, or None.
        cycle_s: duration of the cycle in seconds; without it there are no rates.
        definition: ``engineering`` (relative change of length, what feature tracking reports) or
            ``green_lagrange`` (what tagging and tensor analysis report; larger where the wall
            lengthens, smaller in size where it shortens).
        derivative: ``central``, ``wall`` or ``spline``, see ``deformation_gradient``.
        directions: ``cylindrical`` or ``wall``, see ``strain_axes``.
        planar: 2D mode for slices whose motion is known in the plane only: the through-plane
            component is ignored, no derivative is taken across slices, directions lie in the
            slices, and longitudinal strain is NaN. Labels in one slice alone have global strain
            and six sectors (``strain_slice``).
        mask: voxels to average over ``(D, H, W)`` bool in place of MYO at ED.
        leaving: voxels of muscle that does not stay in the imaged planes ``(D, H, W)`` bool: what
            is seen there is other muscle, so they are left out. A segment most of whose muscle
            leaves is NaN with a reason.
        unmeasured: component -> why the motion does not tell of it; NaN with that reason.
        segments: 17, or 16: the cap below the cavity is then left out of the mask.
        orientation: ``mirrored`` if the world mirrors the heart.
        torsion: ``deg/cm`` or ``rad``.

    Returns:
        Curves with what they mean. A segment with fewer than 5 voxels of known strain is NaN and
        has a reason; without a right ventricle in the labels all segments are.

    Raises:
        CardiogenError: L60 without LV or MYO, L61 without an open base.
    """
    field, labels = np.asarray(ed_to_frame), np.asarray(labels)
    if field.ndim != 5 or field.shape[1:] != (3, *grid.shape) or labels.shape != grid.shape:
        raise ValueError(
            f"ed_to_frame must be (T, 3, D, H, W) and labels (D, H, W) on grid {grid.shape}, "
            f"got {field.shape} and {labels.shape}"
        )
    if segments not in (16, 17):
        raise ValueError(f"segments must be 16 or 17, got {segments}")
    phases = check_cycle_arguments(phases, len(field), ed, es)
    alone = single_slice_axis(labels, grid) if planar else None
    frame = lv_frame(labels, grid) if alone is None else slice_frame(labels, grid, alone)
    wall, mask_name = _wall(labels, grid, frame, mask, segments)
    voxels = np.argwhere(wall)
    points = grid.to_world(voxels)
    across = _slice_axis(grid, frame) if planar else None
    gone = np.zeros(len(voxels), dtype=bool)
    if leaving is not None:
        gone = np.asarray(leaving, dtype=bool)[tuple(voxels.T)]
        mask_name += f"; {int(gone.sum())} that leave the imaged planes are left out"
    hidden = dict(unmeasured or {}) | ({"longitudinal": PLANAR_REASON} if planar else {})
    muscle = wall | (labels == Structure.MYO)
    axes, reference = _axes(points, frame, labels, grid, directions, across)
    strain = np.empty((len(field), len(voxels), 3))
    for displacement, result in zip(field, strain, strict=True):
        gradient = deformation_gradient(
            displacement, grid, voxels, derivative=derivative, wall=muscle, across=across
        )
        result[:] = directional_strain(gradient, axes, definition)
    for component in hidden:
        strain[..., NORMAL_COMPONENTS.index(component)] = np.nan
    strain[:, gone] = np.nan
    segment, no_segment = _segments(points, labels, grid, frame, orientation, alone)
    whole, by_segment, counts, reasons = _averages(
        strain, segment, segments if alone is None else len(SECTOR_NAMES), hidden, no_segment, gone
    )
    if alone is not None:
        reasons = {(c, s): SECTOR_REASON for c in NORMAL_COMPONENTS for s in range(1, 7)} | reasons
    steps = np.moveaxis(field[(slice(None), slice(None), *voxels.T)], 1, 2)  # (T, N, 3)
    moved = points + steps @ grid.affine[:3, :3].T
    twist, more = _twist(points[~gone], moved[:, ~gone], frame, orientation, torsion, alone)
    reasons |= more
    return Strain(
        components=NORMAL_COMPONENTS, whole=whole, segments=by_segment, phases=phases, ed=ed,
        es=es, cycle_s=cycle_s, twist=twist, definition=definition,
        method=f"displacement field, {DERIVATIVES[derivative]}", mask=mask_name,
        reference=f"Lagrangian, ED (frame {ed}); {reference}; {orientation_words(orientation)}",
        reasons=reasons, counts=counts, voxels=voxels, voxel_strain=strain.astype(np.float32),
        names=SEGMENT_NAMES if alone is None else SECTOR_NAMES,
        level="segment" if alone is None else "sector",
    )  # fmt: skip


def _twist(
    points: Array,
    moved: Array,
    frame: LvFrame,
    orientation: Orientation,
    torsion: TorsionUnit,
    alone: int | None,
) -> tuple[Twist, dict[tuple[str, int], str]]:
    """Twist, and why there is none."""
    if alone is not None:
        return no_twist(len(moved), torsion), dict.fromkeys([("twist", 0), ("torsion", 0)],
                                                            NO_TWIST)  # fmt: skip
    twist = lv_twist(points, moved, frame, orientation=orientation, torsion=torsion)
    why = "no plane in the apical or in the basal third whose muscle stays in it"
    places = [("twist", 0), ("torsion", 0)] if np.isnan(twist.distance_mm) else []
    return twist, dict.fromkeys(places, why)


def _wall(
    labels: NDArray, grid: Grid, frame: LvFrame, mask: ArrayLike | None, segments: int
) -> tuple[NDArray[np.bool_], str]:
    """Voxels to average over, and what they are in words."""
    if mask is None:
        wall, name = labels == Structure.MYO, "every voxel of MYO at ED"
    else:
        wall, name = np.asarray(mask, dtype=bool).copy(), "voxels of a given mask at ED"
        if wall.shape != grid.shape or not wall.any():
            raise ValueError(
                f"mask must be {grid.shape} with a voxel at least, got {wall.shape} with "
                f"{int(wall.sum())}"
            )
    if segments == 16:
        voxels = np.argwhere(wall)
        wall[tuple(voxels[frame.fraction(grid.to_world(voxels)) < 0].T)] = False
        name += " but for the cap below the cavity"
    return wall, f"{name} ({int(wall.sum())} voxels of equal weight)"


def _slice_axis(grid: Grid, frame: LvFrame) -> int:
    if frame.stack_axis is not None:
        return frame.stack_axis
    columns = grid.affine[:3, :3] / np.array(grid.spacing)
    return int(np.argmax(np.abs(frame.axis @ columns)))


def _axes(
    points: Array,
    frame: LvFrame,
    labels: NDArray,
    grid: Grid,
    directions: Directions,
    across: int | None,
) -> tuple[Array, str]:
    if directions not in DIRECTIONS:
        raise ValueError(f"directions must be one of {list(DIRECTIONS)}, got {directions!r}")
    if across is not None:
        text = "in the slices, radial away from the centerline"
        return planar_axes(points, frame, grid, across), text
    if directions == "wall":
        return wall_axes(points, frame, labels, grid), DIRECTIONS["wall"]
    return cylinder_axes(points, frame), DIRECTIONS["cylindrical"]


def _segments(
    points: Array,
    labels: NDArray,
    grid: Grid,
    frame: LvFrame,
    orientation: Orientation,
    alone: int | None,
) -> tuple[NDArray[np.uint8], str]:
    """Segment or sector of every point, 0 for all with a reason if they cannot be told."""
    try:
        if alone is not None:
            return slice_sectors(points, labels, grid, frame, orientation)
        insertions = rv_insertions(labels, grid, frame, orientation=orientation)
    except CardiogenError as error:
        if error.code != "L62":
            raise
        return np.zeros(len(points), dtype=np.uint8), f"no AHA segments: {error.found}"
    return segment_of_points(points, frame, insertions), ""


def _averages(
    strain: Array,
    segment: NDArray,
    count: int,
    hidden: Mapping[str, str],
    no_segment: str,
    gone: NDArray[np.bool_],
) -> tuple[Array, Array, NDArray[np.int64], dict[tuple[str, int], str]]:
    """Means over everything ``(T, 3)`` and over segments ``(T, 3, S)``, samples, reasons."""
    shown = [c not in hidden for c in NORMAL_COMPONENTS]
    known = np.isfinite(strain[..., shown]).all(axis=(0, 2))
    places = [known] + [known & (segment == s) for s in range(1, count + 1)]
    means = np.full((len(places), len(strain), 3), np.nan)
    reasons: dict[tuple[str, int], str] = {}
    for place, inside in enumerate(places):
        lost = gone[segment == place].mean() if place and (segment == place).any() else 0.0
        if lost > _MOST_LEAVING:
            text = f"{LEAVING_REASON} ({lost:.0%} of it)"
            reasons |= {(c, place): text for c in NORMAL_COMPONENTS}
        elif inside.sum() >= FEWEST_VOXELS:
            means[place] = strain[:, inside].mean(axis=1)
        else:
            few = f"{int(inside.sum())} voxels of known strain, {FEWEST_VOXELS} needed"
            reasons |= {(c, place): (place and no_segment) or few for c in NORMAL_COMPONENTS}
        reasons |= {(component, place): why for component, why in hidden.items()}
    counts = np.array([inside.sum() for inside in places[1:]], dtype=np.int64)
    return means[0], np.moveaxis(means[1:], 0, 2), counts, reasons
