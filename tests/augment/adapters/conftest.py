"""Examples of adapters are the code at their heads; running it is the test."""

import ast
import textwrap
from pathlib import Path

import pytest
import torch

import augment

FOLDER = Path(augment.__file__).parent / "adapters"
MOST_LINES = 20


def example_of(name: str, number: int = 0) -> str:
    """Return an example in the docstring of an adapter, the first if not told otherwise."""
    text = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text()))
    block = text.split("Example::\n\n")[1 + number]
    lines = []
    for line in block.splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line)
    return textwrap.dedent("\n".join(lines)).strip()


@pytest.fixture
def run_example():
    """Return a function that runs an adapter's example and gives back its names."""

    def run(name: str, number: int = 0) -> dict:
        code = example_of(name, number)
        assert len(code.splitlines()) <= MOST_LINES
        module = __import__(f"augment.adapters.{name}", fromlist=["*"])
        names = {**vars(augment), **vars(module), "torch": torch}
        exec(compile(code, f"{name} example", "exec"), names)
        return names

    return run


@pytest.fixture
def shifted():
    """A chain of one shift to the right end of its bound, so that what it does is known."""
    from augment import Affine, Chain

    return Chain(transforms=(Affine(rotation_deg=0, tilt_deg=0, scale=1, shear=0, shift_mm=6.0),))
