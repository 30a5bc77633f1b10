"""AHA bullseyes: one value per segment of the left ventricle, seen from the apex.

Rings are basal, mid and apical from outside to inside, the cap in the middle; anterior on top,
septum on the left, as Cerqueira et al. (Circulation 105:539, 2002) draw them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.export.layout import DPI, save_png
from cardiogen.export.marks import Marks
from cardiogen.export.palette import FAINT, INK, PALE, WHITE
from cardiogen.export.strain_curves import definition_name, signed
from cardiogen.measure import Strain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

_RADII = (1.0, 0.74, 0.48, 0.22)
_PANEL, _HEAD, _FOOT, _EDGE, _LINE, _LETTER = 320, 84, 62, 16, 15, 6  # pixels
_MANY = 16
_MISSING, _HATCH = "#e9ecf0", "#c3c9d2"
# Full colors of strain, %: beyond what most healthy segments reach at end systole.
_LIMITS = {"radial": 70.0, "circumferential": 30.0, "longitudinal": 30.0}
# Names beside the rings: word, angle in degrees, rotation of the text.
_WALLS = (("anterior", 90, 0), ("septal", 180, 90), ("inferior", 270, 0), ("lateral", 0, -90))


def segment_wedges(segments: int) -> dict[int, tuple[float, float, float, float]]:
    """Return every segment's outer and inner radius and first and last angle (degrees).

    Args:
        segments: 17, or 16: then nothing is drawn in the middle.
    """
    wedges = {}
    for ring, first in enumerate((1, 7)):
        for step in range(6):
            start = 60.0 + 60.0 * step
            wedges[first + step] = (_RADII[ring], _RADII[ring + 1], start, start + 60.0)
    for step in range(4):
        start = 45.0 + 90.0 * step
        wedges[13 + step] = (_RADII[2], _RADII[3], start, start + 90.0)
    if segments == 17:
        wedges[17] = (_RADII[3], 0.0, 0.0, 360.0)
    return wedges


def draw_bullseye(
    axes: Axes,
    values: ArrayLike,
    *,
    title: str,
    limit: float,
    decimals: int = 0,
    colormap: str = "RdBu_r",
    hatched: Collection[int] = (),
) -> tuple[Colormap, Normalize]:
    """Draw one bullseye; colors run from ``-limit`` to ``limit``, white at 0.

    Args:
        axes: empty matplotlib axes.
        values: of segments 1..17 or 1..16, NaN where there is none (gray, marked by a dash).
        title: over the rings.
        limit: value of the full color, positive.
        decimals: of the labels.
        colormap: a diverging one.
        hatched: segments whose lack of a value has a reason in a caption.

    Returns:
        Colors and their range, for a color bar.
    """
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    from matplotlib.patches import Wedge

    values = np.asarray(values, dtype=np.float64)
    if values.shape not in ((16,), (17,)):
        raise ValueError(f"values must be those of 16 or 17 segments, got shape {values.shape}")
    if not limit > 0:
        raise ValueError(f"limit must be positive, got {limit}")
    colors, scale = colormaps[colormap], Normalize(-limit, limit)
    for segment, (outer, inner, start, end) in segment_wedges(len(values)).items():
        value = values[segment - 1]
        known = bool(np.isfinite(value))
        face = colors(scale(value)) if known else _MISSING
        axes.add_patch(Wedge((0, 0), outer, start, end, width=outer - inner, facecolor=face,
                             edgecolor=WHITE, linewidth=2.0))  # fmt: skip
        if not known and segment in hatched:
            axes.add_patch(Wedge((0, 0), outer, start, end, width=outer - inner, fill=False,
                                 hatch="////", edgecolor=_HATCH, linewidth=0.0))  # fmt: skip
        middle, turn = (outer + inner) / 2 if inner else 0.0, np.radians((start + end) / 2)
        text = signed(value, decimals) if known else "\N{EN DASH}"
        axes.text(middle * np.cos(turn), middle * np.sin(turn), text, fontsize=9.5, ha="center",
                  va="center", color=_ink_on(face) if known else FAINT)  # fmt: skip
    for word, angle, rotation in _WALLS:
        x, y = 1.1 * np.cos(np.radians(angle)), 1.1 * np.sin(np.radians(angle))
        axes.text(x, y, word, fontsize=8.5, color=FAINT, ha="center", va="center",
                  rotation=rotation)  # fmt: skip
    axes.set_title(title, fontsize=11.5, color=INK, weight="bold", pad=4)
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    axes.set_axis_off()
    return colors, scale


def _ink_on(face: tuple[float, ...]) -> str | tuple[float, ...]:
    """Dark or white ink, whichever reads better on a color."""
    luminance = float(np.dot(face[:3], (0.299, 0.587, 0.114)))
    return INK if luminance > 0.55 else WHITE


def bullseye_figure(
    panels: Mapping[str, ArrayLike],
    *,
    unit: str,
    title: str = "",
    subtitle: str = "",
    limits: Mapping[str, float] | None = None,
    decimals: int = 0,
    reasons: Mapping[str, Mapping[int, str]] | None = None,
) -> Figure:
    """Draw bullseyes side by side, each with its own color bar.

    Args:
        panels: title of a panel -> values of its 16 or 17 segments.
        unit: of all values, beside the color bars.
        title: heading.
        subtitle: second line.
        limits: title of a panel -> least value of the full color, so that colors of several
            hearts mean the same; larger values widen the range to the next multiple of 10.
        decimals: of the labels.
        reasons: title of a panel -> segment -> why it has no value: hatched, and told below.

    Returns:
        Figure with an Agg canvas.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("panels must hold at least one bullseye, got none")
    told = reasons or {}
    width = 2 * _EDGE + len(panels) * _PANEL
    lines = _caption(told, width - 2 * _EDGE)
    foot = _FOOT + len(lines) * _LINE
    height = _HEAD + _PANEL + foot
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(_EDGE / width, 1 - 16 / height, title, fontsize=14, color=INK, weight="bold",
                va="top")  # fmt: skip
    figure.text(_EDGE / width, 1 - 40 / height, subtitle, fontsize=9.5, color=FAINT, va="top")
    for number, (name, values) in enumerate(panels.items()):
        left = _EDGE + number * _PANEL
        axes = figure.add_axes((left / width, foot / height, _PANEL / width, _PANEL / height))
        limit = max((limits or {}).get(name, 0.0), _round_limit(values))
        colors, scale = draw_bullseye(axes, values, title=name, limit=limit, decimals=decimals,
                                      hatched=told.get(name, {}))  # fmt: skip
        if not np.isfinite(np.asarray(values)).any():
            continue
        place = (
            (left + 0.2 * _PANEL) / width,
            (foot - 16) / height,
            0.6 * _PANEL / width,
            9 / height,
        )
        bar = figure.add_axes(place)
        colorbar = figure.colorbar(ScalarMappable(scale, colors), cax=bar,
                                   orientation="horizontal")  # fmt: skip
        colorbar.set_ticks([-limit, -limit / 2, 0, limit / 2, limit])
        colorbar.outline.set_edgecolor(PALE)
        bar.tick_params(colors=FAINT, labelsize=8, length=2)
        bar.set_xlabel(unit, color=FAINT, fontsize=8.5, labelpad=1)
    for number, line in enumerate(reversed(lines)):
        figure.text(_EDGE / width, (6 + number * _LINE) / height, line, fontsize=9, color=FAINT,
                    va="bottom")  # fmt: skip
    return figure


def _caption(reasons: Mapping[str, Mapping[int, str]], width: int) -> list[str]:
    """Say once why segments are hatched: reasons that all panels share, or those of each."""
    from textwrap import wrap

    segments: dict[str, list[int]] = {}
    for of in reasons.values():
        for segment, reason in of.items():
            segments.setdefault(reason, []).append(segment)
    lines = []
    for reason, found in segments.items():
        few = sorted(set(found))
        word = "segment" if len(few) == 1 else "segments"
        where = f"{word} {', '.join(map(str, few))}" if len(few) < _MANY else "all segments"
        lines += wrap(f"Hatched, {where}: {reason}", width // _LETTER)
    return lines


def _round_limit(values: ArrayLike) -> float:
    """Largest absolute value rounded up to a multiple of 10, so that half of it is whole too."""
    known: NDArray = np.abs(np.asarray(values, np.float64))
    known = known[np.isfinite(known)]
    return max(10.0, 10.0 * float(np.ceil(known.max() / 10.0))) if known.size else 10.0


def strain_bullseye(strain: Strain, *, frame: int | None = None, title: str = "") -> Figure:
    """Draw radial, circumferential and longitudinal strain of the segments in percent.

    Args:
        strain: what ``field_strain`` or ``mesh_strain`` returned.
        frame: which frame; None takes end systole.
        title: heading.

    Raises:
        ValueError: without ``frame`` if the end-systolic frame is unknown, or for sectors.
    """
    frame = strain.es if frame is None else frame
    if frame is None:
        raise ValueError("frame must be given where es is unknown, got None")
    if strain.level != "segment":
        raise ValueError(f"strain must be that of AHA segments, got {strain.level}s")
    panels, limits, reasons = {}, {}, {}
    for name, limit in _LIMITS.items():
        whole = 100.0 * strain.curve(name)[frame]
        mean = f"{signed(whole, 1)} %" if np.isfinite(whole) else "not measured"
        at = strain.components.index(name)
        heading = f"{name.capitalize()}: {mean}"
        panels[heading], limits[heading] = 100.0 * strain.segments[frame, at], limit
        missing = np.flatnonzero(~np.isfinite(panels[heading])) + 1
        told = {int(s): strain.reasons.get((name, int(s)), "") for s in missing}
        reasons[heading] = {s: why for s, why in told.items() if why}
    when = "end systole" if frame == strain.es else f"frame {frame}"
    kind = definition_name(strain)
    subtitle = (
        f"{kind} strain at {when}, relative to end diastole; means of the whole ventricle in bold"
    )
    return bullseye_figure(panels, unit="strain (%)", title=title or "Strain by AHA segment",
                           subtitle=subtitle, limits=limits, reasons=reasons)  # fmt: skip


def write_bullseye(
    path: str | Path,
    strain: Strain,
    *,
    frame: int | None = None,
    title: str = "",
    marks: Marks,
    overwrite: bool = False,
) -> Path:
    """Write ``strain_bullseye`` as PNG, atomically and with the same bytes each time.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    figure = strain_bullseye(strain, frame=frame, title=" · ".join([
        title or "Strain by AHA segment", *marks.words]))  # fmt: skip
    return save_png(figure, path, marks=marks, overwrite=overwrite)
