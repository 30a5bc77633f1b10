"""Where the panels of a heart's picture lie, and how a picture gets under them and into a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import atomic_write
from cardiogen.export.marks import Marks
from cardiogen.export.palette import Rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure
    from matplotlib.text import Text

DPI = 100
LEFT, TOP, BOTTOM, RIGHT, CELL, GAP = 40, 96, 34, 22, 250, 6  # pixels
CURVE_ROOM, CURVE_WIDTH, CURVE_GAP = 66, 330, 36


class Layout:
    """Figure whose pictures lie on one canvas; places are pixels from the upper left corner.

    One canvas instead of an axes per panel makes the figure twice as fast.
    """

    def __init__(self, *, rows: int, slices: bool, meshes: bool, curves: bool) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.rows, self.slices, self.meshes, self.curves = rows, slices, meshes, curves
        self.mesh_left = LEFT + (4 * (CELL + GAP) if slices else 0)
        self.curve_left = self.mesh_left + (CELL if meshes else 0) + CURVE_ROOM
        self.width = self.curve_left + (CURVE_WIDTH if curves else -CURVE_ROOM) + RIGHT
        self.height = self.row_top(rows) + BOTTOM
        self.canvas = np.ones((self.height, self.width, 3), dtype=np.float32)
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)

    @staticmethod
    def row_top(row: int) -> int:
        """Return the upper edge of a row."""
        return TOP + row * (CELL + GAP)

    def paste(self, left: int, top: int, picture: NDArray) -> None:
        """Lay ``picture`` ``(h, w, 3)`` on the canvas."""
        height, width = picture.shape[:2]
        self.canvas[top : top + height, left : left + width] = picture

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        color: Rgb,
        ha: str = "center",
        va: str = "center",
        weight: str = "normal",
        rotation: float = 0.0,
    ) -> Text:
        """Write text at a place."""
        return self.figure.text(
            x / self.width, 1 - y / self.height, text, fontsize=size, color=color, ha=ha, va=va,
            weight=weight, rotation=rotation,
        )  # fmt: skip

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes at a place."""
        return self.figure.add_axes((
            left / self.width, 1 - (top + height) / self.height,
            width / self.width, height / self.height,
        ))  # fmt: skip


def put_canvas(figure: Figure, canvas: NDArray[np.uint8]) -> None:
    """Lay a picture ``(h, w, 3)`` of the figure's size under all else, pixel by pixel.

    Handed to Agg directly: matplotlib's own images are resampled first, a quarter second here.
    """
    from matplotlib.artist import Artist

    opaque = np.full((*canvas.shape[:2], 1), 255, dtype=np.uint8)
    pixels = np.ascontiguousarray(np.concatenate([canvas, opaque], axis=2)[::-1])

    class Underlay(Artist):
        def draw(self, renderer: RendererBase) -> None:
            renderer.draw_image(renderer.new_gc(), 0, 0, pixels)

    underlay = Underlay()
    underlay.set_zorder(-1)
    figure.add_artist(underlay)


def save_png(figure: Figure, path: str | Path, *, marks: Marks, overwrite: bool) -> Path:
    """Write a figure without date or software version, saying in the file what it shows."""
    kind = " ".join([*marks.words, "heart"])
    # Strong compression would take longer than drawing the picture.
    options = {"compress_level": 4}
    with atomic_write(path, overwrite=overwrite) as temporary:
        figure.canvas.print_png(
            temporary, metadata={"Software": None, "Description": kind}, pil_kwargs=options
        )
    return Path(path)
