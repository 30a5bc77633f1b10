"""Runs the command line inside this process, always in an empty folder of its own."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cardiogen.cli.app import main
from cardiogen.cli.generate import generate


@dataclass(frozen=True)
class Ran:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Standard output as strict JSON: NaN and infinity are no numbers there."""
        return json.loads(self.out, parse_constant=lambda word: pytest.fail(f"JSON has {word}"))

    @property
    def fault(self):
        """The error that ``--json`` shows."""
        return json.loads(self.err)["error"]


def _leftovers(folder):
    return list(folder.rglob(".cg-tmp-*"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs ``cardiogen`` with arguments and checks what always holds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["cardiogen", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit, match=r"^\d+$") as ended:
            main()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        assert _leftovers(tmp_path) == []
        return Ran(int(ended.value.code or 0), shown.out, shown.err)

    return call


@pytest.fixture
def refused(run, tmp_path):
    """Return a function that asserts a refusal: status, code, one line, nothing changed."""

    def call(*arguments, status, code, words=""):
        before = _tree(tmp_path)
        ran = run(*arguments)
        assert ran.code == status, ran.err
        assert ran.out == ""
        (line,) = ran.err.splitlines()
        assert line.startswith(f"cardiogen: CG-{code} ")
        for part in (": found ", "; expected ", "; try "):
            assert part in line
        assert words in line
        assert _tree(tmp_path) == before
        return line

    return call


def _tree(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture
def tree():
    """Return a function from a folder to the SHA-256 of its files by relative path."""
    return _tree


@pytest.fixture(scope="session")
def heart(tmp_path_factory):
    """One whole heart, made as ``cardiogen generate --age 70 --sex F --out heart`` does."""
    return generate(out=tmp_path_factory.mktemp("one") / "heart", age=70, sex="F")


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """Five small hearts of a table with gaps."""
    folder = tmp_path_factory.mktemp("many")
    rows = ["subject_id,age,sex,height_cm,weight_kg,sbp_mmhg", "a1,70,F,160,60,130",
            "b2,,M,180,,", "007,45,f,,,", "d4,60,M,175,82,140", "e 5,30,,,,"]  # fmt: skip
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    return generate(
        out=folder / "cohort", cohort=folder / "table.csv", frames=6, spacing_mm=3.0,
        formats="nifti,csv", workers=1,
    )  # fmt: skip
