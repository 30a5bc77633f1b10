"""Small facts of triangle surfaces that pictures and GLB files need: normals, used vertices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compact(faces: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the vertices that ``faces`` ``(F, 3)`` use, and the faces over these alone."""
    used, inverse = np.unique(faces, return_inverse=True)
    return used.astype(np.int64), inverse.reshape(-1, 3).astype(np.int64)


def vertex_normals(
    vertices: NDArray[np.float64], faces: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Return unit normals ``(V, 3)``, the area-weighted mean of the adjacent faces.

    Vertices without area around them get +z, since glTF wants unit length everywhere.
    """
    a, b, c = vertices[faces].swapaxes(0, 1)
    doubled_areas = np.cross(b - a, c - a)
    corners = faces.reshape(-1)
    normals = np.stack(
        [np.bincount(corners, np.repeat(doubled_areas[:, axis], 3), minlength=len(vertices))
         for axis in range(3)],
        axis=1,
    )  # fmt: skip
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    upward = np.broadcast_to([0.0, 0.0, 1.0], normals.shape)
    return np.where(length > 1e-12, normals / np.maximum(length, 1e-12), upward)
