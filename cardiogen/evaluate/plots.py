"""The pictures of a report, drawn on matplotlib's Agg canvas without pyplot or dates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.evaluate.ends import MEASURES
from cardiogen.evaluate.lines import Array, Result
from cardiogen.measure.distribution import LEVELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = ("LVEDV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)")
_COLORS = ("black", "tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown",
           "tab:pink", "tab:olive", "tab:cyan")  # fmt: skip
_DPI = 110
_NO_MODELS = ("held-out", "copy ED", "mean motion")


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


def _colored(
    items: Iterable[tuple[str, Array]], *, first: int = 0
) -> Iterator[tuple[str, tuple[str, Array]]]:
    """Pair items with colors, which come again after the tenth: none is left out."""
    yield from zip(islice(cycle(_COLORS), first, None), items, strict=False)


def _legend(figure: Figure, axes: Axes) -> None:
    """Name what the last axes show under all of them: names are long and must hide no data."""
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )


def _draw_phenotypes(tables: Mapping[str, Array]) -> Figure:
    """Cumulative shares: they show shift, spread and tails without bins."""
    figure = _figure(8.5, 6.5)
    for axes, measure in zip(figure.subplots(2, 2).flat, _SHOWN, strict=True):
        column = MEASURES.index(measure)
        for color, (name, table) in _colored(tables.items()):
            values = np.sort(table[np.isfinite(table[:, column]), column])
            share = 100 * (np.arange(len(values)) + 0.5) / max(len(values), 1)
            axes.step(values, share, where="mid", color=color, label=name, linewidth=1.4)
        axes.set_xlabel(measure.replace(" (", ", ").rstrip(")"))
        axes.set_ylabel("hearts below, %")
        axes.grid(alpha=0.3)
    _legend(figure, axes)
    figure.suptitle("Phenotypes of hearts with the same factors")
    return figure


def _draw_coverage(tables: Mapping[str, Array]) -> Figure:
    figure = _figure(5.2, 5.0)
    axes = figure.subplots()
    nominal = 100 * np.array(LEVELS)
    axes.plot([45, 100], [45, 100], color="gray", linewidth=0.8, label="honest")
    for color, (name, pooled) in _colored(tables.items(), first=1):
        if pooled is not None:
            axes.plot(nominal, 100 * pooled, marker="o", color=color, label=name)
    axes.set_xlabel("nominal coverage of intervals, %")
    axes.set_ylabel("true values inside, %")
    axes.set_title("Intervals given all factors")
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    return figure


def _draw_ejection(tables: Mapping[str, Array]) -> Figure:
    figure = _figure(9.0, 4.6)
    real = tables["held-out"]
    for column, (axes, name) in enumerate(
        zip(figure.subplots(1, 2), ("LVEF", "RVEF"), strict=True)
    ):
        span = [float(np.nanmin(real[:, column])), float(np.nanmax(real[:, column]))]
        axes.plot(span, span, color="gray", linewidth=0.8)
        # Models first: they have the colors that they have in the other pictures.
        methods = [(n, t) for n, t in tables.items() if n not in _NO_MODELS]
        methods.append(("mean motion", tables["mean motion"]))
        for color, (method, table) in _colored(methods, first=1):
            axes.scatter(real[:, column], table[:, column], s=16, color=color, label=method)
        axes.set_xlabel(f"true {name}, %")
        axes.set_ylabel(f"{name} predicted from ED, %")
        axes.grid(alpha=0.3)
    _legend(figure, axes)
    figure.suptitle("Ejection fraction from the ED label map")
    return figure
