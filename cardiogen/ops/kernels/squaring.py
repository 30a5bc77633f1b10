"""Scaling and squaring by raw kernels: ``u_0 = v / 2^n``, then n times ``u <- u o u``.

The gradient needs every ``u_k``. Keeping them would take n fields, so they are computed again in
windows: besides velocity, gradient and result no more than three fields are held. For 7 steps
that takes 10 further compositions, of which each costs less than a third of an adjoint step.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

# Fields that the gradient may hold, its result among them.
_BUFFERS = 4


def exponential(kernels: ModuleType, velocity: Tensor, counts: tuple[int, ...]) -> Tensor:
    """Return the displacement of every sample after its number of squarings."""
    parts = [_forward(kernels, v, steps) for steps, v in _runs(counts, velocity)]

    return parts[0] if len(parts) == 1 else torch.cat(parts)


def exponential_gradient(
    kernels: ModuleType, grad: Tensor, velocity: Tensor, counts: tuple[int, ...]
) -> Tensor:
    """Return the gradient of ``<grad, exponential(velocity)>`` with respect to the velocity."""
    parts = [_backward(kernels, g, v, steps) for steps, g, v in _runs(counts, grad, velocity)]

    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _runs(counts: tuple[int, ...], *tensors: Tensor) -> Iterator[tuple]:
    """Yield the number of steps and the parts of tensors of consecutive samples that share it."""
    start = 0
    for stop in range(1, len(counts) + 1):
        if stop == len(counts) or counts[stop] != counts[start]:
            yield counts[start], *(tensor[start:stop] for tensor in tensors)
            start = stop


def _forward(kernels: ModuleType, velocity: Tensor, steps: int) -> Tensor:
    if steps == 0:
        return velocity.clone()
    field = kernels.compose(velocity, velocity, scale=2.0**-steps)
    spare = torch.empty_like(field) if steps > 1 else None
    for _ in range(steps - 1):
        kernels.compose(field, field, out=spare)
        field, spare = spare, field

    return field


def _backward(kernels: ModuleType, grad: Tensor, velocity: Tensor, steps: int) -> Tensor:
    scale = 2.0**-steps
    free = [torch.empty_like(velocity) for _ in range(min(steps, _BUFFERS))]
    known: dict[int, Tensor] = {}
    own = None
    for step in reversed(range(steps)):
        if step > 0 and step not in known:
            known = _window(kernels, velocity, scale, step, free)
        result = free.pop()
        field, factor = (known[step], 1.0) if step > 0 else (velocity, scale)
        kernels.compose_backward_self(grad, field, scale=factor, out=result)
        # The fields that made this gradient may be written to again.
        free += [used for used in (own, known.pop(step, None)) if used is not None]
        grad = own = result

    return grad.clone() if own is None else own.mul_(scale)


def _window(
    kernels: ModuleType, velocity: Tensor, scale: float, step: int, free: list[Tensor]
) -> dict[int, Tensor]:
    """Compute ``u_step``, keep as many fields before it as fit, and leave one buffer free."""
    known: dict[int, Tensor] = {}
    for k in range(1, step + 1):
        out = free.pop()
        if k == 1:
            kernels.compose(velocity, velocity, scale=scale, out=out)
        else:
            kernels.compose(known[k - 1], known[k - 1], out=out)
        known[k] = out
        if not free:
            free.append(known.pop(min(known)))

    return known
