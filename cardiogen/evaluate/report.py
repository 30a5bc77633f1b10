"""The report of an evaluation: one JSON with everything, CSV tables, Markdown, HTML, pictures."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from cardiogen import __version__
from cardiogen.base.files import write_json
from cardiogen.evaluate.contests import GROUPS, Duel, group_verdicts
from cardiogen.evaluate.lines import KEPT, MISSED, OPEN, Line, verdicts
from cardiogen.evaluate.page import html_page
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
_AGAINST = """## Against {baseline}

Every model against {baseline} on the same subjects. In brackets the 95 % interval of the
difference, less being better: **better** or **worse** means that all of it lies on one side of
zero. A group is beaten where something is better and nothing worse. Fewer than six
subjects decide nothing.

{groups}

{duels}
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
        "baseline": evaluation.baseline,
        "groups": {n: group_verdicts(evaluation.duels, n) for n in _rivals(evaluation)},
        "duels": [duel.as_dict() for duel in evaluation.duels],
        "verdicts": {name: verdicts(lines, name) for name in evaluation.methods},
        "tasks": {
            task: {"reason": result.reason, "lines": [line.as_dict() for line in result.lines]}
            for task, result in evaluation.results.items()
        },
        "skipped": {reason: list(tasks) for reason, tasks in evaluation.skipped.items()},
    }


def write_report(
    folder: Path, evaluation: Evaluation, provenance: Mapping[str, object]
) -> dict[str, object]:
    """Write ``report.json``, ``.md`` and ``.html``, a CSV for every task and pictures."""
    facts = report_facts(evaluation, provenance)
    write_json(folder / "report.json", facts)
    for task, result in evaluation.results.items():
        if result.lines:
            _write_csv(folder / f"{task}.csv", result.lines)
    pictures = draw_plots(folder, evaluation.results)
    (folder / "report.md").write_text(_markdown(evaluation, facts, pictures), encoding="utf-8")
    page = html_page(
        facts, evaluation.cohort, against(evaluation),
        [(t, r.reason, *table_of(r.lines)) for t, r in evaluation.results.items()],
        {_CAPTIONS[p]: folder / p for p in pictures},
    )  # fmt: skip
    (folder / "report.html").write_text(page, encoding="utf-8")
    return facts


def _rivals(evaluation: Evaluation) -> list[str]:
    met = {duel.method for duel in evaluation.duels}
    return [name for name in evaluation.methods if name in met]


def against(evaluation: Evaluation) -> tuple[list[list[str]], list[list[str]]]:
    """Return the rows of verdicts by group and of all contests, heads first; none if no rivals."""
    rivals = _rivals(evaluation)
    if not rivals:
        return [], []
    verdicts_of = {name: group_verdicts(evaluation.duels, name) for name in rivals}
    groups = [["model", *GROUPS]]
    groups += [[name, *(verdicts_of[name][g] for g in GROUPS)] for name in rivals]
    cells: dict[tuple[str, str, str], dict[str, Duel]] = {}
    for duel in evaluation.duels:
        cells.setdefault((duel.group, duel.metric, duel.unit), {})[duel.method] = duel
    rows = [["group", "metric", "unit", f"{evaluation.baseline}", *rivals]]
    for (group, metric, unit), found in cells.items():
        # Each model meets the baseline on the subjects that both have: nearly always all of them.
        first = next(iter(found.values()))
        base = f"{first.value - first.difference:.3g}"
        rows.append([group, metric, unit, base, *(_duel_cell(found.get(n)) for n in rivals)])
    return groups, rows


def _duel_cell(duel: Duel | None) -> str:
    if duel is None:
        return ""
    text = f"{duel.value:.3g} [{duel.low:+.2g}, {duel.high:+.2g}]"
    if duel.failures:
        text += f", {duel.failures} failed"
    marked = duel.verdict in ("better", "worse")
    return f"{text} **{duel.verdict}**" if marked else text


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
    groups, rows = against(evaluation)
    if groups:
        parts.append(_AGAINST.format(
            baseline=evaluation.baseline, groups=_pipes(groups), duels=_pipes(rows)
        ))  # fmt: skip
    for task, result in evaluation.results.items():
        parts.append(f"## {task.capitalize()}\n")
        if result.reason:
            parts.append(f"Not done: {result.reason}\n")
            continue
        table, notes = table_of(result.lines)
        parts.append("\n".join([_pipes(table), "", *(f"- {note}" for note in notes), ""]))
    if pictures:
        parts.append("## Pictures\n")
    parts += [f"![{_CAPTIONS[p]}]({p})\n\n{_CAPTIONS[p]}\n" for p in pictures]
    return "\n".join(parts)


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in row) + " |" for row in lines)


def table_of(lines: Sequence[Line]) -> tuple[list[list[str]], list[str]]:
    """Return one row for each metric, a column for each method, and why numbers are missing."""
    shown = [line for line in lines if _is_shown(line)]
    methods = list(dict.fromkeys(line.method for line in shown))
    cells: dict[tuple[str, str, str], dict[str, Line]] = {}
    for line in shown:
        cells.setdefault((line.metric, line.of, line.unit), {})[line.method] = line
    rows = [["metric", "of", "unit", "wanted", *methods]]
    for (metric, of, unit), found in cells.items():
        wanted = next((line.wanted for line in found.values() if line.wanted), None)
        rows.append([metric, of, unit, _band(wanted), *(_cell(found.get(m)) for m in methods)])
    return rows, sorted({f"{x.metric}, {x.method}: {x.reason}" for x in lines if x.reason})


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
