"""Colors of structures, alike in slices, renderings, curves and GLB files.

Red, blue and ivory stay apart for red-green color-blind eyes: they differ in lightness too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.labels import Structure

Rgb = tuple[float, float, float]


def rgb(code: str) -> Rgb:
    """Return sRGB in [0, 1] of ``"#rrggbb"``."""
    return tuple(int(code[k : k + 2], 16) / 255.0 for k in (1, 3, 5))


def linear(color: Rgb) -> Rgb:
    """Return linear light of an sRGB color (IEC 61966-2-1), which glTF materials want."""
    c = np.asarray(color)
    return tuple(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).tolist())


LV_RED = rgb("#d1343f")
RV_BLUE = rgb("#2f74c0")
MYO_IVORY = rgb("#f0dcb4")
EPI_ROSE = rgb("#e8c3a9")
SLICE_DARK = rgb("#12161d")
INK = rgb("#1f2733")
FAINT = rgb("#6b7685")
PALE = rgb("#aeb7c4")
WHITE = rgb("#ffffff")


def structure_colors() -> NDArray[np.float64]:
    """Return the sRGB color of every structure, background first, ``(4, 3)``."""
    colors = np.empty((len(Structure), 3))
    colors[Structure.BACKGROUND] = SLICE_DARK
    colors[Structure.LV], colors[Structure.MYO], colors[Structure.RV] = LV_RED, MYO_IVORY, RV_BLUE
    return colors
