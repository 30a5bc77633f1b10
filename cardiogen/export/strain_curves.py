"""Strain from ED on: the whole ventricle thick, segments thin, end diastole and systole marked."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardiogen.export.layout import DPI, save_png
from cardiogen.export.marks import Marks
from cardiogen.export.palette import FAINT, INK, PALE, rgb
from cardiogen.measure import Strain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_WIDTH, _HEIGHT, _LEFT, _BETWEEN, _HEAD, _FOOT = 300, 250, 60, 62, 92, 78  # pixels
# Basal, mid, apical, cap: dark to light, and apart for color-blind eyes.
_LEVELS = (
    ("basal", slice(0, 6), rgb("#2f5d8a")),
    ("mid", slice(6, 12), rgb("#3f9b8f")),
    ("apical", slice(12, 16), rgb("#d99a2b")),
    ("apex", slice(16, 17), rgb("#b0568f")),
)
_SECTORS = (("sectors of the slice", slice(0, 6), rgb("#3f9b8f")),)
_SHOWN = ("radial", "circumferential", "longitudinal")


def draw_strain_curves(axes: Axes, strain: Strain, component: str) -> None:
    """Draw one component: segments thin and colored by level, the whole ventricle thick.

    Args:
        axes: empty matplotlib axes.
        strain: what ``field_strain`` or ``mesh_strain`` returned.
        component: one of its components.
    """
    times = _times(strain)
    at = strain.components.index(component)
    for _, part, color in _groups(strain):
        curves = 100.0 * strain.segments[:, at, part]
        known = np.isfinite(curves).all(axis=0)
        for curve in curves[:, known].T:
            axes.plot(times, _closed(strain, curve), color=color, linewidth=0.9, alpha=0.75)
    whole = _closed(strain, 100.0 * strain.whole[:, at])
    axes.set_title(component.replace("_", ", ").capitalize(), color=INK, fontsize=11, loc="left",
                   pad=6)  # fmt: skip
    axes.set_ylabel("strain (%)", color=FAINT, fontsize=9.5)
    _finish(axes, strain, times)
    if not np.isfinite(whole).all():
        reason = strain.reasons.get((component, 0), "not measured")
        axes.text(0.5, 0.5, fill(reason, 30), transform=axes.transAxes, color=FAINT, fontsize=9,
                  ha="center", va="center")  # fmt: skip
        axes.set_yticks([])
        return
    axes.plot(times, whole, color=INK, linewidth=2.8, solid_joinstyle="round")
    _mark_phases(axes, strain, times, whole, " %")


def draw_twist(axes: Axes, strain: Strain) -> None:
    """Draw the rotation of all planes, from apex to base, and the twist, in degrees."""
    times, twist = _times(strain), strain.twist
    span = max(float(np.ptp(twist.levels)), 1e-9) if len(twist.levels) else 1.0
    low, high = np.array(_LEVELS[2][2]), np.array(_LEVELS[0][2])
    for level, curve in zip(twist.levels, twist.rotation.T, strict=True):
        share = (level - twist.levels.min()) / span
        color = tuple((1 - share) * low + share * high)
        axes.plot(times, _closed(strain, curve), color=color, linewidth=0.9, alpha=0.75)
    axes.set_title("Twist (apex less base)", color=INK, fontsize=11, loc="left", pad=6)
    axes.set_ylabel("rotation (deg)", color=FAINT, fontsize=9.5)
    _finish(axes, strain, times)
    if np.isfinite(twist.twist).all():
        whole = _closed(strain, twist.twist)
        axes.plot(times, whole, color=INK, linewidth=2.8, solid_joinstyle="round")
        _mark_phases(axes, strain, times, whole, "°")
    elif strain.reasons.get(("twist", 0)):
        axes.text(0.5, 0.97, fill(f"no twist: {strain.reasons['twist', 0]}", 42), color=FAINT,
                  transform=axes.transAxes, fontsize=9, ha="center", va="top")  # fmt: skip


def strain_figure(strain: Strain, *, title: str = "") -> Figure:
    """Draw radial, circumferential and longitudinal strain and twist side by side.

    Returns:
        Figure with an Agg canvas.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = len(_SHOWN) + 1
    width = _LEFT + panels * _WIDTH + (panels - 1) * _BETWEEN + 24
    height = _HEAD + _HEIGHT + _FOOT
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    kind = definition_name(strain)
    figure.text(16 / width, 1 - 14 / height, title or "Strain over the cycle", fontsize=14,
                color=INK, weight="bold", va="top")  # fmt: skip
    figure.text(16 / width, 1 - 40 / height, f"{kind} strain relative to end diastole; "
                "rotation is positive counterclockwise seen from the apex", fontsize=9.5,
                color=FAINT, va="top")  # fmt: skip
    for number in range(panels):
        left = _LEFT + number * (_WIDTH + _BETWEEN)
        axes = figure.add_axes((left / width, _FOOT / height, _WIDTH / width, _HEIGHT / height))
        if number < len(_SHOWN):
            draw_strain_curves(axes, strain, _SHOWN[number])
        else:
            draw_twist(axes, strain)
    _legend(figure, strain, width, height)
    return figure


def _legend(figure: Figure, strain: Strain, width: int, height: int) -> None:
    """Name thick and thin lines once, below all panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=INK, linewidth=2.8, label="whole ventricle")]
    for name, part, color in _groups(strain):
        if np.isfinite(strain.segments[:, :, part]).all(axis=0).any():
            handles.append(Line2D([], [], color=color, linewidth=1.4, label=name))
    figure.legend(handles=handles, loc="lower left", ncols=len(handles), frameon=False,
                  fontsize=9, labelcolor=FAINT, handlelength=1.6,
                  bbox_to_anchor=((_LEFT - 10) / width, 4 / height))  # fmt: skip


def write_strain_curves(
    path: str | Path, strain: Strain, *, title: str = "", marks: Marks, overwrite: bool = False
) -> Path:
    """Write ``strain_figure`` as PNG, atomically and with the same bytes each time.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    heading = " · ".join([title or "Strain over the cycle", *marks.words])
    figure = strain_figure(strain, title=heading)
    return save_png(figure, path, marks=marks, overwrite=overwrite)


def _groups(strain: Strain) -> tuple:
    return _LEVELS if strain.level == "segment" else _SECTORS


def _order(strain: Strain) -> NDArray[np.int64]:
    """Frames as they follow in the cycle, from phase 0 on."""
    return np.argsort(strain.phases, kind="stable")


def _times(strain: Strain) -> Array:
    """Times (s, or fractions of the cycle); the first frame again if the cycle closes."""
    scale = 1.0 if strain.cycle_s is None else strain.cycle_s
    phases = strain.phases[_order(strain)]
    return (np.append(phases, phases[0] + 1.0) if strain.closes else phases) * scale


def _closed(strain: Strain, curve: Array) -> Array:
    curve = curve[_order(strain)]
    return np.append(curve, curve[0]) if strain.closes else curve


def _mark_phases(axes: Axes, strain: Strain, times: Array, values: Array, unit: str) -> None:
    """Draw the line of no strain, end diastole, and end systole with its value."""
    axes.axhline(0.0, color=PALE, linewidth=0.8, zorder=0)
    place = np.argsort(_order(strain))
    _mark(axes, times[place[strain.ed]], values[place[strain.ed]], "ED", above=True)
    if strain.es is not None and strain.es != strain.ed:
        x, y = times[place[strain.es]], values[place[strain.es]]
        _mark(axes, x, y, f"ES {signed(y, 1)}{unit}", above=bool(y > 0))


def _mark(axes: Axes, x: float, y: float, text: str, *, above: bool) -> None:
    axes.axvline(x, color=FAINT, linewidth=0.9, linestyle=(0, (3, 3)), zorder=0)
    axes.plot(x, y, "o", color="white", markersize=7, markeredgecolor=INK, markeredgewidth=2.0,
              clip_on=False, zorder=5)  # fmt: skip
    axes.annotate(
        text, (x, y), color=INK, fontsize=9.5, weight="bold",
        xytext=(9, 9 if above else -9), textcoords="offset points", ha="left",
        va="bottom" if above else "top", zorder=6,
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0},
    )  # fmt: skip


def _finish(axes: Axes, strain: Strain, times: Array) -> None:
    if len(times) > 1:
        axes.set_xlim(times[0], times[-1])
    unit = "time (s)" if strain.cycle_s is not None else "fraction of the cycle"
    axes.set_xlabel(unit, color=FAINT, fontsize=9.5, labelpad=2)
    axes.margins(y=0.17)
    axes.locator_params(axis="y", nbins=6)
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def signed(value: float, decimals: int) -> str:
    """Return a number with a minus sign as wide as a digit, and none before zero."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def definition_name(strain: Strain) -> str:
    """Return the name of a strain's definition as a sentence begins."""
    return {"engineering": "Engineering", "green_lagrange": "Green-Lagrange"}[strain.definition]
