"""cardiogen: learn, generate and use 3D and 4D cardiac anatomy.

Layers, lowest first: base, ops, data, measure, population, engine, models, synthesis and export,
evaluate, cli. Importing this package imports none of them: the commands below are loaded on first
use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardiogen.cli.age import age
    from cardiogen.cli.check import check
    from cardiogen.cli.complete import complete
    from cardiogen.cli.generate import generate
    from cardiogen.cli.score import score
    from cardiogen.cli.train import train

__version__ = "0.1.0"

# ``cardiogen.measure`` and ``cardiogen.evaluate`` are packages, so their commands go by their full
# names, ``cardiogen.cli.measure.measure`` and ``cardiogen.cli.evaluate.evaluate``.
_COMMANDS = ("age", "check", "complete", "generate", "score", "train")

__all__ = ["__version__", "age", "check", "complete", "generate", "score", "train"]


def __getattr__(name: str) -> object:
    if name in _COMMANDS:
        return getattr(import_module(f"cardiogen.cli.{name}"), name)
    if name in ("measure", "evaluate"):
        return import_module(f"cardiogen.{name}")
    raise AttributeError(f"module 'cardiogen' has no attribute {name!r}")
