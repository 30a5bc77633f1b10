"""Whether Triton can be used here, found out without importing it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import sysconfig
from functools import cache
from pathlib import Path

OLDEST = (3, 6)
# The same package under the names that torch's wheels for other vendors and nightlies give it.
_DISTRIBUTIONS = ("triton", "pytorch-triton", "pytorch-triton-rocm")


@cache
def available() -> str | None:
    """Return None if these kernels can run, else the reason why not.

    Triton builds its launcher with a C compiler when a kernel first runs on a device, so that
    one must be there with the headers of Python; its interpreter (``TRITON_INTERPRET=1``, for
    tests on CPU tensors) needs neither.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    version = _version()
    if version is None:
        return "the version of triton is not known"
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST:
        return f"triton {version} is older than {'.'.join(map(str, OLDEST))}"
    if interpreted():
        return None
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton needs a C compiler, and neither CC, gcc nor clang was found"
    include = Path(sysconfig.get_paths()["include"])
    if not (include / "Python.h").is_file():
        return f"triton needs the C headers of Python, and {include} has no Python.h"
    return None


def interpreted() -> bool:
    """Return whether Triton runs kernels in its interpreter, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def _version() -> str | None:
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
