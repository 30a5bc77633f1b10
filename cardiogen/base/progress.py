"""A progress bar on stderr for work that lasts over two seconds, and none for anything shorter."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_PATIENCE_S = 2.0


def progress(
    items: Iterable[T], description: str | Callable[[], str], *, total: int | None = None
) -> Iterator[T]:
    """Yield ``items``; where stderr is a terminal, show a bar once two seconds have passed.

    Args:
        items: what to pass on.
        description: text beside the bar, or a function that returns it anew for every item.
        total: number of items, where they have no length.
    """
    text = (lambda: description) if isinstance(description, str) else description
    if total is None and hasattr(items, "__len__"):
        total = len(items)
    if not sys.stderr.isatty():
        yield from items
        return
    bar, task = None, None
    start = time.monotonic()
    try:
        for done, item in enumerate(items):
            yield item
            if bar is None and time.monotonic() - start > _PATIENCE_S:
                bar, task = _start_bar(text(), total)
            if bar is not None:
                bar.update(task, completed=done + 1, description=text())
    finally:
        if bar is not None:
            bar.stop()


def _start_bar(description: str, total: int | None) -> tuple:
    # rich is imported only here: most commands end before a bar is due.
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(description, total=total)
    bar.start()
    return bar, task
