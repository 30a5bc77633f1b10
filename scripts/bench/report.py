"""A run as text and picture: CSV of every row, Markdown tables, bars of ratios."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path

import torch

from bench.bars import BARS, Run
from bench.contenders import OURS
from bench.measure import FLOOR, ONE_THREAD, TWO_THREADS, Row
from cardiogen.base import atomic_write

NAMES = ("bench_ops.csv", "bench_ops.md", "bench_ops.png")
_PACKAGES = ("torch", "numba", "triton", "numpy", "monai", "torch-interpol", "SimpleITK",
             "hf-deepali")  # fmt: skip
_NOT_CONTENDERS = (FLOOR, ONE_THREAD, TWO_THREADS)


def write(run: Run, folder: Path, notes: list[str], *, overwrite: bool) -> None:
    """Write ``NAMES`` into the folder."""
    table, text, picture = (folder / name for name in NAMES)
    with (
        atomic_write(table, overwrite=overwrite) as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in run.rows)
    with atomic_write(text, overwrite=overwrite) as path:
        path.write_text("\n".join(markdown(run, notes)) + "\n", encoding="utf-8")
    with atomic_write(picture, overwrite=overwrite) as path:
        _draw(run, path)


def machine(device: str) -> list[str]:
    """Return what the numbers depend on: processor, packages, threads, date."""
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    where = f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if device == "cuda":
        where = f"{torch.cuda.get_device_name()} (CUDA {torch.version.cuda}) in {where}"

    return [f"{datetime.date.today()}, {where}", ", ".join(versions)]


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", told.read_text()) if told.is_file() else None

    return found.group(1).strip() if found else platform.processor() or platform.machine()


def bar_lines(run: Run) -> list[str]:
    """Return the table of bars."""
    rows = [(bar.what, *bar.result(run)) for bar in BARS]

    return list(_table(("what", "bar", "measured", ""), rows))


def markdown(run: Run, notes: list[str]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield "# Warp operators, side by side\n"
    yield from (f"{line}  " for line in (*machine(run.device), *notes))
    yield "\nMedian times of interleaved rounds, float32; in brackets the time over ours in the "
    yield "same rounds (between its quartiles in the CSV). Borders are repeated by all.\n"
    yield from bar_lines(run)
    passes = dict.fromkeys(row.pass_name for row in run.rows)
    for pass_name in passes:
        yield f"\n## {pass_name.capitalize()}\n"
        yield from _times(run, pass_name)
    yield "\n## Memory traffic of the warp forward\n"
    yield f"A copy of a large array moves {run.bandwidth / 1e9:.1f} GB/s. The floor is a "
    yield "streaming add on as many voxels, scaled to the floats that the warp must move.\n"
    yield from _traffic(run)
    yield "\n## Peak memory above the inputs, MiB (in displacement fields)\n"
    yield from _pivot(run, "peak_mib", lambda r: f"{r.peak_mib:.0f} ({r.peak_fields:.1f})")
    yield "\n## Largest error against the reference in float64\n"
    yield from _pivot(run, "max_error", lambda r: f"{r.max_error:.1e}")
    yield "\n## Relative error (L2) against the reference in float64\n"
    yield from _pivot(run, "relative_error", lambda r: f"{r.relative_error:.1e}")


def _contenders(rows: list[Row]) -> list[str]:
    return [n for n in dict.fromkeys(r.contender for r in rows) if n not in _NOT_CONTENDERS]


def _times(run: Run, pass_name: str) -> Iterator[str]:
    rows = [r for r in run.rows if r.pass_name == pass_name]
    names = _contenders(rows)
    lines = []
    for case in dict.fromkeys(r.case for r in rows):
        cells = [case]
        for name in names:
            row = run.row(case, pass_name, name)
            ratio = f" ({row.speedup:.1f}x)" if row and name != OURS else ""
            cells.append(f"{row.median_ms:.3g} ms{ratio}" if row else "")
        lines.append(cells)
    yield from _table(("case", *names), lines)


def _traffic(run: Run) -> Iterator[str]:
    lines = []
    for floor in (r for r in run.rows if r.contender == FLOOR):
        ours = run.row(floor.case, floor.pass_name, OURS)
        share = ours.gb_per_s * 1e9 / run.bandwidth
        lines.append((floor.case, f"{floor.median_ms:.3g} ms", f"{ours.median_ms:.3g} ms",
                      f"{1 / floor.speedup:.2f}", f"{share:.0%}"))  # fmt: skip
    yield from _table(("case", "floor", "ours", "ours / floor", "share of copy"), lines)


def _pivot(run: Run, field: str, cell: Callable[[Row], str]) -> Iterator[str]:
    rows = [r for r in run.rows if getattr(r, field) is not None]
    if not rows:
        yield "Not measured."
        return
    names = _contenders(rows)
    lines = []
    for case, pass_name in dict.fromkeys((r.case, r.pass_name) for r in rows):
        mine = {r.contender: r for r in rows if (r.case, r.pass_name) == (case, pass_name)}
        lines.append((case, pass_name, *(cell(mine[n]) if n in mine else "" for n in names)))
    yield from _table(("case", "pass", *names), lines)


def _table(head: tuple[str, ...], lines: list) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(line)} |" for line in lines)


def _draw(run: Run, path: Path) -> None:
    """Draw how many times longer everybody takes than ours: a panel per pass of the warp."""
    from matplotlib.figure import Figure

    groups: dict[str, list[Row]] = {}
    for row in run.rows:
        kind = row.case.split()[0]
        title = f"warp, {row.pass_name}" if kind == "warp" else "scaling and squaring"
        title = title if kind in ("warp", "svf") else "other operators"
        if row.contender not in _NOT_CONTENDERS:
            groups.setdefault(title, []).append(row)
    figure = Figure(figsize=(13, 3.2 * len(groups)), layout="constrained")
    colors = {n: f"C{i}" for i, n in enumerate(n for n in _contenders(run.rows) if n != OURS)}
    panels = figure.subplots(len(groups), squeeze=False)[:, 0]
    for axes, (title, rows) in zip(panels, groups.items(), strict=True):
        _draw_panel(axes, title, rows, colors)
    figure.suptitle("Time over cardiogen's, same rounds\n" + machine(run.device)[0], fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_panel(axes: object, title: str, rows: list[Row], colors: dict[str, str]) -> None:
    """Draw bars from 1 up (ours is faster) or down, with the quartiles of the rounds."""
    keys = list(dict.fromkeys((r.case, r.pass_name) for r in rows))
    names = [n for n in _contenders(rows) if n != OURS]
    width = 0.85 / max(1, len(names))
    for number, name in enumerate(names):
        for row in (r for r in rows if r.contender == name):
            place = keys.index((row.case, row.pass_name)) + (number + 0.5) * width - 0.425
            first = row is next(r for r in rows if r.contender == name)
            label = name if first else None
            axes.bar(place, row.speedup - 1, width, bottom=1, color=colors[name], label=label)
            low, high = row.speedup_lower_quartile, row.speedup_upper_quartile
            axes.vlines(place, low, high, color="black", linewidth=0.8)
            top = max(row.speedup, high, 1.0)
            axes.annotate(f"{row.speedup:.2g}x", (place, top), (0, 1), fontsize=6, ha="center",
                          textcoords="offset points")  # fmt: skip
    several = len({name for _, name in keys}) > 1
    labels = [c.removeprefix("warp ") + (f" {p}" if several else "") for c, p in keys]
    short = [t.replace("forward+backward", "f+b").replace(" to field", "") for t in labels]
    if len(keys) > 8:
        short = [text.replace(" ", "\n") for text in short]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:.2g}" if max(r.speedup for r in rows) < 5 else "")
    axes.set_xticks(range(len(keys)), short, fontsize=6 if len(keys) > 8 else 8)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set(title=title, ylabel="times ours")
    axes.margins(x=0.01, y=0.12)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
