"""Rules of the source: size, one home for resampling, nothing unsafe, nothing unfinished."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cardiogen", "augment", "registration")
SHIPPED = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))

# Calls that could run or unpack what a file holds, or reach the network.
BANNED_CALLS = {
    "torch.load", "torch.save", "torch.jit.load", "pickle.load", "pickle.loads", "joblib.load",
    "joblib.dump", "yaml.load", "yaml.safe_load", "eval", "exec", "extractall", "urlopen",
}  # fmt: skip
BANNED_MODULES = {"pickle", "dill", "shelve", "marshal", "yaml", "tarfile", "zipfile", "requests",
                  "urllib", "socket"}  # fmt: skip


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def banned(source: str) -> list[str]:
    """Return banned calls, modules and arguments of a source text."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in BANNED_CALLS or name.split(".")[-1] in {"extractall", "urlopen"}:
                found.append(name)
            found += [k.arg for k in node.keywords if k.arg in {"allow_pickle", "shell"}]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in BANNED_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
            BANNED_MODULES
        ):
            found.append(node.module)
    return found


@pytest.mark.parametrize("path", SHIPPED + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_unsafe_and_nothing_unfinished(path: Path) -> None:
    source = path.read_text()
    assert banned(source) == []
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError", source)
    assert not re.search(r"except( Exception)?:\s*(pass)?$", source, re.MULTILINE)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_silent_and_sample_in_one_place(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 400
    assert not re.search(r"^\s*print\(", source, re.MULTILINE)
    if "ops" not in path.parts:
        assert not re.search(r"grid_sample\(|\binterpolate\(", source)


def test_the_ban_is_seen() -> None:
    text = "import pickle\ntorch.load(f)\nnp.load(f, allow_pickle=True)\nz.extractall()"
    assert sorted(banned(text)) == ["allow_pickle", "pickle", "torch.load", "z.extractall"]


def test_every_raises_names_its_message() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and dotted(node.func) == "pytest.raises":
                assert any(k.arg == "match" for k in node.keywords), f"{path}:{node.lineno}"
