"""The one place where an operator chooses its implementation.

Every operator that may have a fast form calls ``choose(reference, *tensors)(...)``, where
``reference`` is its torch form. ``CARDIOGEN_KERNELS`` or ``use_backend`` say which forms may be
taken: ``reference`` means torch alone, ``auto`` the fastest one that fits the tensors. So far
torch is the only one, so both give the same function.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from torch import Tensor

from cardiogen.base import CardiogenError

BACKENDS = ("reference", "auto")
_VARIABLE = "CARDIOGEN_KERNELS"
_chosen: ContextVar[str | None] = ContextVar("cardiogen_backend", default=None)
Operator = TypeVar("Operator", bound=Callable)


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


def choose(reference: Operator, *tensors: Tensor) -> Operator:
    """Return the implementation of an operator for these tensors under the active back-end.

    Args:
        reference: torch form of the operator; any other form must have its signature and agree
            with it.
        tensors: the arguments that device, dtype and shape are judged by.
    """
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"tensors must be on one device, got {sorted(map(str, devices))}")
    active_backend()

    return reference


__all__ = ["BACKENDS", "active_backend", "choose", "use_backend"]
