"""Who may import whom, read from the source: the order of DESIGN section 2.

One floor more than there: transforms live on a Grid and are saved as NIfTI, so they stand on data.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("cardiogen", "augment", "registration")

# Floor of every layer; a module may import from its own layer and from lower floors.
FLOORS = {
    "cardiogen.base": 0,
    "cardiogen.ops": 1,
    "cardiogen.data": 2,
    "cardiogen.nn": 2,
    "cardiogen.transforms": 3,
    "cardiogen.losses": 4,
    "cardiogen.measure": 5,
    "cardiogen.population": 6,
    "cardiogen.engine": 7,
    "registration": 8,
    "augment": 8,
    "cardiogen.models": 8,
    "cardiogen.synthesis": 9,
    "cardiogen.export": 9,
    "cardiogen.evaluate": 10,
    "cardiogen.cli": 11,
}
SOURCES = sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def layer(module: str) -> str | None:
    """Return the layer of a dotted module name of ours, or None."""
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        if name in FLOORS:
            return name
    return None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def breaches(module: str, imported: set[str]) -> list[str]:
    """Return what a module imports from its own floor's neighbors or from above."""
    mine = layer(module)
    if mine is None:
        return []
    return [
        name
        for name in sorted(imported)
        if (other := layer(name)) is not None and other != mine and FLOORS[other] >= FLOORS[mine]
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert not breaches(module, imports(path)), f"LAYER BREACH in {path}"


def test_a_breach_is_seen() -> None:
    assert breaches("cardiogen.ops.sample", {"cardiogen.data.grid"}) == ["cardiogen.data.grid"]
    assert breaches("registration.track", {"cardiogen.models.linear"}) == [
        "cardiogen.models.linear"
    ]
    assert breaches("cardiogen.synthesis", {"cardiogen.export"}) == ["cardiogen.export"]


def test_importing_cardiogen_is_light() -> None:
    code = "import sys, cardiogen; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["torch", "numpy", "pandas", "nibabel", "matplotlib", "typer"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, cardiogen.cli; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["torch", "pandas", "nibabel", "matplotlib"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
