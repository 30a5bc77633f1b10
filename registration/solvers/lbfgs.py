"""L-BFGS (Nocedal, 1980) over a batch of pairs, each with its own line search and memory.

The line search brackets and bisects until the weak Wolfe conditions hold (Lewis and Overton,
Math. Program. 2013), which also keeps every curvature of the memory positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiogen.losses import Weighted
from cardiogen.transforms.base import ParametricTransform
from registration.config import StageConfig
from registration.problem import Problem
from registration.solvers.objective import Objective
from registration.solvers.trace import Trace

_MEMORY = 8
_DECREASE = 1e-4
_CURVATURE = 0.9
_TRIALS = 12


def lbfgs(
    problem: Problem,
    transform: ParametricTransform,
    terms: dict[str, Weighted],
    *,
    stage: StageConfig,
    iterations: int,
) -> tuple[ParametricTransform, Trace]:
    """Minimize the energy at one level; the energy of a pair never rises.

    Args:
        problem: images at this level.
        transform: where to start, batch of the problem.
        terms: any terms.
        stage: settings; the first step moves no parameter by more than ``max_step``.
        iterations: most steps.
    """
    objective, trace = Objective(problem, transform, terms), Trace()
    point = _point(objective, objective.start())
    trace.add(point.total, **point.terms)
    memory: list[tuple[Tensor, Tensor]] = []
    going = torch.ones_like(point.total, dtype=torch.bool)
    for _ in range(iterations):
        direction = -_two_loops(point.slope, memory)
        if not memory:
            longest = point.slope.abs().flatten(1).amax(dim=1).clamp(min=1e-30)
            direction = direction * _wide(stage.max_step / longest, direction)
        found = _line_search(objective, point, direction, going)
        memory.append((found.params - point.params, found.slope - point.slope))
        memory = memory[-_MEMORY:]
        gained, point = point.total - found.total, found
        trace.add(point.total, **point.terms)
        going = going & (gained > stage.tolerance * point.total.abs())
        if not going.any():
            break

    return objective.made(point.params), trace


@dataclass(eq=False)
class _Point:
    """Parameters with their energy and its gradient, pair by pair."""

    params: Tensor
    slope: Tensor
    total: Tensor
    terms: dict[str, Tensor]

    def replaced(self, where: Tensor, other: _Point) -> _Point:
        """Return the other point for the pairs ``(B,)`` where told."""
        wide = _wide(where, self.params)
        return _Point(
            torch.where(wide, other.params, self.params),
            torch.where(wide, other.slope, self.slope),
            torch.where(where, other.total, self.total),
            {name: torch.where(where, other.terms[name], t) for name, t in self.terms.items()},
        )


def _point(objective: Objective, params: Tensor) -> _Point:
    value, slope = objective.gradient(params)

    return _Point(params, slope, value.total.detach(), value.terms)


def _line_search(objective: Objective, start: _Point, direction: Tensor, going: Tensor) -> _Point:
    """Return, per pair, a point that meets the weak Wolfe conditions, or the best one found."""
    descent = _dot(start.slope, direction)
    length = torch.ones_like(start.total)
    low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
    found, searching = start, going & (descent < 0)
    for _ in range(_TRIALS):
        trial = _point(objective, start.params + _wide(length * searching, direction) * direction)
        enough = trial.total <= start.total + _DECREASE * length * descent
        found = found.replaced(searching & enough & (trial.total < found.total), trial)
        flat = _dot(trial.slope, direction) >= _CURVATURE * descent
        searching = searching & ~(enough & flat)
        high, low = torch.where(enough, high, length), torch.where(enough, length, low)
        length = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        if not searching.any():
            break

    return found


def _two_loops(slope: Tensor, memory: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the inverse Hessian of the memory times the slope, pair by pair."""
    found, shares = slope, []
    for moved, bent in reversed(memory):
        curvature = _dot(moved, bent)
        # A pair that stood still, or met no curvature, has nothing to tell in this entry.
        inverse = torch.where(curvature > 1e-30, 1 / curvature.clamp(min=1e-30), 0)
        share = inverse * _dot(moved, found)
        found = found - _wide(share, slope) * bent
        shares.append((inverse, share))
    if memory:
        found = found * _wide(_scale(memory), slope)
    for (moved, bent), (inverse, share) in zip(memory, reversed(shares), strict=True):
        other = inverse * _dot(bent, found)
        found = found + _wide(share - other, slope) * moved

    return found


def _scale(memory: list[tuple[Tensor, Tensor]]) -> Tensor:
    moved, bent = memory[-1]
    power = _dot(bent, bent)

    return torch.where(power > 1e-30, _dot(moved, bent) / power.clamp(min=1e-30), 1)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(dim=1).to(a.dtype)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
