"""How raw kernels become differentiable operators.

First derivatives come from kernels, second ones from the torch reference, through which the first
are then computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cardiogen.ops.kernels.backend import use_backend


class Operator(NamedTuple):
    """The raw forms of one operator.

    Attributes:
        forward: ``(kernels, *tensors, **options) -> result``, or ``(result, *kept)`` with tensors
            to keep for the gradient.
        backward: ``(kernels, grad, tensors, needs, **options) -> one gradient or None each``,
            where ``tensors`` are the inputs and what was kept; None takes the reference.
    """

    forward: Callable
    backward: Callable | None


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operator: Operator, kernels: ModuleType, reference: Callable, options: dict,
        *tensors: Tensor,
    ) -> Tensor:  # fmt: skip
        found = operator.forward(kernels, *tensors, **options)
        result, *kept = found if isinstance(found, tuple) else (found,)
        ctx.save_for_backward(*tensors, *kept)
        ctx.call = operator, kernels, reference, options

        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        operator, kernels, reference, options = ctx.call
        needs = ctx.needs_input_grad[4:]
        if operator.backward is None or torch.is_grad_enabled() or transformed(grad):
            inputs = ctx.saved_tensors[: len(needs)]
            grads = _reference_gradients(reference, inputs, needs, grad)
        else:
            grads = operator.backward(
                kernels, grad.contiguous(), ctx.saved_tensors, needs, **options
            )

        return (None, None, None, None, *grads)


def transformed(*tensors: Tensor) -> bool:
    """Return whether tensors are inside a ``torch.func`` transform or forward-mode derivative."""
    if torch.autograd.forward_ad._current_level >= 0:
        return True
    return any(torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in tensors)


def fused(
    operator: Operator, kernels: ModuleType, reference: Callable, *tensors: Tensor, **options: Any
) -> Tensor:
    """Apply an operator; ``reference(*tensors)`` is its torch form with the same options."""
    contiguous = [tensor.contiguous() for tensor in tensors]

    return _Fused.apply(operator, kernels, reference, options, *contiguous)


def _reference_gradients(
    reference: Callable, tensors: tuple[Tensor, ...], needs: tuple[bool, ...], grad: Tensor
) -> list[Tensor | None]:
    twice = torch.is_grad_enabled()
    wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
    with torch.enable_grad(), use_backend("reference"):
        result = reference(*tensors)
        found = iter(
            torch.autograd.grad(result, wanted, grad, create_graph=twice, allow_unused=True)
        )

    return [next(found) if need else None for need in needs]
