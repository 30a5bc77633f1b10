"""The pictures of a report, drawn on matplotlib's Agg canvas without pyplot or dates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.evaluate.hearts import MEASURES
from cardiogen.evaluate.lines import Array, Result
from cardiogen.measure.distribution import LEVELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = ("LVEDV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)")
_COLORS = ("black", "tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple")
_DPI = 110


def draw_plots(folder: Path, results: Mapping[str, Result]) -> list[str]:
    """Write the pictures of which there is data; return their names."""
    drawing = {
        "phenotypes": _draw_phenotypes,
        "coverage": _draw_coverage,
        "ejection": _draw_ejection,
    }
    arrays = {kind: tables for r in results.values() for kind, tables in r.arrays.items()}
    names = []
    for kind, draw in drawing.items():
        if arrays.get(kind):
            figure = draw(arrays[kind])
            figure.savefig(folder / f"{kind}.png", dpi=_DPI, metadata={"Software": None})
            names.append(f"{kind}.png")
    return names


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_phenotypes(tables: Mapping[str, Array]) -> Figure:
    """Cumulative shares: they show shift, spread and tails without bins."""
    figure = _figure(8.5, 6.5)
    for axes, measure in zip(figure.subplots(2, 2).flat, _SHOWN, strict=True):
        column = MEASURES.index(measure)
        for color, (name, table) in zip(_COLORS, tables.items(), strict=False):
            values = np.sort(table[np.isfinite(table[:, column]), column])
            share = 100 * (np.arange(len(values)) + 0.5) / max(len(values), 1)
            axes.step(values, share, where="mid", color=color, label=name, linewidth=1.4)
        axes.set_xlabel(measure.replace(" (", ", ").rstrip(")"))
        axes.set_ylabel("hearts below, %")
        axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.suptitle("Phenotypes of hearts with the same factors")
    return figure


def _draw_coverage(tables: Mapping[str, Array]) -> Figure:
    figure = _figure(5.2, 5.0)
    axes = figure.subplots()
    nominal = 100 * np.array(LEVELS)
    axes.plot([45, 100], [45, 100], color="gray", linewidth=0.8, label="honest")
    for color, (name, pooled) in zip(_COLORS[1:], tables.items(), strict=False):
        if pooled is not None:
            axes.plot(nominal, 100 * pooled, marker="o", color=color, label=name)
    axes.set_xlabel("nominal coverage of intervals, %")
    axes.set_ylabel("true values inside, %")
    axes.set_title("Intervals given all factors")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _draw_ejection(tables: Mapping[str, Array]) -> Figure:
    figure = _figure(9.0, 4.6)
    real = tables["held-out"]
    for column, (axes, name) in enumerate(
        zip(figure.subplots(1, 2), ("LVEF", "RVEF"), strict=True)
    ):
        span = [float(np.nanmin(real[:, column])), float(np.nanmax(real[:, column]))]
        axes.plot(span, span, color="gray", linewidth=0.8)
        methods = [(n, t) for n, t in tables.items() if n not in ("held-out", "copy ED")]
        for color, (method, table) in zip(_COLORS[1:], methods, strict=False):
            axes.scatter(real[:, column], table[:, column], s=16, color=color, label=method)
        axes.set_xlabel(f"true {name}, %")
        axes.set_ylabel(f"{name} predicted from ED, %")
        axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle("Ejection fraction from the ED label map")
    return figure
