"""Operators with derivatives, built from the raw kernels of a back-end.

A back-end is a module of plain functions of contiguous float32 tensors (``kernels/cpu`` and
``kernels/cuda`` have the same ones). Here they become differentiable: first derivatives by the
kernels, second ones by the torch reference, through which the first are then computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cardiogen.ops.kernels.backend import use_backend
from cardiogen.ops.kernels.squaring import exponential, exponential_gradient


class Operator(NamedTuple):
    """The raw forms of one operator.

    Attributes:
        forward: ``(kernels, *tensors, **options) -> result``.
        backward: ``(kernels, grad, tensors, needs, **options) -> one gradient or None each``.
    """

    forward: Callable
    backward: Callable


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operator: Operator, kernels: ModuleType, reference: Callable, options: dict,
        *tensors: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(*tensors)
        ctx.operator, ctx.kernels, ctx.reference, ctx.options = (
            operator, kernels, reference, options,
        )  # fmt: skip

        return operator.forward(kernels, *tensors, **options)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[4:]
        if torch.is_grad_enabled():
            grads = _reference_gradients(ctx.reference, ctx.saved_tensors, needs, grad)
        else:
            grads = ctx.operator.backward(
                ctx.kernels, grad.contiguous(), ctx.saved_tensors, needs, **ctx.options
            )

        return (None, None, None, None, *grads)


def fused(
    operator: Operator, kernels: ModuleType, reference: Callable, *tensors: Tensor, **options: Any
) -> Tensor:
    """Apply an operator; ``reference(*tensors)`` is its torch form with the same options."""
    contiguous = [tensor.contiguous() for tensor in tensors]

    return _Fused.apply(operator, kernels, reference, options, *contiguous)


def _reference_gradients(
    reference: Callable, tensors: tuple[Tensor, ...], needs: tuple[bool, ...], grad: Tensor
) -> list[Tensor | None]:
    wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
    with torch.enable_grad(), use_backend("reference"):
        result = reference(*tensors)
        found = iter(
            torch.autograd.grad(result, wanted, grad, create_graph=True, allow_unused=True)
        )

    return [next(found) if need else None for need in needs]


def _shared(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Undo the expansion of one batch: kernels share its sample without a copy of it."""
    if first.shape[0] > 1 and first.stride(0) == 0 and second.shape[0] == first.shape[0]:
        return first[:1], second
    if second.shape[0] > 1 and second.stride(0) == 0 and first.shape[0] == second.shape[0]:
        return first, second[:1]
    return first, second


def _sample_backward(
    kernels: ModuleType, grad: Tensor, tensors: tuple[Tensor, ...], needs: tuple[bool, ...],
    *, fade: bool, relative: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    return kernels.sample_backward(grad, *tensors, fade=fade, relative=relative, wants=needs)


_SAMPLE = Operator(
    lambda kernels, image, coords, **options: kernels.sample(image, coords, **options),
    _sample_backward,
)


def _sample(
    kernels: ModuleType, reference: Callable, image: Tensor, coords: Tensor, padding: str
) -> Tensor:
    work, coords = _shared(image.float(), coords)
    reference = partial(reference, padding=padding)
    fade = padding == "zeros"
    found = fused(_SAMPLE, kernels, reference, work, coords, fade=fade, relative=False)

    return found.to(image.dtype)


def _warp(
    kernels: ModuleType, reference: Callable, moving: Tensor, displacement: Tensor, padding: str
) -> Tensor:
    work, displacement = _shared(moving.float(), displacement)
    reference = partial(reference, padding=padding)
    fade = padding == "zeros"
    found = fused(_SAMPLE, kernels, reference, work, displacement, fade=fade, relative=True)

    return found.to(moving.dtype)


def _push_backward(
    kernels: ModuleType, grad: Tensor, tensors: tuple[Tensor, ...], needs: tuple[bool, ...],
    *, shape: tuple[int, ...], fade: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    values, coords = tensors
    for_values = for_coords = None
    if needs[0]:
        for_values = kernels.sample(grad, coords, fade=fade, relative=False)
        for_values = _summed(for_values, values.shape[0])
    if needs[1]:
        # <push(values), g> = <values, sample(g)>, so g is read as an image.
        every = values.expand(max(values.shape[0], coords.shape[0]), *values.shape[1:])
        _, for_coords = kernels.sample_backward(
            every.contiguous(), grad, coords, fade=fade, relative=False, wants=(False, True)
        )

    return for_values, for_coords


def _summed(gradient: Tensor, batch: int) -> Tensor:
    """Sum the gradients of consecutive samples that share an input."""
    return gradient.unflatten(0, (batch, -1)).sum(dim=1)


_PUSH = Operator(
    lambda kernels, values, coords, **options: kernels.push(values, coords, **options),
    _push_backward,
)


def _push(
    kernels: ModuleType, reference: Callable, values: Tensor, coords: Tensor,
    shape: tuple[int, ...], padding: str,
) -> Tensor:  # fmt: skip
    work, coords = _shared(values.float(), coords)
    reference = partial(reference, shape=shape, padding=padding)
    fade = padding == "zeros"

    return fused(_PUSH, kernels, reference, work, coords, shape=shape, fade=fade).to(values.dtype)


def _compose_backward(
    kernels: ModuleType, grad: Tensor, tensors: tuple[Tensor, ...], needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    a_to_b, b_to_c = tensors
    for_second, for_first = kernels.sample_backward(
        grad, b_to_c, a_to_b, fade=False, relative=True, wants=(needs[1], needs[0])
    )
    if for_first is not None:
        for_first += _summed(grad, a_to_b.shape[0])

    return for_first, for_second


_COMPOSE = Operator(
    lambda kernels, first, second: kernels.compose(first, second), _compose_backward
)


def _compose(kernels: ModuleType, reference: Callable, a_to_b: Tensor, b_to_c: Tensor) -> Tensor:
    return fused(_COMPOSE, kernels, reference, *_shared(a_to_b, b_to_c))


_EXPONENTIATE = Operator(
    lambda kernels, velocity, counts: exponential(kernels, velocity, counts),
    lambda kernels, grad, tensors, needs, counts: (
        exponential_gradient(kernels, grad, *tensors, counts),
    ),
)


def _exponentiate(
    kernels: ModuleType, reference: Callable, velocity: Tensor, counts: list[int]
) -> Tensor:
    reference = partial(reference, counts=counts)

    return fused(_EXPONENTIATE, kernels, reference, velocity, counts=tuple(counts))


FAST: dict[str, Callable] = {
    "_compose": _compose,
    "_exponentiate": _exponentiate,
    "_push": _push,
    "sample_linear": _sample,
    "_warp_linear": _warp,
}
