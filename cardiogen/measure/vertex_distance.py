"""How far the vertices of one mesh lie from those of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def vertex_rmse(a: ArrayLike, b: ArrayLike) -> float:
    """Return the root mean square distance of the vertices of two meshes.

    Args:
        a: vertices ``(..., V, 3)`` mm; of several frames all count alike.
        b: the same vertices elsewhere, of the same shape.

    Returns:
        ``sqrt(mean |a_v - b_v|^2)``, mm.
    """
    away = np.asarray(a) - np.asarray(b)

    return float(np.sqrt(np.mean(np.sum(away**2, axis=-1))))
