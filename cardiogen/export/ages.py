"""One heart at several ages: its measures against age, with what is known of ageing itself.

Sources: cross-sectional lines of ``measure.reference``; longitudinal changes of Eng et al.
(Radiology 2016, MESA, 2,935 people followed for 9.4 years).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from cardiogen.data.factors import Sex
from cardiogen.export.layout import DPI, save_png
from cardiogen.export.marks import Marks
from cardiogen.export.palette import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Change per decade within one person, by sex.
LONGITUDINAL: dict[str, dict[Sex, float]] = {
    "LVEDV (mL)": {"M": -9.8, "F": -13.3},
    "LVM (g)": {"M": 8.0, "F": -1.6},
}
CROSS_SECTIONAL = (
    "Cross-sectional: this shows how hearts differ between people of these ages (or other "
    "factors), not how one heart changes over the years. In men the two even differ in sign: left "
    "ventricular mass is 2.9 g a decade lower between older and younger men (Healthy Hearts "
    "Consortium), but rose by 8.0 g a decade in men who were followed for 9.4 years (women: "
    "-1.6 g; MESA, Eng 2016)."
)
MEASURES = ("LVEDV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)")
_WIDTH, _HEIGHT = 900, 690  # pixels
_LINE = "#3b6ea8"


def write_ages(
    path: str | Path,
    ages: ArrayLike,
    measures: dict[str, Sequence[float]],
    *,
    sex: Sex | None,
    title: str,
    marks: Marks,
    overwrite: bool = False,
) -> Path:
    """Write a picture of measures against age.

    Args:
        path: PNG to write.
        ages: years ``(N,)``, the observed one first.
        measures: values ``(N,)`` for each of ``MEASURES``.
        sex: of the heart at all ages; None draws neither reference nor longitudinal change.
        title: heading.
        marks: origin of the hearts.
        overwrite: whether an existing file may be replaced.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    from textwrap import fill

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / DPI, _HEIGHT / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.02, 0.975, " · ".join([title, *marks.words]), fontsize=13, color=INK,
                weight="bold", va="top")  # fmt: skip
    figure.text(0.02, 0.015, fill(CROSS_SECTIONAL, 135), fontsize=8.5, color=FAINT, va="bottom")
    panels = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.08, right=0.98, top=0.84, bottom=0.17, hspace=0.34, wspace=0.2)
    for axes, name in zip(panels.flat, MEASURES, strict=True):
        _panel(axes, np.asarray(ages, np.float64), np.asarray(measures[name]), name, sex)
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", fontsize=8.5, frameon=False, ncols=2,
                  bbox_to_anchor=(0.99, 0.965))  # fmt: skip
    return save_png(figure, path, marks=marks, overwrite=overwrite)


def _panel(axes: Axes, ages: np.ndarray, values: np.ndarray, name: str, sex: Sex | None) -> None:
    from cardiogen.measure.reference import AGE_RANGE, reference

    order = np.argsort(ages, kind="stable")
    if sex is not None:
        known = np.linspace(*AGE_RANGE, 9)
        found = [reference(name, sex=sex, age=float(age)) for age in known]
        axes.fill_between(known, [r.lower for r in found], [r.upper for r in found], color=_LINE,
                          alpha=0.12, linewidth=0, label="healthy people, 95 %")  # fmt: skip
        axes.plot(known, [r.mean for r in found], color=_LINE, alpha=0.35, linewidth=1)
        if name in LONGITUDINAL:
            followed = values[0] + LONGITUDINAL[name][sex] * (ages[order] - ages[0]) / 10.0
            axes.plot(ages[order], followed, "--", color="#b4472e", linewidth=1.6,
                      label="followed over years (MESA)")  # fmt: skip
    axes.plot(ages[order], values[order], "-o", color=_LINE, linewidth=2.2, markersize=5,
              label="this heart, cross-sectional")  # fmt: skip
    axes.plot(ages[0], values[0], "o", color="white", markeredgecolor=INK, markeredgewidth=1.8,
              markersize=8, label="own age")  # fmt: skip
    axes.set_title(name, loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel("age (years)", color=FAINT, fontsize=9)
    axes.tick_params(colors=FAINT, labelsize=9, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
