"""cardiogen: learn, generate and use 3D and 4D cardiac anatomy.

Layers, lowest first: base, ops, data, measure, population, engine, models, synthesis and export,
cli. Importing this package imports none of them: the five commands below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardiogen.cli.check import check
    from cardiogen.cli.complete import complete
    from cardiogen.cli.generate import generate
    from cardiogen.cli.train import train

__version__ = "0.1.0"

# ``cardiogen.measure`` is the package of measures, so its command goes by its full name,
# ``cardiogen.cli.measure.measure``.
_COMMANDS = ("check", "complete", "generate", "train")

__all__ = ["__version__", "check", "complete", "generate", "train"]


def __getattr__(name: str) -> object:
    if name in _COMMANDS:
        return getattr(import_module(f"cardiogen.cli.{name}"), name)
    if name == "measure":
        return import_module("cardiogen.measure")
    raise AttributeError(f"module 'cardiogen' has no attribute {name!r}")
