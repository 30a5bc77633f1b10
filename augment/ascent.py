"""Steps uphill in units of the bounds of each transform.

Convention: a gradient is turned into a direction per sample and per transform, so that no
transform dominates by its units, and the step is a share of the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from augment.chain import Draw

Method = Literal["l2", "sign", "adam", "power"]
_METHODS = ("l2", "sign", "adam", "power")
_BETA1, _BETA2, _LEAST = 0.9, 0.999, 1e-12


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """How to look for harder parameters.

    Attributes:
        method: ``l2`` steps along the gradient, of a length in units of the bound; ``sign`` along
            its signs; ``adam`` by Adam. ``power`` takes the gradient near no change at all and
            goes the whole way to the bound: finite-difference power iteration (Miyato et al., IEEE
            Trans. Pattern Anal. Mach. Intell. 2019).
        step: length of a step, 1 is the bound.
        steps: number of steps; 0 keeps the random start.
        starts: random starts, of which the hardest is taken for every sample.
        probe: share of the bound at which ``power`` takes gradients.
    """

    method: Method = "l2"
    step: float = 1.0
    steps: int = 1
    starts: int = 1
    probe: float = 0.05

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {self.method!r}")
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step must be positive and finite, got {self.step}")
        if self.steps < 0 or self.starts < 1:
            raise ValueError(
                f"steps must not be negative and starts at least 1, got {self.steps} and "
                f"{self.starts}"
            )
        if not 0 < self.probe <= 1:
            raise ValueError(f"probe must lie in (0, 1], got {self.probe}")


@dataclass
class Climber:
    """The steps of one search; holds what Adam remembers, and what was drawn not to act.

    Attributes:
        ascent: how to step.
    """

    ascent: Ascent
    _count: int = 0
    _means: list[Tensor] = field(default_factory=list)
    _squares: list[Tensor] = field(default_factory=list)
    _acting: list[Tensor] = field(default_factory=list)

    def probed(self, draw: Draw) -> Draw:
        """Return where to take the gradient: the draw itself, or for ``power`` one near 0."""
        if self.ascent.method != "power":
            return draw
        small = [
            transform.unit(params.free, draw.lattice) * self.ascent.probe
            for transform, params in zip(draw.transforms, draw.params, strict=True)
        ]

        return draw.with_free(small).projected()

    def step(self, draw: Draw, gradients: Sequence[Tensor]) -> Draw:
        """Return the draw one step further uphill, within its bounds."""
        self._count += 1
        # Of the start: on the way, what acts may come to nothing and back.
        self._acting = self._acting or [_acts(p.free, p.fixed) for p in draw.params]
        if self.ascent.method == "adam" and not self._means:
            self._means = [torch.zeros_like(g) for g in gradients]
            self._squares = [torch.zeros_like(g) for g in gradients]
        free = []
        for number, (transform, params, gradient) in enumerate(
            zip(draw.transforms, draw.params, gradients, strict=True)
        ):
            # fp16 may overflow; a sample without a usable gradient stays where it is.
            gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            gradient = gradient * self._acting[number]
            if self.ascent.method == "power":
                free.append(transform.unit(gradient, draw.lattice))
                continue
            direction = self._direction(number, gradient)
            if self.ascent.method == "l2":
                direction = transform.unit(gradient, draw.lattice)
            free.append(params.free + self.ascent.step * direction)

        return draw.with_free(free).projected()

    def _direction(self, number: int, gradient: Tensor) -> Tensor:
        if self.ascent.method != "adam":
            return gradient.sign()
        mean = _BETA1 * self._means[number] + (1 - _BETA1) * gradient
        square = _BETA2 * self._squares[number] + (1 - _BETA2) * gradient.square()
        self._means[number], self._squares[number] = mean, square
        mean = mean / (1 - _BETA1**self._count)
        square = square / (1 - _BETA2**self._count)

        return mean / (square.sqrt() + _LEAST)


def _acts(free: Tensor, fixed: Tensor | None) -> Tensor:
    """Return 0 for samples on which the transform was drawn not to act, else 1."""
    acts = (free != 0).flatten(1).any(dim=1)
    if fixed is not None:
        acts = acts | (fixed != 0).flatten(1).any(dim=1)

    return acts.to(free).view(-1, *[1] * (free.ndim - 1))
