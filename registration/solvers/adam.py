"""Adam (Kingma and Ba, ICLR 2015), for energies of any kind; every pair stops on its own."""

from __future__ import annotations

import torch

from cardiogen.losses import Weighted
from cardiogen.transforms.base import ParametricTransform
from registration.config import StageConfig
from registration.problem import Problem
from registration.solvers.objective import Objective
from registration.solvers.trace import Trace

_BETAS = (0.9, 0.999)
_EPS = 1e-12
# Adam's energy wavers; it has converged when so many steps together gain less than the tolerance.
_WINDOW = 10


def adam(
    problem: Problem,
    transform: ParametricTransform,
    terms: dict[str, Weighted],
    *,
    stage: StageConfig,
    iterations: int,
) -> tuple[ParametricTransform, Trace]:
    """Minimize the energy at one level and return the best of all visited parameters.

    Args:
        problem: images at this level.
        transform: where to start, batch of the problem.
        terms: any terms.
        stage: settings; ``learning_rate`` falls to a tenth over the level.
        iterations: most steps.
    """
    objective, trace = Objective(problem, transform, terms), Trace()
    params = objective.start()
    mean, power = torch.zeros_like(params), torch.zeros_like(params)
    wide = (-1, *[1] * (params.ndim - 1))
    going = torch.ones(len(params), dtype=torch.bool, device=params.device)
    best, lowest, history = params, None, []
    for step in range(1, iterations + 2):
        value, slope = objective.gradient(params)
        total = value.total.detach()
        lower = going if lowest is None else going & (total < lowest)
        best = torch.where(lower.view(wide), params, best)
        lowest = total if lowest is None else torch.where(lower, total, lowest)
        trace.add(lowest, **value.terms)
        history.append(lowest)
        if step > iterations:
            break
        if len(history) > _WINDOW:
            gained = history[-1 - _WINDOW] - lowest
            going = going & (gained > stage.tolerance * history[-1 - _WINDOW].abs())
            if not going.any():
                break
        mean = _BETAS[0] * mean + (1 - _BETAS[0]) * slope
        power = _BETAS[1] * power + (1 - _BETAS[1]) * slope.square()
        rate = stage.learning_rate * 0.1 ** ((step - 1) / iterations)
        move = (mean / (1 - _BETAS[0] ** step)) / ((power / (1 - _BETAS[1] ** step)).sqrt() + _EPS)
        params = params - rate * move * going.view(wide)

    return objective.made(best), trace
