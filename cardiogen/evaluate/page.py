"""The HTML page of a report: one file with its pictures inside, which needs no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from cardiogen.evaluate.contests import BEATS, EQUALS, LOSES, MIXED
from cardiogen.evaluate.lines import KEPT, MISSED, OPEN

Rows = Sequence[Sequence[str]]
# Marks of report.md -> what the page shows; the class of a mark is its own word.
_MARKS = {
    f"**{MISSED}**": MISSED, f"*{OPEN}*": OPEN, "**better**": "better", "**worse**": "worse",
}  # fmt: skip

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of {{ name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2733; margin: 0 auto; max-width: 1760px;
  padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 8px; }
p { max-width: 78ch; } .quiet { color: #5b6773; }
nav a { margin-right: 14px; color: #0b5cad; text-decoration: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; border-bottom: 1px solid #e3e8ed; text-align: left;
  vertical-align: top; }
th { background: #f3f6f9; white-space: nowrap; }
td:first-child, td:nth-child(2) { min-width: 14ch; }
tr:hover td { background: #f8fafc; }
.mark { border-radius: 3px; padding: 0 5px; font-size: 12px; white-space: nowrap; }
.missed, .worse, .loses { background: #fbdcd9; color: #8c1d13; }
.undecided, .mixed { background: #fdf0cd; color: #76540a; }
.better, .beats, .kept { background: #d8f0df; color: #14602f; }
.equals { background: #e7ecf1; color: #33414f; }
ul { color: #5b6773; font-size: 13px; }
figure { margin: 18px 0; } figure img { max-width: 100%; } figcaption { color: #5b6773; }
</style></head><body>
<h1>Evaluation of {{ name }}</h1>
<p class="quiet">Cohort {{ cohort }}, seed {{ facts.seed }}, {{ facts.size.hearts }} held-out
hearts, cardiogen {{ facts.versions.cardiogen }}.</p>
<nav>{% for task, _, _, _ in tasks %}<a href="#{{ task }}">{{ task }}</a>{% endfor %}</nav>
{% macro cell(text, whole) -%}
{%- set ns = namespace(text=text, mark="") -%}
{%- for old, new in marks.items() -%}{%- if old in ns.text -%}
{%- set ns.text = ns.text.replace(old, "") -%}{%- set ns.mark = new -%}{%- endif -%}{%- endfor -%}
{%- if whole and text in words -%}<span class="mark {{ text }}">{{ text }}</span>
{%- else -%}{{ ns.text }}{% if ns.mark %}<span class="mark {{ ns.mark }}">{{ ns.mark }}</span>
{%- endif -%}{%- endif -%}
{%- endmacro %}
{% macro table(rows) -%}
<div class="wide"><table><tr>{% for head in rows[0] %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in rows[1:] %}<tr>{% for text in row %}<td>{{ cell(text, true) }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{%- endmacro %}
{% if groups %}<h2>Against {{ facts.baseline }}</h2>
<p>Every model on the same subjects as {{ facts.baseline }}. In brackets the 95&nbsp;% interval of
the difference, less being better: better or worse means that all of it lies on one side of zero. A
group is beaten where something is better and nothing worse.</p>
{{ table(groups) }}<br>{{ table(duels) }}{% endif %}
<h2>Bars</h2>
<p>A value is followed by its 95&nbsp;% interval. Missed: the whole interval lies outside what is
wanted. Undecided: the value does, its interval does not. Failed subjects are counted and in no
other number.</p>
{{ table(counts) }}
{% for task, reason, rows, notes in tasks %}<h2 id="{{ task }}">{{ task.capitalize() }}</h2>
{% if reason %}<p class="quiet">Not done: {{ reason }}</p>{% else %}{{ table(rows) }}
{% if notes %}<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}{% endif %}
{% endfor %}
{% for caption, source in pictures.items() %}<figure><img src="{{ source }}" alt="{{ caption }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
</body></html>
"""


def html_page(
    facts: Mapping[str, object],
    cohort: str,
    against: tuple[Rows, Rows],
    tasks: Sequence[tuple[str, str | None, Rows, Sequence[str]]],
    pictures: Mapping[str, Path],
) -> str:
    """Return the page.

    Args:
        facts: those of ``report.json``.
        cohort: its name.
        against: verdicts by group and contests; empty without rivals.
        tasks: name, reason why there is nothing, rows with their head, notes.
        pictures: caption -> PNG file.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    sources = {
        caption: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
        for caption, path in pictures.items()
    }
    verdicts = facts["verdicts"]
    counts = [["model", KEPT, OPEN, MISSED]]
    counts += [[n, *(str(verdicts[n][w]) for w in (KEPT, OPEN, MISSED))] for n in verdicts]
    return environment.from_string(_PAGE).render(
        name=facts["model"]["name"], facts=facts, cohort=cohort, groups=against[0],
        duels=against[1], counts=counts, tasks=tasks, pictures=sources, marks=_MARKS,
        words=(BEATS, EQUALS, LOSES, MIXED),
    )  # fmt: skip
