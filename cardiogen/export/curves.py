"""A ventricle's volume over the cycle, with the ranges in which healthy hearts lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cardiogen.export.palette import FAINT, INK, Rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONG_NAMES = {"LV": "left ventricle", "RV": "right ventricle"}


def draw_volume_curve(
    axes: Axes,
    phases: ArrayLike,
    volumes_ml: ArrayLike,
    *,
    name: str,
    color: Rgb,
    ed: int,
    es: int | None,
    ed_band: tuple[float, float] | None,
    es_band: tuple[float, float] | None,
    cycle_s: float | None,
    last: bool,
) -> None:
    """Draw one curve into ``axes``.

    Args:
        axes: empty matplotlib axes.
        phases: fraction of the cycle of every frame ``(T,)``.
        volumes_ml: volume of every frame ``(T,)``, mL.
        name: ``"LV"`` or ``"RV"``.
        color: of the ventricle.
        ed: frame of end diastole.
        es: frame of end systole, or None.
        ed_band: reference range of the end-diastolic volume, mL.
        es_band: reference range of the end-systolic volume, mL.
        cycle_s: duration of the cycle in seconds; None draws fractions of the cycle.
        last: whether to label the time axis.
    """
    volumes = np.asarray(volumes_ml, dtype=np.float64)
    scale = 1.0 if cycle_s is None else cycle_s
    # The first frame appears twice so that the eye sees the cycle close.
    times = np.append(phases, np.asarray(phases)[0] + 1.0) * scale
    closed = np.append(volumes, volumes[0])
    for band, label in ((ed_band, "EDV"), (es_band, "ESV")):
        if band is not None:
            axes.axhspan(*band, color=color, alpha=0.13, linewidth=0)
            # Where the other phase has the curve: there the band is empty.
            emptied = times[int(np.argmin(volumes))]
            x, ha = (emptied, "center") if label == "EDV" else (times[-1] * 0.985, "right")
            axes.text(x, (band[0] + band[1]) / 2, f"{label} 95 % reference", color=color,
                      alpha=0.85, fontsize=8.5, ha=ha, va="center")  # fmt: skip
    axes.plot(times, closed, color=color, linewidth=2.4, solid_joinstyle="round")
    marks = [(ed, False)] + ([(es, True)] if es is not None else [])
    for frame, below in marks:
        axes.plot(times[frame], volumes[frame], "o", color="white", markersize=7.5,
                  markeredgecolor=color, markeredgewidth=2.0, clip_on=False, zorder=4)  # fmt: skip
        axes.annotate(
            f"{volumes[frame]:.0f} mL", (times[frame], volumes[frame]), color=INK, fontsize=9.5,
            xytext=(8, -7 if below else 7), textcoords="offset points", ha="left",
            va="top" if below else "bottom", weight="bold",
        )  # fmt: skip
    _style(axes, closed, [b for b in (ed_band, es_band) if b is not None])
    axes.set_xlim(times[0], times[-1])
    axes.set_title(_LONG_NAMES.get(name, name), color=INK, fontsize=10.5, loc="left", pad=6)
    axes.set_ylabel("volume (mL)", color=FAINT, fontsize=9.5)
    if last:
        unit = "time (s)" if cycle_s is not None else "fraction of the cycle"
        axes.set_xlabel(unit, color=FAINT, fontsize=9.5, labelpad=2)
    else:
        axes.tick_params(labelbottom=False)


def _style(axes: Axes, volumes: np.ndarray, bands: list[tuple[float, float]]) -> None:
    values = np.concatenate([volumes, np.ravel(bands)])
    room = 0.12 * max(float(np.ptp(values)), 1.0)
    axes.set_ylim(max(float(values.min()) - room, 0.0), float(values.max()) + room)
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
