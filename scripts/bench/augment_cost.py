"""What a step of training costs with augmentation, in plain steps, and how fast chains alone are.

On a CPU the process's own CPU time counts: other work on the machine does not; on a GPU, events.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from augment import Adversary, Ascent, Consistency, classic_chain
from bench.augment_networks import UNet
from bench.timing import clock


@dataclass(frozen=True)
class Case:
    """A network and a batch.

    Attributes:
        name: of the case.
        shape: voxels of an image.
        batch: samples.
        base: channels of the network's first level.
        bars: most plain steps that a mode may cost on a CPU, and on a GPU.
    """

    name: str
    shape: tuple[int, ...]
    batch: int
    base: int
    bars: dict[str, tuple[float, float]] = field(default_factory=dict)


CASES = (
    Case("2D 96² batch 4", (96, 96), 4, 16, {"adversarial": (3.3, 3.2), "fast": (2.0, 2.0)}),
    Case("2D 192² batch 4", (192, 192), 4, 16),
    Case("3D 48³ batch 1", (48, 48, 48), 1, 4, {"adversarial": (3.5, 3.2)}),
)

# Modes of the adversary by name; "fast" does its work in every third step.
MODES: dict[str, dict[str, object]] = {
    "random consistency": {"ascent": Ascent(steps=0)},
    "adversarial": {},
    "fast": {"every": 3},
    "half batches": {"share": 0.5},
}


@dataclass(frozen=True)
class Row:
    """Seconds of a step of one mode, beside a plain one, and the bar if there is one."""

    case: str
    mode: str
    seconds: float
    ratio: float
    bar: float | None = None

    def __str__(self) -> str:
        told = f"{self.case}, {self.mode}: {1e3 * self.seconds:.0f} ms, {self.ratio:.2f}x plain"
        if self.bar is None:
            return told

        return f"{told} (wanted ≤ {self.bar:g}x: {'met' if self.met else 'missed'})"

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        return None if self.bar is None else self.ratio <= self.bar


def cost_rows(case: Case, *, device: str, rounds: int) -> Iterator[Row]:
    """Time plain steps and every mode in shuffled rounds; yields mean times and their ratios."""
    steps = {"plain": _plain(case, device)}
    steps |= {mode: _adversarial(case, device, options) for mode, options in MODES.items()}
    seconds_of = clock(device) if device == "cuda" else _cpu_seconds
    times: dict[str, list[float]] = {name: [] for name in steps}
    shuffler = random.Random(0)
    for step in steps.values():
        _thrice(step)
    for _ in range(rounds):
        for name in shuffler.sample(list(steps), len(steps)):
            # Three in a row: "fast" does its work in one of them.
            times[name].append(seconds_of(partial(_thrice, steps[name])) / 3)
    plain = float(np.mean(times["plain"]))
    for name, values in times.items():
        bar = case.bars.get(name)
        mean = float(np.mean(values))
        yield Row(case.name, name, mean, mean / plain, bar and bar[device == "cuda"])


def _thrice(step: Callable[[], object]) -> None:
    for _ in range(3):
        step()


def _cpu_seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()

    return time.process_time() - start


def _batch(case: Case, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(case.batch, 1, *case.shape, generator=generator)
    labels = torch.randint(0, 4, (case.batch, *case.shape), generator=generator)

    return image.to(device), labels.to(device)


def _network(case: Case, device: str) -> tuple[UNet, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = UNet(len(case.shape), case.base).to(device)

    return network, torch.optim.Adam(network.parameters(), 1e-3)


def _plain(case: Case, device: str) -> Callable[[], object]:
    network, optimizer = _network(case, device)
    image, labels = _batch(case, device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(image), labels).backward()
        optimizer.step()

    return step


def _adversarial(case: Case, device: str, options: dict[str, object]) -> Callable[[], object]:
    network, optimizer = _network(case, device)
    image, labels = _batch(case, device)
    where = torch.device(device)
    adversary = Adversary(
        chain=classic_chain(), generator=torch.Generator(where).manual_seed(0),
        consistency=Consistency(kl=1.0, contour=0.5), **options,
    )  # fmt: skip
    spacing = (1.4,) * len(case.shape)

    def step() -> None:
        optimizer.zero_grad()
        output = network(image)
        # Its graph is let go before the search builds others.
        F.cross_entropy(output, labels).backward()
        reference = output.detach()
        found = adversary.consistency_loss(network, image, spacing=spacing, reference=reference)
        found.loss.backward()
        optimizer.step()

    return step
