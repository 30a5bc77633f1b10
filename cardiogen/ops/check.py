"""Checks at public doors: named axes, one message format.

Convention: a pattern such as ``"B 3 D H W"`` names every axis; numbers are fixed sizes, names are
free unless given, and a final ``...`` stands for any further axes.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class GridLike(Protocol):
    """What ops need of a voxel lattice: its shape and its voxel-to-world affine (mm, float64)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels per axis, ``(D, H, W)``."""

    @property
    def affine(self) -> object:
        """Voxel-to-world matrix, 4 x 4; a numpy array or anything ``torch.tensor`` takes."""


def check_shape(tensor: Tensor, pattern: str, name: str, **sizes: int) -> dict[str, int]:
    """Return the size of every named axis of ``tensor``, or say what shape it should have had.

    Args:
        tensor: argument to check.
        pattern: axes separated by blanks, e.g. ``"B 3 D H W"`` or ``"B C ..."``.
        name: name of the argument, for the message.
        sizes: wanted sizes of named axes.

    Raises:
        ValueError: e.g. ``displacement must have shape (B=4, 3, D, H, W), got (2, 3, 8, 9, 7)``.
    """
    axes = pattern.split()
    open_ended = axes[-1] == "..."
    if open_ended:
        axes = axes[:-1]
    shape = tuple(tensor.shape)
    found: dict[str, int] = {}
    matches = len(shape) >= len(axes) if open_ended else len(shape) == len(axes)
    for axis, size in zip(axes, shape, strict=False):
        wanted = int(axis) if axis.isdigit() else sizes.get(axis, found.get(axis, size))
        matches = matches and size == wanted
        found[axis] = size
    if not matches:
        told = [f"{axis}={sizes[axis]}" if axis in sizes else axis for axis in axes]
        wanted_text = ", ".join([*told, "..."] if open_ended else told)
        raise ValueError(f"{name} must have shape ({wanted_text}), got {shape}")
    return found


def check_image(image: Tensor, name: str) -> tuple[int, ...]:
    """Return the spatial shape of an image ``(B, C, H, W)`` or ``(B, C, D, H, W)``."""
    if image.ndim not in (4, 5):
        raise ValueError(
            f"{name} must have shape (B, C, H, W) or (B, C, D, H, W), got {tuple(image.shape)}"
        )
    if 0 in image.shape[1:]:
        raise ValueError(f"{name} must have no empty axis, got shape {tuple(image.shape)}")
    return tuple(image.shape[2:])


def check_field(field: Tensor, name: str) -> tuple[int, ...]:
    """Return the spatial shape of a field ``(B, 2, H, W)`` or ``(B, 3, D, H, W)``."""
    if field.ndim not in (4, 5) or field.shape[1] != field.ndim - 2 or 0 in field.shape[2:]:
        raise ValueError(
            f"{name} must have shape (B, 2, H, W) or (B, 3, D, H, W), got {tuple(field.shape)}"
        )
    check_floating(field, name)
    return tuple(field.shape[2:])


def check_floating(tensor: Tensor, name: str) -> None:
    """Refuse integer tensors where interpolation would silently round."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {tensor.dtype}; use {name}.float()")


def check_same(shape: tuple[int, ...], wanted: tuple[int, ...], name: str, other: str) -> None:
    """Refuse tensors that should share one grid and do not."""
    if tuple(shape) != tuple(wanted):
        raise ValueError(
            f"{name} must have the spatial shape of {other}, {tuple(wanted)}, got {tuple(shape)}; "
            "bring both onto one grid with resample"
        )


def check_batch(first: int, second: int, name: str, other: str) -> None:
    """Refuse batch sizes that neither agree nor broadcast."""
    if first != second and 1 not in (first, second):
        raise ValueError(
            f"{name} must have the batch size of {other} ({second}) or 1, got {first}"
        )


def per_axis(value: float | tuple[float, ...], ndim: int, name: str) -> tuple[float, ...]:
    """Return one finite number per spatial axis from a number or a sequence of ``ndim``."""
    values = (value,) * ndim if isinstance(value, int | float) else tuple(value)
    if len(values) != ndim:
        raise ValueError(f"{name} must have {ndim} values, one per axis, got {len(values)}")
    return tuple(float(v) for v in values)


def check_spacing(spacing: tuple[float, ...], ndim: int, name: str = "spacing") -> tuple:
    """Return ``spacing`` (mm per axis) as floats, refusing what is not positive."""
    values = per_axis(spacing, ndim, name)
    if not all(0.0 < v < float("inf") for v in values):
        raise ValueError(f"{name} must be positive and finite (mm per axis), got {values}")
    return values
