"""Contact sheet: one small slice of every heart of a cohort, to see all of them at once."""

from __future__ import annotations

from collections.abc import Sequence as Many
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.sequence import Sequence
from cardiogen.export.axes import HeartAxes, axes_from_labels, axes_from_mesh
from cardiogen.export.layout import put_canvas, save_png
from cardiogen.export.marks import Marks
from cardiogen.export.palette import FAINT, INK
from cardiogen.export.slices import four_chamber_plane, short_axis_plane, slice_pictures

_DPI, _CELL, _GAP, _CAPTION, _EDGE, _TITLE = 100, 112, 4, 18, 14, 44
# Room for a heading with all its marks above one or two hearts.
_LEAST_WIDTH = 520


def write_contact_sheet(
    path: str | Path,
    hearts: Many[Sequence],
    *,
    captions: Many[str] = (),
    columns: int = 6,
    half_width_mm: float | None = None,
    title: str = "",
    marks: Marks,
    overwrite: bool = False,
) -> Path:
    """Write the middle short-axis and the four-chamber slice of every heart at ED, all to scale.

    Args:
        path: PNG file, written atomically.
        hearts: sequences with labels.
        captions: a few words under every heart; empty for none.
        columns: hearts in a row.
        half_width_mm: half the side of every slice, the same for all hearts; None takes the
            largest heart's.
        title: heading.
        marks: origin of the hearts; what holds for any of them.
        overwrite: whether an existing file may be replaced.

    Raises:
        CardiogenError: O01 if the file exists, L60 or L61 for labels that are no heart.
        ValueError: without hearts, or if captions and hearts differ in number.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not hearts or (captions and len(captions) != len(hearts)):
        raise ValueError(f"captions must be none or {len(hearts)} > 0, got {len(captions)}")
    places, width, height = _places(len(hearts), min(columns, len(hearts)), bool(captions))
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    poses = [_axes(heart) for heart in hearts]
    if half_width_mm is None:
        half_width_mm = 1.08 * max(float(np.max(pose.high - pose.low)) for pose in poses) / 2
    for heart, pose, (left, top) in zip(hearts, poses, places, strict=True):
        picture = _thumbnail(heart, pose, half_width_mm)
        canvas[top : top + _CELL, left : left + 2 * _CELL] = picture
    for caption, (left, top) in zip(captions, places, strict=False):
        x, y = (left + _CELL) / width, 1 - (top + _CELL + _CAPTION / 2) / height
        figure.text(x, y, caption, fontsize=8, color=FAINT, ha="center", va="center")
    heading = " · ".join(part for part in (title, *marks.words) if part)
    figure.text(_EDGE / width, 1 - _TITLE / 2 / height, heading, fontsize=13, color=INK,
                weight="bold", va="center")  # fmt: skip
    put_canvas(figure, canvas)
    return save_png(figure, path, marks=marks, overwrite=overwrite)


def _places(count: int, columns: int, captions: bool) -> tuple[list[tuple[int, int]], int, int]:
    """Return the upper left corner of every heart in pixels, and the size of the sheet."""
    step_x = 2 * _CELL + 3 * _GAP
    step_y = _CELL + (_CAPTION if captions else 0) + _GAP
    places = [
        (_EDGE + (k % columns) * step_x, _TITLE + (k // columns) * step_y) for k in range(count)
    ]
    rows = -(-count // columns)
    width = max(2 * _EDGE + columns * step_x - 3 * _GAP, _LEAST_WIDTH)
    return places, width, _TITLE + rows * step_y + _EDGE


def _thumbnail(heart: Sequence, pose: HeartAxes, half_width_mm: float) -> NDArray[np.uint8]:
    """Return both slices of a heart side by side ``(_CELL, 2 * _CELL, 3)``."""
    planes = [short_axis_plane(pose, 0.5), four_chamber_plane(pose)]
    pictures = slice_pictures(
        heart.labels[heart.ed], heart.grid, planes, half_width_mm=half_width_mm, pixels=_CELL
    )
    return np.rint(np.concatenate(list(pictures), axis=1) * 255).astype(np.uint8)


def _axes(heart: Sequence) -> HeartAxes:
    if heart.labels is None:
        raise ValueError(f"hearts must have labels, {heart.subject_id!r} has none")
    if heart.vertices is not None:
        return axes_from_mesh(heart.vertices[heart.ed], heart.topology)
    return axes_from_labels(heart.labels[heart.ed], heart.grid)
