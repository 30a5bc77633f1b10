"""Batches as a pure function of (seed, step): their order, their randomness, their shares.

A batch is never the state of a loader. Example ``p`` of a run is entry ``p % N`` of the
permutation of epoch ``p // N``, and step ``s`` takes ``batch_size`` of them from ``s *
batch_size`` on; so any step can be made at any time, by any thread, and resuming needs one number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import keyed_rng, keyed_seed
from cardiogen.engine.fit.config import FitConfig
from cardiogen.engine.fit.task import Task


@dataclass(frozen=True)
class Share:
    """A part of a batch that one device takes at once.

    Attributes:
        number: of the share within its batch.
        weight: its part of the examples of the batch.
        examples: what the task made of them, not yet moved to a device.
    """

    number: int
    weight: float
    examples: Any


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return keyed_rng(seed, "fit/order", epoch).permutation(count)


def example_indices(seed: int, first: int, size: int, count: int) -> list[int]:
    """Return the examples at positions ``first .. first + size - 1`` of a run.

    Args:
        seed: of the run.
        first: how many examples came before, over all epochs.
        size: how many to return; they may reach over the end of an epoch.
        count: examples of an epoch, each of which it holds once.
    """
    found: list[int] = []
    while len(found) < size:
        epoch, entry = divmod(first + len(found), count)
        found += _permutation(seed, epoch, count)[entry : entry + size - len(found)].tolist()
    return found


def keyed_generator(
    seed: int, purpose: str, index: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return torch's generator of item ``index`` of the stream ``purpose``."""
    return torch.Generator(device).manual_seed(keyed_seed(seed, purpose, index))


@contextmanager
def keyed_layers(
    seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu"
) -> Iterator[None]:
    """Let layers that draw from torch's global generator draw from the keyed stream instead.

    For dropout in a step, and for building a module: ``with keyed_layers(seed, "mesh/init")``. The
    global state is put back afterwards: code around it sees nothing.
    """
    device, own = torch.device(device), keyed_seed(seed, purpose, index)
    state = torch.get_rng_state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        torch.default_generator.manual_seed(own)
        if on_device is not None:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(own)
        yield
    finally:
        torch.set_rng_state(state)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


def make_shares(task: Task, config: FitConfig, step: int, numbers: range, of: int) -> list[Share]:
    """Return some of the shares of the batch of a step.

    Args:
        task: that makes the examples.
        config: of the run.
        step: from 0.
        numbers: shares to make.
        of: into how many the batch is cut; each has an example at least.
    """
    size = config.batch_size
    indices = example_indices(config.seed, step * size, size, len(task))
    shares = []
    for number in numbers:
        part = indices[number * size // of : (number + 1) * size // of]
        generator = keyed_generator(config.seed, f"fit/batch/{number}", step)
        shares.append(Share(number, len(part) / size, task.batch(part, generator)))
    return shares


@contextmanager
def ahead(
    make: Callable[[int], list[Share]], steps: range, count: int
) -> Iterator[Callable[[int], list[Share]]]:
    """Yield ``make`` for consecutive steps, with ``count`` of them made ahead by a thread."""
    if count == 0:
        yield make
        return
    waiting: deque[Future[list[Share]]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="fit-batches") as pool:
        try:

            def take(step: int) -> list[Share]:
                last = min(step + count, steps.stop - 1)
                waiting.extend(pool.submit(make, s) for s in range(step + len(waiting), last + 1))
                return waiting.popleft().result()

            yield take
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
