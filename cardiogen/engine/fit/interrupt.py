"""SIGINT and SIGTERM as a request: the step is finished and kept before the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cardiogen.base import CardiogenError, Exit

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Request:
    """Whether the run was asked to end, and by which signal."""

    signal: str | None = None

    def asked(self) -> bool:
        """Return whether a signal came."""
        return self.signal is not None


@contextmanager
def watch_signals(enabled: bool = True) -> Iterator[Request]:
    """Yield a request that a first SIGINT or SIGTERM fills in; a second one acts as before.

    Only the main thread receives signals; elsewhere, or if not ``enabled``, nothing is changed.
    """
    request = Request()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, _: object) -> None:
        if request.signal is None:
            request.signal = signal.Signals(number).name
            return
        signal.signal(number, before[number])
        signal.raise_signal(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number in _SIGNALS:
            signal.signal(number, before[number])


def interrupted(folder: Path, signal_name: str, step: int, steps: int) -> CardiogenError:
    """Return the error that ends an interrupted run: exit status 75, nothing is lost."""
    return CardiogenError(
        "R75", folder, found=f"{signal_name} after step {step} of {steps}, which is kept",
        expected=f"{steps} steps", remedy="the same command with --resume",
        exit_code=Exit.INTERRUPTED,
    )  # fmt: skip
