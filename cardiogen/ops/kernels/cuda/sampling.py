"""Sampling, its derivatives and its adjoint by Triton: raw functions without autograd.

Convention: tensors are contiguous float32 on one device. Where batches differ the smaller divides
the larger one and sample b of the result takes ``b // (B // B_small)`` of it, so that consecutive
frames share one image without copies. ``fade`` is padding "zeros"; ``relative`` says that the
coordinates are a displacement on its own lattice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cardiogen.ops.kernels.cuda.launch import as_lattice, launch, padded, shared_batch, volume

# Compiled for Hopper, warping one channel takes 165 instructions per voxel with 256, 126 with 512
# and as few registers (32), 103 with 1024 but too many (52) to keep all threads of a device busy.
_BLOCK = 512
# Sums of fixed-point parts stay below 2^61, so that rounded-up bounds cannot overflow 64 bits.
_FIXED_BITS = 61


def sample(image: Tensor, coords: Tensor, *, fade: bool, relative: bool) -> Tensor:
    """Return ``image`` linearly interpolated at ``coords``.

    Args:
        image: ``(Bi, C, *S)``.
        coords: ``(Bc, d, *out)``, voxels.
        fade: fade to 0 outside the grid instead of repeating the border.
        relative: positions are ``x + coords(x)``.

    Returns:
        ``(B, C, *out)``.
    """
    batch = shared_batch(image, coords)
    out = image.new_empty(batch, image.shape[1], *coords.shape[2:])
    _launch_sample(image, coords, out, fade=fade, relative=relative)

    return out


def sample_backward(
    grad: Tensor,
    image: Tensor,
    coords: Tensor,
    *,
    fade: bool,
    relative: bool,
    wants: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of ``sample`` with respect to image and coords, where wanted.

    Gradients of tensors that samples share are summed over these. At the border the derivative is
    that of the cell inside.

    Args:
        grad: gradient of the result ``(B, C, *out)``.
        image: ``(Bi, C, *S)``.
        coords: ``(Bc, d, *out)``, voxels.
        fade: as in ``sample``.
        relative: as in ``sample``.
        wants: whether the gradients of image and of coords are wanted.
    """
    image_grad = coords_grad = None
    if wants[0]:
        image_grad = torch.zeros_like(image)
        _add_pushed(image_grad, grad, coords, fade=fade, relative=relative)
    if wants[1]:
        coords_grad = torch.empty_like(coords)
        _launch_coords_gradient(grad, image, coords, coords_grad, fade=fade, relative=relative)

    return image_grad, coords_grad


def push(
    values: Tensor, coords: Tensor, shape: Sequence[int], *, fade: bool, relative: bool = False
) -> Tensor:
    """Add ``values`` to the voxels around ``coords``: the adjoint of ``sample``.

    Voxels are summed by atomic additions, whose order varies; under
    ``torch.use_deterministic_algorithms`` as 64-bit whole numbers, whose sum does not depend on
    it. If n values could meet in a voxel, their unit is ``2^36 / n`` times finer than what float32
    resolves at the largest value of the channel.

    Args:
        values: ``(Bv, C, *out)``.
        coords: ``(Bc, d, *out)``, voxels.
        shape: spatial shape S of the result.
        fade: as in ``sample``.
        relative: as in ``sample``.

    Returns:
        ``(B, C, *S)``.
    """
    out = values.new_zeros(shared_batch(values, coords), values.shape[1], *shape)
    _add_pushed(out, values, coords, fade=fade, relative=relative)

    return out


def compose(
    a_to_b: Tensor, b_to_c: Tensor, *, scale: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """Return ``s a(x) + s b(x + s a(x))`` with the fields repeated outwards.

    Args:
        a_to_b: a ``(Ba, d, *S)``, voxels.
        b_to_c: b ``(Bb, d, *S)``, voxels.
        scale: s, which makes the first step of scaling and squaring from a velocity.
        out: where to write; none of the fields.

    Returns:
        ``(B, d, *S)``, voxels.
    """
    batch = shared_batch(a_to_b, b_to_c)
    if out is None:
        out = a_to_b.new_empty(batch, *a_to_b.shape[1:])
    _check_out(out, (batch, *a_to_b.shape[1:]), a_to_b, b_to_c)
    _launch_sample(b_to_c, a_to_b, out, fade=False, relative=True, scale=scale, composing=True)

    return out


def compose_backward_self(
    grad: Tensor, u: Tensor, *, scale: float = 1.0, out: Tensor | None = None
) -> Tensor:
    """Return the gradient of ``compose(w, w)`` with respect to ``w = s u``.

    ``g + (Dw)^T(x + w) g + push(g; x + w)``.

    Args:
        grad: g ``(B, d, *S)``.
        u: ``(B, d, *S)``, voxels.
        scale: s.
        out: where to write; neither of the fields.
    """
    if out is None:
        out = torch.empty_like(u)
    _check_out(out, tuple(u.shape), grad, u)
    _launch_coords_gradient(
        grad, u, u, out, fade=False, relative=True, scale=scale, composing=True
    )
    _add_pushed(out, grad, u, fade=False, relative=True, scale=scale)

    return out


def _launch_sample(
    image: Tensor,
    coords: Tensor,
    out: Tensor,
    *,
    fade: bool,
    relative: bool,
    scale: float = 1.0,
    composing: bool = False,
) -> None:
    from cardiogen.ops.kernels.cuda.sampling_kernels import sample_kernel

    batch = out.shape[0]
    repeats = _repeats(batch, image, coords)
    arguments = (image, coords, out, *_sizes(image), *repeats, scale)
    constants = {
        "NDIM": coords.shape[1], "FADE": fade, "RELATIVE": relative, "COMPOSE": composing,
        "WIDE": image.shape[-1] > 1,
    }  # fmt: skip
    lattice = as_lattice(coords.shape[2:], relative)
    launch(sample_kernel, batch, lattice, arguments, constants, block=_BLOCK)


def _launch_coords_gradient(
    grad: Tensor,
    image: Tensor,
    coords: Tensor,
    out: Tensor,
    *,
    fade: bool,
    relative: bool,
    scale: float = 1.0,
    composing: bool = False,
) -> None:
    from cardiogen.ops.kernels.cuda.sampling_kernels import coords_gradient_kernel

    repeats = _repeats(grad.shape[0], image, coords)
    arguments = (grad, image, coords, out, *_sizes(image), *repeats, scale)
    constants = {
        "NDIM": coords.shape[1], "FADE": fade, "RELATIVE": relative, "COMPOSE": composing,
        "WIDE": image.shape[-1] > 1,
    }  # fmt: skip
    lattice = as_lattice(coords.shape[2:], relative)
    rows = coords.shape[0]
    launch(coords_gradient_kernel, rows, lattice, arguments, constants, block=_BLOCK)


def _add_pushed(
    out: Tensor,
    values: Tensor,
    coords: Tensor,
    *,
    fade: bool,
    relative: bool,
    scale: float = 1.0,
) -> None:
    """Push values and add them to ``out``, which may be shared by samples."""
    from cardiogen.ops.kernels.cuda.push_kernels import push_kernel

    batch = shared_batch(values, coords)
    fixed = units = out  # not touched unless the sum is to be deterministic
    deterministic = torch.are_deterministic_algorithms_enabled() and values.numel() > 0
    if deterministic:
        fixed = torch.zeros_like(out, dtype=torch.int64)
        units = _units(values, batch, out.shape[0])
    repeats = _repeats(batch, values, coords, out)
    arguments = (values, coords, out, fixed, units, *_sizes(out), *repeats, scale)
    constants = {
        "NDIM": coords.shape[1], "FADE": fade, "RELATIVE": relative, "FIXED": deterministic,
        "WIDE": out.shape[-1] > 1,
    }  # fmt: skip
    lattice = as_lattice(coords.shape[2:], relative)
    launch(push_kernel, batch, lattice, arguments, constants, block=_BLOCK)
    if deterministic:
        out += fixed.double().div_(units.view(*units.shape, *[1] * (out.ndim - 2))).float()


def _units(values: Tensor, batch: int, shared: int) -> Tensor:
    """Return per sample and channel of the result how many fixed-point units make 1.

    All values of all samples that share a result may meet in one voxel, with weights up to 1.
    """
    largest = values.abs().nan_to_num_(0.0, 0.0, 0.0).flatten(2).amax(dim=2)  # (Bv, C)
    largest = largest.unsqueeze(1).expand(-1, batch // values.shape[0], -1).reshape(batch, -1)
    largest = largest.unflatten(0, (shared, batch // shared)).amax(dim=1)  # (shared, C)
    meeting = values[0, 0].numel() * (batch // shared)
    exponent = torch.frexp(largest).exponent  # largest < 2^exponent

    return torch.exp2((_FIXED_BITS - meeting.bit_length() - exponent).double())


def _sizes(image: Tensor) -> tuple[int, ...]:
    """Return channels and spatial sizes of an image, which must fit 32-bit offsets."""
    volume(image.shape[2:], "image")

    return image.shape[1], *padded(image.shape[2:])


def _repeats(batch: int, *tensors: Tensor) -> tuple[int, ...]:
    """Return how many consecutive samples share each tensor."""
    return tuple(batch // max(tensor.shape[0], 1) for tensor in tensors)


def _check_out(out: Tensor, shape: tuple[int, ...], *inputs: Tensor) -> None:
    if tuple(out.shape) != shape or not out.is_contiguous():
        raise ValueError(f"out must be contiguous of shape {shape}, got {tuple(out.shape)}")
    if any(out.data_ptr() == tensor.data_ptr() for tensor in inputs) and out.numel():
        raise ValueError("out must not be one of the fields that are read, got the same memory")
