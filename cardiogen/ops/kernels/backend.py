"""Which back-end is in force: that of ``use_backend``, else the environment's, else auto."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cardiogen.base import CardiogenError

BACKENDS = ("reference", "auto")
# Offsets are int32, and the last position along an axis must fit in one as a float32 too.
MOST_VOXELS = 2**31 - 2**7
_VARIABLE = "CARDIOGEN_KERNELS"
_chosen: ContextVar[str | None] = ContextVar("cardiogen_backend", default=None)


def active_backend() -> str:
    """Return the back-end in force: that of ``use_backend``, else the environment's, else auto.

    Raises:
        CardiogenError: U12 if ``CARDIOGEN_KERNELS`` names no back-end.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    named = os.environ.get(_VARIABLE, "auto")
    if named not in BACKENDS:
        raise CardiogenError(
            "U12", _VARIABLE, found=repr(named), expected=f"one of {', '.join(BACKENDS)}",
            remedy=f"unset {_VARIABLE}",
        )  # fmt: skip
    return named


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Choose the back-end inside a ``with`` block (of this thread or task), over the environment.

    Args:
        name: ``"reference"`` or ``"auto"``.
    """
    if name not in BACKENDS:
        raise ValueError(f"name must be one of {', '.join(BACKENDS)}, got {name!r}")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


# Whether this process was forked: it has none of its parent's threads, and an OpenMP runtime that
# ran in the parent would wait for them forever. Known from the import on, not from a first kernel.
_forked = type(multiprocessing.current_process()).__name__ == "ForkProcess"


def is_forked() -> bool:
    """Return whether this process is a forked child, in which kernels work alone."""
    return _forked


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
