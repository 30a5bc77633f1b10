"""The report of an evaluation: one JSON with everything, CSV tables, Markdown and pictures."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from cardiogen import __version__
from cardiogen.base.files import write_json
from cardiogen.evaluate.lines import KEPT, MISSED, OPEN, Line, verdicts
from cardiogen.evaluate.plots import draw_plots
from cardiogen.evaluate.run import Evaluation

_SCHEMA = 1
_COLUMNS = ("metric", "of", "method", "value", "low", "high", "unit", "count", "failures",
            "wanted_low", "wanted_high", "verdict", "reason")  # fmt: skip
_LISTS = ("slope on", "violations of")  # long lists stay in the CSV
_CAPTIONS = {
    "phenotypes.png": "Cumulative share of hearts below each value.",
    "coverage.png": "Share of true values inside conditional intervals.",
    "ejection.png": "Ejection fraction predicted from end diastole against the truth.",
}
_HEAD = """# Evaluation of {name}

Cohort: {cohort}. Seed {seed}; {hearts} held-out hearts. A value is followed by its 95 % interval;
**missed** means that the whole interval lies outside what is wanted, *undecided* that the value
does but its interval does not. Failed subjects are counted and in no other number.

| model | kept | undecided | missed |
| --- | --- | --- | --- |
{verdicts}
"""


def report_facts(evaluation: Evaluation, provenance: Mapping[str, object]) -> dict[str, object]:
    """Return everything that was found as JSON-ready facts; nothing depends on the clock."""
    lines = [line for r in evaluation.results.values() for line in r.lines]
    return {
        "schema_version": _SCHEMA,
        "command": "evaluate",
        **provenance,
        "versions": {
            "cardiogen": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "torch")},
        },
        "subjects_left_out": evaluation.left_out,
        "methods": list(evaluation.methods),
        "verdicts": {name: verdicts(lines, name) for name in evaluation.methods},
        "tasks": {
            task: {"reason": result.reason, "lines": [line.as_dict() for line in result.lines]}
            for task, result in evaluation.results.items()
        },
    }


def write_report(
    folder: Path, evaluation: Evaluation, provenance: Mapping[str, object]
) -> dict[str, object]:
    """Write ``report.json``, a CSV for every task, pictures and ``report.md`` into a folder."""
    facts = report_facts(evaluation, provenance)
    write_json(folder / "report.json", facts)
    for task, result in evaluation.results.items():
        if result.lines:
            _write_csv(folder / f"{task}.csv", result.lines)
    pictures = draw_plots(folder, evaluation.results)
    (folder / "report.md").write_text(_markdown(evaluation, facts, pictures), encoding="utf-8")
    return facts


def _write_csv(path: Path, lines: Sequence[Line]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for line in lines:
            low, high = line.wanted or (None, None)
            writer.writerow(line.as_dict() | {"wanted_low": low, "wanted_high": high})


def _markdown(evaluation: Evaluation, facts: Mapping[str, object], pictures: Sequence[str]) -> str:
    counts = facts["verdicts"]
    rows = "\n".join(
        f"| {name} | {counts[name][KEPT]} | {counts[name][OPEN]} | {counts[name][MISSED]} |"
        for name in evaluation.methods
    )
    parts = [
        _HEAD.format(
            name=facts["model"]["name"], cohort=evaluation.cohort, seed=facts["seed"],
            hearts=facts["size"]["hearts"], verdicts=rows,
        )
    ]  # fmt: skip
    for task, result in evaluation.results.items():
        parts.append(f"## {task.capitalize()}\n")
        parts.append(f"Not done: {result.reason}\n" if result.reason else _table(result.lines))
    if pictures:
        parts.append("## Pictures\n")
    parts += [f"![{_CAPTIONS[p]}]({p})\n\n{_CAPTIONS[p]}\n" for p in pictures]
    return "\n".join(parts)


def _table(lines: Sequence[Line]) -> str:
    """Return one row for each metric and a column for each method."""
    shown = [line for line in lines if _is_shown(line)]
    methods = list(dict.fromkeys(line.method for line in shown))
    cells: dict[tuple[str, str, str], dict[str, Line]] = {}
    for line in shown:
        cells.setdefault((line.metric, line.of, line.unit), {})[line.method] = line
    head = ["metric", "of", "unit", "wanted", *methods]
    rows = [head, ["---"] * len(head)]
    for (metric, of, unit), found in cells.items():
        wanted = next((line.wanted for line in found.values() if line.wanted), None)
        rows.append([metric, of, unit, _band(wanted), *(_cell(found.get(m)) for m in methods)])
    notes = sorted({f"- {x.metric}, {x.method}: {x.reason}" for x in lines if x.reason})
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([table, "", *notes, ""])


def _is_shown(line: Line) -> bool:
    """Whether a line stands in the Markdown: of intervals by phenotype, only those of 90 %."""
    if line.metric.startswith(_LISTS):
        return False
    by_phenotype = "intervals" in line.metric and "(" in line.of
    return not by_phenotype or (" 90 %" in line.metric and line.of.endswith("all factors"))


def _band(wanted: tuple[float | None, float | None] | None) -> str:
    if wanted is None:
        return ""
    low, high = wanted
    if low == high:
        return f"{low:g}"
    if high is None:
        return f"≥ {low:g}"
    return f"≤ {high:.3g}" if low is None else f"{low:.3g} to {high:.3g}"


def _cell(line: Line | None) -> str:
    if line is None:
        return ""
    if line.value is None:
        return "none"
    text = f"{line.value:.3g}"
    if line.low is not None and line.high is not None:
        text += f" [{line.low:.3g}, {line.high:.3g}]"
    if line.failures:
        text += f", {line.failures} failed"
    return text + {MISSED: " **missed**", OPEN: " *undecided*"}.get(line.verdict, "")
