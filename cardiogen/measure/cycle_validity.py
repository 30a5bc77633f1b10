"""Validity of a heart over its cycle: written rules on volumes, motion and closure.

``bounds``           phenotypes are inside the bounds of the possible.
``stroke-ratio``     left over right stroke volume is between 0.4 and 2.5: leaking valves set them
                     apart, by 2.1 at most in 25 patients of ACDC.
``myo-volume``       the wall keeps its ED volume within 10 %: muscle is incompressible. Not judged
                     on labels in thick slices, where the base moves in and out of a slice (manual
                     contours of ACDC gain 5 to 27 %).
``ed-largest``       no frame has an LV volume over 102 % of that at ED.
``one-minimum``      the LV volume has one minimum; a dip of 10 % of the stroke volume counts.
``smooth-motion``    no vertex moves faster than 300 mm a cycle, 12 mm between 25 frames (the
                     fitted meshes of ``human_cine`` reach 9 mm).
``closure``          from the last frame to the first nothing jumps: no vertex by 1.5 mm more than
                     in its largest step within the cycle, no LV volume by 10 % of the stroke
                     volume more than in the largest step.

The last three hold for frames that sample a whole cycle, at most 0.06 of it apart: ED and ES alone
say nothing about motion between them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.frame import stack_axis
from cardiogen.measure.label_validity import check_labels
from cardiogen.measure.mesh_validity import check_mesh
from cardiogen.measure.violation import Violation, check_bounds
from cardiogen.measure.volumes import Volumes, end_systole, phenotypes, sequence_volumes

STROKE_RATIO = (0.4, 2.5)
MYO_DRIFT = 0.10
SPEED_MM = 300.0  # per cycle
CLOSURE_MM = 1.5
_DENSE = 0.06  # of the cycle: fewer than 17 frames are too few to judge motion
DIP = 0.10  # of the stroke volume


def check_sequence(sequence: Sequence) -> list[Violation]:
    """Return every broken rule of labels, meshes and cycle; an empty list is a valid heart."""
    found: list[Violation] = []
    if sequence.labels is not None and sequence.grid is not None:
        found += check_labels(sequence.labels, sequence.grid)
    if sequence.vertices is not None and sequence.topology is not None:
        found += check_mesh(sequence.vertices, sequence.topology)
    return found + check_cycle(sequence)


def check_cycle(sequence: Sequence) -> list[Violation]:
    """Return the broken rules that concern volumes and motion over the cycle."""
    found: list[Violation] = []
    dense = _covers_cycle(sequence.phases)
    if sequence.vertices is not None:
        volumes = sequence_volumes(sequence, source="mesh")
        found += _check_volumes(volumes, sequence, dense=dense, source="mesh")
        if dense and np.isfinite(sequence.vertices).all():
            found += _check_motion(np.asarray(sequence.vertices, np.float64), sequence.phases)
    if sequence.labels is not None:
        volumes = sequence_volumes(sequence, source="labels")
        found += _check_volumes(volumes, sequence, dense=dense, source="labels")
    return found


def _covers_cycle(phases: NDArray[np.float64]) -> bool:
    return len(phases) > 2 and float(np.diff(phases, append=phases[0] + 1).max()) <= _DENSE


def _check_volumes(
    volumes: Volumes, sequence: Sequence, *, dense: bool, source: str
) -> Iterator[Violation]:
    lv, myo, ed = volumes[Structure.LV], volumes[Structure.MYO], sequence.ed
    es = sequence.es if sequence.es is not None else end_systole(lv, ed=ed)
    row = phenotypes(volumes, ed=ed, es=es)
    yield from (Violation(v.rule, None, f"{source}: {v.detail}") for v in check_bounds(row))
    ratio = row["LVSV (mL)"] / row["RVSV (mL)"] if row["RVSV (mL)"] else np.nan
    if ratio < STROKE_RATIO[0] or ratio > STROKE_RATIO[1]:
        yield Violation("stroke-ratio", None, f"{source}: LV/RV stroke volume is {ratio:.2f}")
    thick = source == "labels" and stack_axis(sequence.grid) is not None
    if len(lv) > 1 and myo[ed] > 0 and not thick:
        drift = np.abs(myo / myo[ed] - 1)
        if np.nanmax(drift) > MYO_DRIFT:
            frame = int(np.nanargmax(drift))
            detail = f"{source}: wall volume is {100 * (myo[frame] / myo[ed] - 1):+.1f} % of ED's"
            yield Violation("myo-volume", frame, detail)
    if lv[ed] > 0 and np.nanmax(lv) > 1.02 * lv[ed]:
        frame = int(np.nanargmax(lv))
        detail = f"{source}: LV is {lv[frame]:.1f} mL, at ED {lv[ed]:.1f} mL"
        yield Violation("ed-largest", frame, detail)
    if dense and np.isfinite(lv).all():
        yield from _check_curve(np.roll(lv, -ed), source)


def _check_curve(lv: NDArray[np.float64], source: str) -> Iterator[Violation]:
    """Rules on the LV volume curve from ED on, ``(T,)`` mL."""
    from scipy.signal import find_peaks

    stroke = float(lv.max() - lv.min())
    # Around once from the largest value and back to it: every minimum has both of its flanks.
    start = int(np.argmax(lv))
    around = np.append(np.roll(lv, -start), lv[start])
    minima, _ = find_peaks(-around, prominence=max(DIP * stroke, 1e-9))
    if len(minima) > 1:
        yield Violation("one-minimum", None, f"{source}: LV volume has {len(minima)} minima")
    steps = np.abs(np.diff(lv))
    closing = float(abs(lv[0] - lv[-1]))
    if closing > steps.max() + DIP * stroke:
        detail = f"{source}: LV jumps by {closing:.1f} mL from the last frame to the first"
        yield Violation("closure", None, detail)


def _check_motion(
    vertices: NDArray[np.float64], phases: NDArray[np.float64]
) -> Iterator[Violation]:
    steps = np.linalg.norm(np.diff(vertices, axis=0, append=vertices[:1]), axis=-1)  # (T, V)
    speed = steps.max(axis=1) / np.diff(phases, append=phases[0] + 1)
    for frame in np.flatnonzero(speed > SPEED_MM):
        detail = f"a vertex moves {steps[frame].max():.1f} mm to the next frame"
        yield Violation("smooth-motion", int(frame), detail)
    jump = steps[-1] - steps[:-1].max(axis=0)
    if jump.max() > CLOSURE_MM:
        vertex = int(jump.argmax())
        detail = f"vertex {vertex} jumps by {steps[-1, vertex]:.1f} mm from the last frame to 0"
        yield Violation("closure", None, detail)
