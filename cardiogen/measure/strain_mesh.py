"""Strain of the left ventricle from a moving mesh, as feature tracking defines it.

Contours drawn on the wall at ED move with the mesh. Circumferential and longitudinal strain are
the change of their length, radial strain that of the wall's thickness (the shortest distance from
the endocardium to the epicardium), area strain that of endocardial triangles. The plain names
``circumferential`` and ``longitudinal`` are mid-wall; ``_endo`` and ``_epi`` name the others:
between them lie 10 points in a healthy heart, so that layers must not be mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Orientation
from cardiogen.measure.aha import Insertions, segment_of_points
from cardiogen.measure.frame import LvFrame
from cardiogen.measure.mesh_thickness import distance_to_triangles
from cardiogen.measure.strain_curves import (
    Strain,
    check_cycle_arguments,
    orientation_words,
)
from cardiogen.measure.strain_lattice import (
    ANGLES,
    LEVELS,
    lv_walls,
    mesh_frame,
    wall_lattice,
)
from cardiogen.measure.strain_tensor import Definition, strain_of_stretch
from cardiogen.measure.strain_twist import TorsionUnit, lv_twist

Array = NDArray[np.float64]

MESH_COMPONENTS = (
    "radial", "circumferential", "longitudinal", "circumferential_endo", "circumferential_epi",
    "longitudinal_endo", "longitudinal_epi", "area_endo",
)  # fmt: skip


NO_EPI = "mesh has no epicardium of the left ventricle alone (LV_EPI)"


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Pieces of one component: measure ``(T, N)``, weight ``(N,)``, AHA segments ``(N, E)``.

    A piece between points of several segments counts in each with an equal share.
    """

    measure: Array
    weight: Array
    segment: NDArray[np.uint8]


def mesh_strain(
    vertices: ArrayLike,
    topology: Topology,
    *,
    phases: ArrayLike,
    ed: int = 0,
    es: int | None = None,
    cycle_s: float | None = None,
    definition: Definition = "engineering",
    frame: LvFrame | None = None,
    insertions: Insertions | None = None,
    segments: Literal[16, 17] = 17,
    orientation: Orientation = "trusted",
    torsion: TorsionUnit = "deg/cm",
) -> Strain:
    """Return the strain of a left ventricle from its meshes.

    A curve is the mean over its pieces, weighted by their size at ED, of the strain of their
    stretch. With ``engineering`` that is exactly the relative change of the contours' total
    length. Mid-wall contours lie midway between endocardium and epicardium at ED and move as the
    mean of both.

    Args:
        vertices: ``(T, V, 3)`` world mm, vertex by vertex the same tissue.
        topology: needs ``LV_ENDO``, and ``LV_EPI`` that shares its lid. Without ``LV_EPI`` the
            endocardium must be open at the base, and it alone is measured.
        phases: fraction of the cycle of every frame ``(T,)``, increasing.
        ed: frame of end diastole.
        es: frame of end systole, or None.
        cycle_s: duration of the cycle in seconds; without it there are no rates.
        definition: ``engineering`` or ``green_lagrange``.
        frame: frame of the left ventricle at ED; found from the mesh if None.
        insertions: where the right ventricle is attached. None takes the segments that the
            topology names; if it names none, all segments are NaN.
        segments: 17 or 16. The cap has no rings: of segment 17 there is longitudinal strain of
            the mid-wall and the epicardium alone.
        orientation: ``mirrored`` if the world mirrors the heart (the sign of the twist).
        torsion: ``deg/cm`` or ``rad``.

    Returns:
        Curves of ``MESH_COMPONENTS``.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if vertices.ndim != 3 or vertices.shape[1:] != (topology.vertex_count, 3):
        raise ValueError(f"vertices must be (T, {topology.vertex_count}, 3), got {vertices.shape}")
    if segments not in (16, 17):
        raise ValueError(f"segments must be 16 or 17, got {segments}")
    phases = check_cycle_arguments(phases, len(vertices), ed, es)
    inner, outer = lv_walls(topology)
    frame = frame or mesh_frame(vertices[ed], inner)
    nearest, rings, apexes = _layers(vertices, inner, outer, frame, ed)
    middle = rings[0 if outer is None else 1]

    def segment_at(points: Array, vertex: NDArray) -> NDArray[np.uint8]:
        if insertions is None:
            return topology.aha_segment[vertex]
        flat = segment_of_points(points.reshape(-1, 3), frame, insertions)
        return flat.reshape(points.shape[:-1])

    ring_segments = segment_at(middle[ed], nearest)
    pieces = _contours(rings, apexes, ring_segments, ed)
    pieces["radial"] = _thickness(rings, vertices, outer, ring_segments, ed)
    pieces["area_endo"] = _areas(vertices, inner, segment_at(vertices[ed][inner], inner), ed)
    whole, by_segment, reasons = _averages(pieces, ed, segments, definition)
    if outer is None:
        missing = [name for name in MESH_COMPONENTS if not name.endswith("_endo")]
        reasons |= {(n, s): NO_EPI for n in missing for s in range(segments + 1)}
    known = np.isfinite(middle[ed]).all(axis=-1)
    twist = lv_twist(middle[ed][known], middle[:, known], frame, orientation=orientation,
                     torsion=torsion)  # fmt: skip
    return Strain(
        components=MESH_COMPONENTS, whole=whole, segments=by_segment, phases=phases, ed=ed,
        es=es, cycle_s=cycle_s, twist=twist, definition=definition,
        method="mesh: change of contour length, wall thickness and triangle area",
        mask=f"{LEVELS} rings of {ANGLES} points from the cavity's apex to the base, weighted by "
        "length at ED; contours from base to apex at every angle",
        reference=f"Lagrangian, ED (frame {ed}); contours in and across short-axis planes; "
        f"{orientation_words(orientation)}",
        reasons=reasons,
        counts=np.bincount(ring_segments.reshape(-1), minlength=18)[1 : segments + 1],
    )  # fmt: skip


def _layers(
    vertices: Array, inner: NDArray, outer: NDArray | None, frame: LvFrame, ed: int
) -> tuple[NDArray[np.int64], list[Array], list[Array]]:
    """Return rings and apexes of endo, mid and epi in all frames, and the rings' vertices.

    Without an epicardium mid and epi are NaN.
    """
    endo = wall_lattice(vertices[ed], inner, frame)
    rings, apexes = [endo.rings.at(vertices)], [endo.apex.at(vertices)]
    if outer is None:
        rings += 2 * [np.full_like(rings[0], np.nan)]
        apexes += 2 * [np.full_like(apexes[0], np.nan)]
    else:
        epi = wall_lattice(vertices[ed], outer, frame)
        for found, layer in ((rings, epi.rings), (apexes, epi.apex)):
            far = layer.at(vertices)
            found += [(found[0] + far) / 2, far]
    return endo.rings.nearest, rings, apexes


def _contours(
    rings: list[Array], apexes: list[Array], segment: NDArray, ed: int
) -> dict[str, _Pieces]:
    """Pieces of all rings and of all lines from base to apex, by layer."""
    result = {}
    # Rings go around; lines start at the apex, which belongs to the cap.
    around = np.stack([segment, np.roll(segment, -1, axis=1)], axis=-1)
    cap = 17 if segment.any() else 0
    below = np.concatenate([np.full((1, ANGLES), cap, np.uint8), segment])
    upward = np.stack([below[:-1], below[1:]], axis=-1)
    for suffix, ring, apex in zip(("_endo", "", "_epi"), rings, apexes, strict=True):
        step = np.linalg.norm(np.roll(ring, -1, axis=2) - ring, axis=-1)
        line = np.concatenate([np.broadcast_to(apex[:, :, None], ring[:, :1].shape), ring], axis=1)
        rise = np.linalg.norm(np.diff(line, axis=1), axis=-1)
        lines = upward.copy()
        if suffix == "_endo":
            # Nothing lies below the cavity: the last piece belongs to the ring above it.
            lines[0] = segment[0][:, None]
        result[f"circumferential{suffix}"] = _pieces(step, around, ed)
        result[f"longitudinal{suffix}"] = _pieces(rise, lines, ed)
    return result


def _pieces(length: Array, segment: NDArray, ed: int) -> _Pieces:
    frames = len(length)
    return _Pieces(length.reshape(frames, -1), length[ed].reshape(-1), segment.reshape(-1, 2))


def _thickness(
    rings: list[Array], vertices: Array, outer: NDArray | None, segment: NDArray, ed: int
) -> _Pieces:
    """Shortest distance from the rings of the endocardium to the epicardium."""
    inner = rings[0].reshape(len(vertices), -1, 3)
    known = np.isfinite(inner[ed]).all(axis=-1)
    thickness = np.full(inner.shape[:2], np.nan)
    for points, frame, out in zip(inner, vertices, thickness, strict=True):
        if outer is not None:
            out[known] = distance_to_triangles(points[known], frame[outer])
    # A ring stands for a band of the wall: the longer the ring, the more wall.
    size = np.linalg.norm(np.roll(rings[1][ed], -1, axis=1) - rings[1][ed], axis=-1)
    return _Pieces(thickness, size.reshape(-1), segment.reshape(-1, 1))


def _areas(vertices: Array, faces: NDArray, segment: NDArray, ed: int) -> _Pieces:
    a, b, c = np.moveaxis(vertices[:, faces], 2, 0)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2
    return _Pieces(area, area[ed], segment)


def _averages(
    pieces: dict[str, _Pieces], ed: int, count: int, definition: Definition
) -> tuple[Array, Array, dict[tuple[str, int], str]]:
    """Weighted means of the whole ``(T, C)`` and of segments ``(T, C, S)``, and reasons."""
    named = pieces["radial"].segment.any()
    frames = len(pieces["radial"].measure)
    means = np.full((count + 1, frames, len(MESH_COMPONENTS)), np.nan)
    reasons: dict[tuple[str, int], str] = {}
    for index, name in enumerate(MESH_COMPONENTS):
        part = pieces[name]
        known = np.isfinite(part.measure).all(axis=0) & (part.measure[ed] > 0)
        strain = strain_of_stretch(part.measure[:, known] / part.measure[ed, known], definition)
        for place in range(count + 1):
            share = 1.0 if place == 0 else (part.segment == place).mean(axis=1)[known]
            weight = part.weight[known] * share
            if weight.sum() > 0:
                means[place, :, index] = strain @ weight / weight.sum()
            else:
                cap = "the cap lies below the cavity" if place == 17 else "no contour crosses it"
                reasons[name, place] = cap if named else "no AHA segments: topology names none"
    return means[0], np.moveaxis(means[1:], 0, 2), reasons
