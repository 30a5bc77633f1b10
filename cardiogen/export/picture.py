"""One picture of a heart: slices and renderings at ED and ES, and its volume curves.

Drawn on matplotlib's Agg canvas directly, so no display, no pyplot state and no date in the file:
equal hearts give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface
from cardiogen.data.sequence import Sequence
from cardiogen.export.axes import HeartAxes, axes_from_labels, axes_from_mesh
from cardiogen.export.curves import draw_volume_curve
from cardiogen.export.frames import key_frames
from cardiogen.export.layout import (
    CELL,
    CURVE_GAP,
    CURVE_WIDTH,
    GAP,
    LEFT,
    RIGHT,
    TOP,
    Layout,
    put_canvas,
    save_png,
)
from cardiogen.export.marks import Marks
from cardiogen.export.palette import (
    FAINT,
    INK,
    LV_RED,
    PALE,
    RV_BLUE,
    SLICE_DARK,
    WHITE,
)
from cardiogen.export.render import heart_camera, render_heart
from cardiogen.export.slices import (
    Plane,
    direction_letters,
    four_chamber_plane,
    short_axis_plane,
    slice_pictures,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Range = tuple[float, float]

# Slices at these fractions of the LV pool's length: inside the base, equator, above the apex.
SLICE_LEVELS: Mapping[str, float] = {"basal": 0.78, "mid": 0.5, "apical": 0.22}

# Half the window over half the heart's largest extent: leaves room for the letters.
_MARGIN = 1.2


def write_preview(
    path: str | Path,
    sequence: Sequence,
    *,
    volumes_ml: Mapping[str, ArrayLike] | None = None,
    reference_bands: Mapping[str, Range] | None = None,
    title: str = "",
    subtitle: str = "",
    marks: Marks,
    overwrite: bool = False,
) -> Path:
    """Write the picture of ``heart_figure`` as PNG, atomically and with the same bytes each time.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    figure = heart_figure(
        sequence, volumes_ml=volumes_ml, reference_bands=reference_bands, title=title,
        subtitle=subtitle, marks=marks,
    )  # fmt: skip
    return save_png(figure, path, marks=marks, overwrite=overwrite)


def heart_figure(
    sequence: Sequence,
    *,
    volumes_ml: Mapping[str, ArrayLike] | None = None,
    reference_bands: Mapping[str, Range] | None = None,
    title: str = "",
    subtitle: str = "",
    marks: Marks,
) -> Figure:
    """Draw a heart: ED in the upper row, ES in the lower (one row if only one is known).

    Args:
        sequence: labels, vertices or both; what it lacks is left out of the picture.
        volumes_ml: volume of ``"LV"`` and ``"RV"`` in every frame ``(T,)``, mL.
        reference_bands: lower and upper limit of ``"LVEDV (mL)"``, ``"LVESV (mL)"``,
            ``"RVEDV (mL)"``, ``"RVESV (mL)"``, any of them.
        title: what to say about the subject, e.g. age and sex.
        subtitle: second line, e.g. volumes and ejection fraction.
        marks: origin of the heart, one badge each.

    Returns:
        Figure with an Agg canvas.

    Raises:
        ValueError: if the sequence has neither labels nor vertices.
    """
    if sequence.labels is None and sequence.vertices is None:
        raise ValueError("sequence must have labels or vertices to draw, got neither")
    frames = key_frames(sequence)
    pose = _pose(sequence, next(iter(frames.values())))
    half_width_mm = _MARGIN * float(np.max(pose.high - pose.low)) / 2
    layout = Layout(
        rows=len(frames), slices=sequence.labels is not None,
        meshes=sequence.vertices is not None, curves=bool(volumes_ml) and len(sequence) > 1,
    )  # fmt: skip
    for row, (name, frame) in enumerate(frames.items()):
        layout.write(LEFT - 14, layout.row_top(row) + CELL / 2, name, size=13, color=INK,
                     weight="bold", rotation=90)  # fmt: skip
        if layout.slices:
            here = pose.spanning(_pool_points(sequence, frame))
            _draw_slices(layout, row, sequence, frame, here, half_width_mm)
        if layout.meshes:
            _draw_rendering(layout, row, sequence, frame, pose, half_width_mm)
    if layout.curves:
        _draw_curves(layout, sequence, volumes_ml, reference_bands or {}, frames.get("ES"))
    _draw_heading(layout, title or sequence.subject_id, subtitle, marks)
    put_canvas(layout.figure, np.rint(np.clip(layout.canvas, 0.0, 1.0) * 255).astype(np.uint8))
    return layout.figure


def _pose(sequence: Sequence, frame: int) -> HeartAxes:
    if sequence.vertices is not None:
        return axes_from_mesh(sequence.vertices[frame], sequence.topology)
    return axes_from_labels(sequence.labels[frame], sequence.grid)


def _pool_points(sequence: Sequence, frame: int) -> NDArray[np.float64]:
    """Return points of the LV pool, world mm ``(N, 3)``."""
    if sequence.vertices is not None:
        return sequence.vertices[frame][np.unique(sequence.topology.surfaces[Surface.LV_ENDO])]
    return sequence.grid.to_world(np.argwhere(sequence.labels[frame] == Structure.LV))


def _draw_heading(layout: Layout, title: str, subtitle: str, marks: Marks) -> None:
    layout.write(LEFT, 16, title, size=16, color=INK, weight="bold", ha="left", va="top")
    layout.write(LEFT, 43, subtitle, size=11, color=FAINT, ha="left", va="top")
    right = layout.width - RIGHT - 5
    for word in marks.words:
        badge = layout.write(right, 21, word.upper(), size=9, color=WHITE, weight="bold",
                             ha="right", va="top")  # fmt: skip
        badge.set_bbox({"boxstyle": "round,pad=0.45", "facecolor": INK, "edgecolor": "none"})
        right = badge.get_window_extent().x0 - 20


def _draw_slices(
    layout: Layout,
    row: int,
    sequence: Sequence,
    frame: int,
    pose: HeartAxes,
    half_width_mm: float,
) -> None:
    planes = [short_axis_plane(pose, level) for level in SLICE_LEVELS.values()]
    planes.append(four_chamber_plane(pose))
    pictures = slice_pictures(
        sequence.labels[frame], sequence.grid, planes, half_width_mm=half_width_mm, pixels=CELL
    )
    top = layout.row_top(row)
    _add_scale_bar(pictures[0], half_width_mm)
    layout.write(LEFT + 14, top + CELL - 20, "20 mm", size=8.5, color=WHITE, ha="left",
                 va="bottom")  # fmt: skip
    names = [*SLICE_LEVELS, "four-chamber"]
    for column, (plane, picture) in enumerate(zip(planes, pictures, strict=True)):
        left = LEFT + column * (CELL + GAP)
        layout.paste(left, top, picture)
        _write_letters(layout, left, top, plane)
        if row == 0:
            layout.write(left + CELL / 2, top - 11, names[column], size=10, color=FAINT)


def _write_letters(layout: Layout, left: int, top: int, plane: Plane) -> None:
    near, far, half = 12, CELL - 12, CELL / 2
    for direction, x, y in (
        (-plane.right, near + 2, half), (plane.right, far - 2, half),
        (plane.up, half, near), (-plane.up, half, far),
    ):  # fmt: skip
        layout.write(left + x, top + y, direction_letters(direction), size=8.5, color=PALE)


def _add_scale_bar(picture: NDArray[np.float64], half_width_mm: float) -> None:
    """Draw 20 mm into the lower left corner of a slice, in place."""
    length = round(20.0 / (2.0 * half_width_mm) * CELL)
    picture[CELL - 17 : CELL - 14, 14 : 14 + length] = WHITE


def _draw_rendering(
    layout: Layout,
    row: int,
    sequence: Sequence,
    frame: int,
    pose: HeartAxes,
    half_width_mm: float,
) -> None:
    # The ED camera serves both rows, so that the eye compares sizes.
    camera = heart_camera(pose, half_width_mm=1.04 * half_width_mm)
    picture = render_heart(sequence.vertices[frame], sequence.topology, camera, pixels=CELL)
    alpha = picture[..., 3:]
    layout.paste(
        layout.mesh_left, layout.row_top(row),
        picture[..., :3] * alpha + np.asarray(SLICE_DARK) * (1.0 - alpha),
    )  # fmt: skip
    if row == 0:
        place = layout.mesh_left + CELL / 2, TOP - 11
        layout.write(*place, "mesh, anterior view", size=10, color=FAINT)


def _draw_curves(
    layout: Layout,
    sequence: Sequence,
    volumes_ml: Mapping[str, ArrayLike],
    bands: Mapping[str, Range],
    es: int | None,
) -> None:
    shown = [(name, color) for name, color in (("LV", LV_RED), ("RV", RV_BLUE))
             if name in volumes_ml]  # fmt: skip
    room = layout.row_top(layout.rows) - GAP - TOP
    height = (room - CURVE_GAP * (len(shown) - 1)) / max(len(shown), 1)
    for number, (name, color) in enumerate(shown):
        top = TOP + number * (height + CURVE_GAP)
        draw_volume_curve(
            layout.axes(layout.curve_left, top, CURVE_WIDTH, height),
            sequence.phases, volumes_ml[name], name=name, color=color, ed=sequence.ed, es=es,
            ed_band=bands.get(f"{name}EDV (mL)"), es_band=bands.get(f"{name}ESV (mL)"),
            cycle_s=sequence.cycle_s, last=number == len(shown) - 1,
        )  # fmt: skip
