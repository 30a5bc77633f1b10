"""Anatomical validity of heart meshes: written rules on every closed surface and between them.

``finite``            all coordinates are numbers.
``closed``            every edge belongs to exactly two faces.
``oriented``          its two faces run through it in opposite directions.
``outward``           the volume inside is positive.
``no-zero-area``      no face has lost its area.
``no-crossing``       no two faces of the heart cross, of one surface or of two.
``endo-inside-epi``   the left endocardium lies inside the left epicardium.
``wall-thickness``    the left wall is between 1 and 40 mm thick at every vertex.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.mesh import Surface, Topology
from cardiogen.measure.crossing import crossing_faces
from cardiogen.measure.mesh_thickness import mesh_thickness, wall_faces
from cardiogen.measure.vectors import components, cross, dot, length
from cardiogen.measure.violation import Violation
from cardiogen.measure.volumes import mesh_volume

WALL_MM = (1.0, 40.0)
_LEAST_AREA = 1e-6  # mm^2
_PROBES = 6


def check_mesh(vertices: ArrayLike, topology: Topology) -> list[Violation]:
    """Return every broken rule of every frame; an empty list is a valid heart.

    Args:
        vertices: ``(T, V, 3)`` or ``(V, 3)`` world mm.
        topology: the closed surfaces; rules that need a surface it lacks are left out.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if vertices.ndim not in (2, 3) or vertices.shape[-2:] != (topology.vertex_count, 3):
        raise ValueError(f"vertices must be (T, {topology.vertex_count}, 3), got {vertices.shape}")
    frames = vertices.reshape(-1, *vertices.shape[-2:])
    found = [
        Violation(rule, None, f"{surface.name}: {detail}")
        for surface, faces in topology.surfaces.items()
        for rule, detail in check_closed(faces)
    ]
    complex_faces = _distinct(list(topology.surfaces.values()))
    for index, frame in enumerate(frames):
        found += [Violation(r, index, d) for r, d in _check_frame(frame, topology, complex_faces)]
    return found


def check_closed(faces: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
    """Yield what keeps faces ``(F, 3)`` from being a closed, consistently wound surface."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges, inverse, counts = np.unique(
        np.sort(directed, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    if (counts != 2).any():
        detail = f"{int((counts != 2).sum())} of {len(edges)} edges without exactly two faces"
        yield "closed", detail
    forward = directed[:, 0] < directed[:, 1]
    balance = np.bincount(inverse.reshape(-1), weights=np.where(forward, 1.0, -1.0))
    twisted = int(((balance != 0) & (counts == 2)).sum())
    if twisted:
        yield "oriented", f"{twisted} edges whose faces wind against each other"


def _distinct(surfaces: list[NDArray]) -> NDArray[np.int64]:
    """All faces once: surfaces share faces (lids, septum), there with either winding."""
    faces = np.concatenate(surfaces)
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    return faces[first]


def _check_frame(
    vertices: NDArray, topology: Topology, faces: NDArray
) -> Iterator[tuple[str, str]]:
    broken = int((~np.isfinite(vertices).all(axis=1)).sum())
    if broken:
        yield "finite", f"{broken} vertices are not finite"
        return
    for surface, own in topology.surfaces.items():
        volume = float(mesh_volume(vertices, own))
        if volume <= 0:
            yield "outward", f"{surface.name}: volume {volume:.2f} mL"
    a, b, c = (components(vertices[faces[:, k]]) for k in range(3))
    area = length(cross(b - a, c - a)) / 2
    if (area < _LEAST_AREA).any():
        yield "no-zero-area", f"{int((area < _LEAST_AREA).sum())} faces without area"
    pairs = crossing_faces(vertices, faces)
    if len(pairs):
        place = vertices[faces[pairs[0, 0]]].mean(axis=0)
        shown = ", ".join(f"{x:.1f}" for x in place)
        yield "no-crossing", f"{len(pairs)} pairs of faces cross, first at ({shown}) mm"
    if Surface.LV_ENDO in topology.surfaces and Surface.LV_EPI in topology.surfaces:
        yield from _check_wall(vertices, topology)


def _check_wall(vertices: NDArray, topology: Topology) -> Iterator[tuple[str, str]]:
    outer = topology.surfaces[Surface.LV_EPI]
    # Corners of the lid lie on the closed epicardium: only what is off it can be inside. Without
    # crossings one vertex would stand for all of them; some more show how much is outside.
    inner = np.setdiff1d(wall_faces(topology)[0], outer)
    inner = inner[:: max(1, len(inner) // _PROBES)]
    turns = winding_number(vertices[inner], vertices[outer])
    outside = int((np.abs(turns - 1) > 0.5).sum())
    if outside:
        yield "endo-inside-epi", f"{outside} of {len(inner)} endocardial probes lie outside"
    thickness = mesh_thickness(vertices, topology)
    low, high = float(np.nanmin(thickness)), float(np.nanmax(thickness))
    if low < WALL_MM[0] or high > WALL_MM[1]:
        detail = f"{low:.2f} to {high:.2f} mm, possible is {WALL_MM[0]:g} to {WALL_MM[1]:g}"
        yield "wall-thickness", detail


def winding_number(points: ArrayLike, triangles: ArrayLike) -> NDArray[np.float64]:
    """Return how often a surface winds around points: 1 inside a closed outward one, 0 outside.

    Sum of the solid angles of the triangles over 4 pi (van Oosterom and Strackee 1983).

    Args:
        points: ``(N, 3)``.
        triangles: ``(F, 3, 3)``.

    Returns:
        ``(N,)``.
    """
    points, triangles = np.asarray(points), np.asarray(triangles)
    corners = [components(triangles[:, k]) for k in range(3)]
    total = np.zeros(len(points))
    for index, point in enumerate(components(points).T):
        a, b, c = (corner - point[:, None] for corner in corners)
        la, lb, lc = length(a), length(b), length(c)
        rest = la * lb * lc + dot(a, b) * lc + dot(b, c) * la + dot(c, a) * lb
        total[index] = 2 * np.arctan2(dot(a, cross(b, c)), rest).sum()
    return total / (4 * np.pi)
