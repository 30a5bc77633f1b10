"""The operators that have kernels, each with its gradient.

A back-end is a module of plain functions of contiguous float32 tensors (``kernels/cpu`` and
``kernels/cuda`` have the same ones). A function here takes such a module, the torch form of an
operator and the arguments of that; ``FAST`` lists them by the name of the torch form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cardiogen.ops.kernels import backend
from cardiogen.ops.kernels.autograd import Operator, fused
from cardiogen.ops.kernels.squaring import exponential, exponential_gradient

if TYPE_CHECKING:
    from cardiogen.ops.separable import AxisMatrix

# A row of more weights is faster as a matrix product, and so is along the last axis a matrix whose
# rows do not begin one voxel after another: reads there are not contiguous.
_MOST_TAPS = 48


def _shared(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Undo the expansion of one batch: kernels share its sample without a copy of it."""
    if first.shape[0] == second.shape[0]:
        if _is_expanded(first):
            return first[:1], second
        if _is_expanded(second):
            return first, second[:1]
    return first, second


def _is_expanded(tensor: Tensor) -> bool:
    """Return whether samples are one and the same; where gradients are asked for they are not."""
    differs = tensor.requires_grad and torch.is_grad_enabled()

    return tensor.shape[0] > 1 and tensor.stride(0) == 0 and not differs


def _sample_backward(
    kernels: ModuleType, grad: Tensor, tensors: tuple[Tensor, ...], needs: tuple[bool, ...],
    *, fade: bool, relative: bool,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    return kernels.sample_backward(grad, *tensors, fade=fade, relative=relative, wants=needs)


_SAMPLE = Operator(
    lambda kernels, image, coords, **options: kernels.sample(image, coords, **options),
    _sample_backward,
)


def _read(
    relative: bool, kernels: ModuleType, reference: Callable, image: Tensor, coords: Tensor,
    padding: str,
) -> Tensor:  # fmt: skip
    work, coords = _shared(image.float(), coords)
    reference = partial(reference, padding=padding)
    fade = padding == "zeros"
    found = fused(_SAMPLE, kernels, reference, work, coords, fade=fade, relative=relative)

    return found.to(image.dtype)


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
    if math.prod(shape) > backend.MOST_VOXELS:
        return reference(values, coords, shape, padding)
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


def _apply_axes(
    kernels: ModuleType, tensor: Tensor, *, matrices: Sequence[AxisMatrix | None]
) -> Tensor:
    steps = list(enumerate(matrices))
    # The last axis is the slow one: it is taken while there are the fewest rows along it.
    if any(
        matrix is not None and len(matrix.dense) > matrix.dense.shape[1] for matrix in matrices
    ):
        steps.reverse()
    for axis, matrix in steps:
        if matrix is None:
            continue
        last = axis == len(matrices) - 1
        if matrix.taps <= _MOST_TAPS and (matrix.is_steady or not last):
            tensor = kernels.banded(tensor, axis, *matrix.bands(tensor.device))
        else:
            tensor = matrix.product(tensor, axis).contiguous()

    return tensor


def _apply_axes_backward(
    kernels: ModuleType, grad: Tensor, tensors: tuple[Tensor, ...], needs: tuple[bool, ...],
    *, matrices: Sequence[AxisMatrix | None],
) -> tuple[Tensor, ...]:  # fmt: skip
    adjoints = [None if matrix is None else matrix.transposed for matrix in matrices]

    return (_apply_axes(kernels, grad, matrices=adjoints),)


_SEPARABLE = Operator(_apply_axes, _apply_axes_backward)


def _apply_separable(
    kernels: ModuleType, reference: Callable, tensor: Tensor,
    matrices: Sequence[AxisMatrix | None],
) -> Tensor:  # fmt: skip
    if all(matrix is None for matrix in matrices):
        return tensor
    reference = partial(reference, matrices=matrices)
    found = fused(_SEPARABLE, kernels, reference, tensor.float(), matrices=matrices)

    return found.to(tensor.dtype)


_DETERMINANT = Operator(
    lambda kernels, field: kernels.jacobian_determinant(field),
    lambda kernels, grad, tensors, needs: (kernels.jacobian_determinant_backward(grad, *tensors),),
)


def _jacobian_determinant(
    kernels: ModuleType, reference: Callable, displacement: Tensor
) -> Tensor:
    found = fused(_DETERMINANT, kernels, reference, displacement.float())

    return found.to(displacement.dtype)


_FOLDING = Operator(lambda kernels, field: kernels.folding_determinants(field), None)


def _folding_determinants(
    kernels: ModuleType, reference: Callable, displacement: Tensor
) -> Tensor:
    found = fused(_FOLDING, kernels, reference, displacement.float())

    return found.to(displacement.dtype)


def _energy_backward(
    kernels: ModuleType, grad: Tensor, tensors: tuple[Tensor, ...], needs: tuple[bool, ...],
    *, order: int, spacing: tuple[float, ...],
) -> tuple[Tensor, ...]:  # fmt: skip
    slope = tensors[1]

    return (slope * grad.view(-1, *[1] * (slope.ndim - 1)),)


_ENERGY = Operator(
    lambda kernels, field, order, spacing: kernels.stiffness(field, order=order, spacing=spacing),
    _energy_backward,
)


def _energy(
    order: int, kernels: ModuleType, reference: Callable, displacement: Tensor,
    spacing: tuple[float, ...],
) -> Tensor:  # fmt: skip
    voxels = math.prod(displacement.shape[2:])
    total = partial(_total_energy, reference, spacing)
    found = fused(_ENERGY, kernels, total, displacement.float(), order=order, spacing=spacing)

    return found / voxels


def _total_energy(reference: Callable, spacing: tuple[float, ...], displacement: Tensor) -> Tensor:
    return reference(displacement, spacing) * math.prod(displacement.shape[2:])


FAST: dict[str, Callable] = {
    "_apply_separable": _apply_separable,
    "_bending_energy": partial(_energy, 2),
    "_compose": _compose,
    "_diffusion_energy": partial(_energy, 1),
    "_exponentiate": _exponentiate,
    "_folding_determinants": _folding_determinants,
    "_jacobian_determinant": _jacobian_determinant,
    "_push": _push,
    "_warp_linear": partial(_read, True),
    "sample_linear": partial(_read, False),
}
