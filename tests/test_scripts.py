"""Scripts answer --help and stay thin; the README's set-up lines are the ones that CI runs."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_script_answers_help(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(path.parent)  # as ``python scripts/NAME.py`` has it
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(path), run_name="__main__")
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["complete_sequence", "generate_cohort", "train_generator"])
def test_example_scripts_are_under_60_lines(name):
    assert len((ROOT / "scripts" / f"{name}.py").read_text().splitlines()) < 60


def test_readme_starts_with_the_whole_set_up():
    blocks = re.findall(r"```\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    set_up = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && "
    generate = ".venv/bin/cardiogen generate --age 70 --sex F --out heart --overwrite"
    assert blocks[0] == set_up + generate
    assert blocks[1] == set_up + ".venv/bin/pytest"
    assert blocks[1] in (ROOT / ".ci" / "run").read_text()


def test_readme_pictures_exist():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / picture).is_file()


def test_readme_has_no_gaps():
    assert not re.search(
        r"\b(NUMBERS|VALIDITY|COMPLETION|TIMING|TODO)\b", (ROOT / "README.md").read_text()
    )
