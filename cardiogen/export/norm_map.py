"""Bullseye of wall thickness and how unusual it is, in standard deviations of a norm."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import numpy as np
from numpy.typing import ArrayLike

from cardiogen.export.bullseye import draw_bullseye
from cardiogen.export.layout import DPI, save_png
from cardiogen.export.marks import Marks
from cardiogen.export.palette import FAINT, INK

NOT_A_DIAGNOSIS = (
    "A statistical deviation from the healthy hearts that the model was trained on, given the "
    "factors; not a diagnosis. Other scanners, contours and populations deviate too."
)
_SIZE = 430, 520  # pixels
_LIMIT = 4.0  # standard deviations


def write_norm_bullseye(
    path: str | Path, z: ArrayLike, *, title: str, marks: Marks, overwrite: bool = False
) -> Path:
    """Write z-scores of the 17 segments as PNG; full colors mean 4 standard deviations.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    width, height = _SIZE
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.04, 0.97, " · ".join([title, *marks.words]), fontsize=11, color=INK,
                weight="bold", va="top")  # fmt: skip
    axes = figure.add_axes((0.06, 0.22, 0.88, 0.68))
    colors, scale = draw_bullseye(axes, np.asarray(z), title="", limit=_LIMIT, decimals=1)
    bar = figure.add_axes((0.2, 0.185, 0.6, 0.018))
    colorbar = figure.colorbar(
        ScalarMappable(scale, colors), cax=bar, orientation="horizontal", extend="both"
    )
    colorbar.set_ticks([-4, -2, 0, 2, 4])
    bar.tick_params(colors=FAINT, labelsize=8, length=2)
    bar.set_xlabel("wall thickness at end diastole, SD of the norm", color=FAINT, fontsize=8.5)
    figure.text(0.04, 0.015, fill(NOT_A_DIAGNOSIS, 78), fontsize=7.5, color=FAINT, va="bottom")
    return save_png(figure, path, marks=marks, overwrite=overwrite)
