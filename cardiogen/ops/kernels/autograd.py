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
            # Hooks on saved tensors may have returned them in another layout.
            tensors = tuple(_plain(tensor) for tensor in ctx.saved_tensors)
            grads = operator.backward(kernels, _plain(grad), tensors, needs, **options)

        return (None, None, None, None, *grads)


def transformed(*tensors: Tensor) -> bool:
    """Return whether tensors carry batches or derivatives, or are watched by a tracer.

    Kernels read memory alone and would drop all that: ``torch.func`` transforms, forward-mode
    derivatives, and modes that follow every operator (fake tensors, ``make_fx``).
    """
    functorch = torch._C._functorch
    watched = (
        torch.autograd.forward_ad._current_level >= 0
        or torch._C._len_torch_dispatch_stack() > 0
        or functorch.peek_interpreter_stack() is not None
    )

    return watched or any(
        functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(tensor)
        for tensor in tensors
    )


def fused(
    operator: Operator, kernels: ModuleType, reference: Callable, *tensors: Tensor, **options: Any
) -> Tensor:
    """Apply an operator; ``reference(*tensors)`` is its torch form with the same options."""
    return _Fused.apply(operator, kernels, reference, options, *map(_plain, tensors))


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor whose memory is its values in order; a view may be that but for the sign."""
    return tensor.resolve_neg().contiguous()


def _reference_gradients(
    reference: Callable, tensors: tuple[Tensor, ...], needs: tuple[bool, ...], grad: Tensor
) -> list[Tensor | None]:
    twice = torch.is_grad_enabled()
    with torch.enable_grad(), use_backend("reference"):
        # Views, since one tensor may have been made from another: each needs its own part alone.
        tensors = tuple(tensor.view_as(tensor) for tensor in tensors)
        wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
        result = reference(*tensors)
        found = iter(
            torch.autograd.grad(result, wanted, grad, create_graph=twice, allow_unused=True)
        )

    return [next(found) if need else None for need in needs]
