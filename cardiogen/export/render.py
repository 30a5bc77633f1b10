"""A small software renderer for hearts: z-buffer, smooth shading, one see-through shell.

VTK crashes without a display driver and matplotlib's triangles cannot hide each other properly;
this needs numpy alone. Orthographic; world RAS mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.mesh import Surface, Topology
from cardiogen.export.axes import HeartAxes
from cardiogen.export.palette import EPI_ROSE, LV_RED, RV_BLUE
from cardiogen.export.surface import compact, vertex_normals

# Pixels are averaged 2 x 2, which is enough to hide the stairs of an edge.
_SUPERSAMPLING = 2


def _unit(*direction: float) -> NDArray[np.float32]:
    return np.asarray(direction / np.linalg.norm(direction), dtype=np.float32)


# Light from the upper left; the viewer sees highlights halfway between it and herself.
_KEY_LIGHT = _unit(-0.45, 0.55, 0.75)
_HALFWAY = _unit(*(_KEY_LIGHT + np.float32([0.0, 0.0, 1.0])))


@dataclass(frozen=True, eq=False)
class Camera:
    """Orthographic view: rows of ``frame`` are image right, image up and toward the viewer."""

    frame: NDArray[np.float64]
    center: NDArray[np.float64]
    half_width_mm: float

    def project(self, points: NDArray[np.float64], pixels: int) -> NDArray[np.float64]:
        """Return pixel column, pixel row and height toward the viewer (mm) of points (V, 3)."""
        view = (points - self.center) @ self.frame.T
        scale = pixels / (2.0 * self.half_width_mm)
        columns = view[:, 0] * scale + pixels / 2
        rows = pixels / 2 - view[:, 1] * scale
        return np.stack([columns, rows, view[:, 2]], axis=1)


def heart_camera(
    axes: HeartAxes, *, half_width_mm: float, turn_deg: float = 24.0, tilt_deg: float = -14.0
) -> Camera:
    """Return a view from the anterior side: base up, apex down, RV on the left, LV on the right.

    Args:
        axes: pose of the heart.
        half_width_mm: half the side of the square picture.
        turn_deg: turn about the long axis, positive to look onto the RV free wall more.
        tilt_deg: turn about the picture's horizontal, positive to look down onto the base.
    """
    turn, tilt = np.deg2rad([turn_deg, tilt_deg])
    right, up, toward = -axes.rightward, axes.long_axis, axes.anterior
    toward, right = (
        np.cos(turn) * toward - np.sin(turn) * right,
        np.cos(turn) * right + np.sin(turn) * toward,
    )
    toward, up = (
        np.cos(tilt) * toward + np.sin(tilt) * up,
        np.cos(tilt) * up - np.sin(tilt) * toward,
    )
    return Camera(np.stack([right, up, toward]), axes.middle, half_width_mm)


def render_heart(
    vertices: NDArray[np.float64], topology: Topology, camera: Camera, *, pixels: int
) -> NDArray[np.float32]:
    """Return a picture ``(pixels, pixels, 4)`` RGBA: both blood pools in a glassy epicardium.

    Args:
        vertices: one frame ``(V, 3)`` world RAS mm.
        topology: closed surfaces.
        camera: view.
        pixels: side of the square picture.
    """
    side = pixels * _SUPERSAMPLING
    pools = {Surface.LV_ENDO: LV_RED, Surface.RV_ENDO: RV_BLUE}
    shown = [surface for surface in pools if surface in topology.surfaces]
    picture = np.zeros((side * side, 4), dtype=np.float32)
    seen, normals, owner = _visible(vertices, [topology.surfaces[s] for s in shown], camera, side)
    colors = np.array([pools[s] for s in shown], dtype=np.float32)
    picture[seen, :3] = _shade(normals, colors[owner])
    picture[seen, 3] = 1.0
    if Surface.EPI in topology.surfaces:
        seen, normals, _ = _visible(vertices, [topology.surfaces[Surface.EPI]], camera, side)
        picture[seen] = _glaze(picture[seen], normals)
    picture[:, :3] *= picture[:, 3:]
    blocks = picture.reshape(pixels, _SUPERSAMPLING, pixels, _SUPERSAMPLING, 4)
    small = blocks.mean(axis=(1, 3))
    small[..., :3] /= np.maximum(small[..., 3:], 1e-6)
    return np.clip(small, 0.0, 1.0)


def _shade(normals: NDArray[np.float32], colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return lit colors ``(N, 3)``: wrapped diffuse light, a soft highlight, darker edges."""
    diffuse = np.clip(normals @ _KEY_LIGHT * 0.62 + 0.42, 0.0, 1.0)
    facing = np.clip(normals[:, 2], 0.0, 1.0)
    glint = np.clip(normals @ _HALFWAY, 0.0, 1.0) ** 28
    light = (0.30 + 0.78 * diffuse) * (0.72 + 0.28 * facing)
    return colors * light[:, None] + 0.20 * glint[:, None]


def _glaze(below: NDArray[np.float32], normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lay a shell over RGBA pixels ``(N, 4)``: clear toward the viewer, dense at its rim."""
    facing = np.clip(normals[:, 2], 0.0, 1.0)
    alpha = (0.13 + 0.60 * np.square(1.0 - facing))[:, None]
    lit = 0.72 + 0.38 * np.clip(normals @ _KEY_LIGHT, 0.0, 1.0)
    color = np.asarray(EPI_ROSE, dtype=np.float32) * lit[:, None]
    total = alpha + below[:, 3:] * (1.0 - alpha)
    mixed = (color * alpha + below[:, :3] * below[:, 3:] * (1.0 - alpha)) / total
    glint = 0.30 * np.clip(normals @ _HALFWAY, 0.0, 1.0)[:, None] ** 60
    return np.concatenate([mixed + glint, np.maximum(total, glint)], axis=1)


def _visible(
    vertices: NDArray[np.float64], surfaces: list[NDArray], camera: Camera, side: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Return the pixels that surfaces cover, view-space normals there, and whose they are."""
    faces = np.concatenate(surfaces)
    owner = np.repeat(np.arange(len(surfaces)), [len(f) for f in surfaces])
    used, faces = compact(faces)
    points = vertices[used]
    pixel, face, weights = rasterize(camera.project(points, side), faces, side)
    at_vertex = (vertex_normals(points, faces) @ camera.frame.T).astype(np.float32)
    corner = faces[face]
    normals = sum(weights[:, k, None] * at_vertex[corner[:, k]] for k in range(3))
    normals /= np.sqrt(np.maximum(np.square(normals).sum(axis=1, keepdims=True), 1e-12))
    return pixel, normals, owner[face]


def rasterize(
    projected: NDArray[np.float64], faces: NDArray[np.int64], side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return covered pixels, the front-most face of each and its barycentric weights there.

    Every triangle is cut into spans, one per pixel row; among the faces whose spans hold a pixel
    center the one nearest to the viewer is kept. Faces that turn their back are left out.

    Args:
        projected: column, row (pixels) and height toward the viewer of the vertices ``(V, 3)``.
        faces: triangles ``(F, 3)``, outward.
        side: width and height of the picture in pixels.

    Returns:
        Pixels ``(N,)`` as ``row * side + column``, increasing; faces ``(N,)``; weights ``(N, 3)``.
    """
    slopes, front = _edge_functions(projected, faces)
    corners = projected[faces[front]]
    face, row, first, count = _spans(slopes, corners[..., 1], side)
    span = np.repeat(np.arange(len(face)), count)
    column = np.arange(len(span)) - np.repeat(np.cumsum(count) - count - first, count)
    # Height is linear too: corner heights weighted by the edge functions.
    plane = np.einsum("nk,nkc->nc", corners[..., 2], slopes)
    along_row = plane[:, 1][face] * (row + 0.5) + plane[:, 2][face]
    height = plane[:, 0][face][span] * (column + 0.5) + along_row[span]
    pixel = row[span] * side + column
    nearest = np.full(side * side, -np.inf)
    np.maximum.at(nearest, pixel, height)
    winner = np.flatnonzero(height == nearest[pixel])
    # Two faces may tie on their common edge: one of them is kept.
    pixel, kept = np.unique(pixel[winner], return_index=True)
    winner = winner[kept]
    chosen = slopes[face[span[winner]]]
    x, y = column[winner] + 0.5, row[span[winner]] + 0.5
    weights = chosen[..., 0] * x[:, None] + chosen[..., 1] * y[:, None] + chosen[..., 2]
    return pixel, front[face[span[winner]]], weights.astype(np.float32)


def _edge_functions(
    projected: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return, for faces toward the viewer, ``(F', 3, 3)`` coefficients, and which faces they are.

    Weight k at (column x, row y) is ``c[k, 0] x + c[k, 1] y + c[k, 2]``.
    """
    corners = projected[faces][..., :2]
    to_next = np.roll(corners, -1, axis=1)
    to_last = np.roll(corners, -2, axis=1)
    slopes = np.stack(
        [
            to_next[..., 1] - to_last[..., 1],
            to_last[..., 0] - to_next[..., 0],
            to_next[..., 0] * to_last[..., 1] - to_last[..., 0] * to_next[..., 1],
        ],
        axis=-1,
    )
    area = slopes[..., 2].sum(axis=1)
    # Rows count downward, so a face that winds counter-clockwise in the world has negative area.
    front = np.flatnonzero(area < -1e-9)
    return slopes[front] / area[front, None, None], front


def _spans(
    slopes: NDArray[np.float64], heights: NDArray[np.float64], side: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return face, row, first column and length of every run of pixel centers in a face."""
    top = np.clip(np.ceil(heights.min(axis=1) - 0.5), 0, side).astype(np.int64)
    bottom = np.clip(np.floor(heights.max(axis=1) - 0.5), -1, side - 1).astype(np.int64)
    count = np.maximum(bottom - top + 1, 0)
    face = np.repeat(np.arange(len(slopes)), count)
    row = np.arange(len(face)) - np.repeat(np.cumsum(count) - count - top, count)
    across, rest = (
        slopes[face, :, 0],
        slopes[face, :, 1] * (row[:, None] + 0.5) + slopes[face, :, 2],
    )
    # A weight that grows with x bounds the run on the left, one that falls on the right.
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -rest / across
    left = np.where(across > 0, crossing, -np.inf).max(axis=1)
    right = np.where(across < 0, crossing, np.inf).min(axis=1)
    left = np.where(((across == 0) & (rest < 0)).any(axis=1), np.inf, left)
    first = np.clip(np.ceil(left - 0.5), 0, side).astype(np.int64)
    last = np.clip(np.floor(right - 0.5), -1, side - 1).astype(np.int64)
    length = np.maximum(last - first + 1, 0)
    kept = length > 0
    return face[kept], row[kept], first[kept], length[kept]
