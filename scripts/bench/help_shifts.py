"""Test images as other scanners might give them: shifts within what augmentation does, and not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import keyed_rng
from cardiogen.data import Grid, Sequence
from cardiogen.ops import argmax_labels, gaussian, one_hot, resample

_ROTATION_DEG, _GAMMA, _BIAS, _VOXEL_MM = 25.0, 2.0, 0.8, 4.5
_FWHM_TO_SIGMA = 0.42466090014400953

Shift = Callable[[Sequence, int], Sequence]


def unshifted(sequence: Sequence, number: int) -> Sequence:
    """Return the images as they are."""
    return sequence


def bias(sequence: Sequence, number: int) -> Sequence:
    """Multiply by ``exp(b)``, b from -0.8 to 0.8 along a direction in plane."""
    rng = keyed_rng(0, "help/bias", number)
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in sequence.grid.shape[1:]),
                                indexing="ij")  # fmt: skip
    along = np.cos(angle) * rows + np.sin(angle) * columns
    return _with(sequence, sequence.images * np.exp(_BIAS * along / np.abs(along).max()))


def rotation(sequence: Sequence, number: int) -> Sequence:
    """Turn images and labels by 25 degrees in plane, either way."""
    sign = 1 if keyed_rng(0, "help/rotation", number).random() < 0.5 else -1
    grid = _turned(sequence.grid, sign * math.radians(_ROTATION_DEG))
    images = torch.from_numpy(sequence.images)[:, None]
    hot = one_hot(torch.from_numpy(sequence.labels)[:, None].long(), 4)
    turned = resample(images, sequence.grid, grid, padding="zeros")[:, 0].numpy()
    structures = resample(hot[:, 1:], sequence.grid, grid, padding="zeros")
    whole = torch.cat([1 - structures.sum(dim=1, keepdim=True), structures], dim=1)
    return sequence.with_(images=turned, labels=argmax_labels(whole)[:, 0].numpy(), grid=grid)


def gamma(sequence: Sequence, number: int) -> Sequence:
    """Raise intensities, in [0, 1], to the power 2 or its inverse."""
    power = _GAMMA if keyed_rng(0, "help/gamma", number).random() < 0.5 else 1 / _GAMMA
    images, low = sequence.images, sequence.images.min()
    span = images.max() - low
    return _with(sequence, ((images - low) / span) ** power)


def inversion(sequence: Sequence, number: int) -> Sequence:
    """Turn bright into dark."""
    return _with(sequence, sequence.images.max() - sequence.images)


def resolution(sequence: Sequence, number: int) -> Sequence:
    """Acquire with pixels of 4.5 mm: blur to their width."""
    sigma = tuple(
        _FWHM_TO_SIGMA * math.sqrt(max(_VOXEL_MM**2 - step**2, 0.0)) if axis else 0.0
        for axis, step in enumerate(sequence.grid.spacing)
    )
    images = torch.from_numpy(sequence.images)[:, None]
    return _with(sequence, gaussian(images, sigma, spacing=sequence.grid.spacing)[:, 0].numpy())


IN_DOMAIN: dict[str, Shift] = {"in_domain": unshifted}
# Within the family of the chains, and outside of it.
WITHIN: dict[str, Shift] = {"bias": bias, "rotation": rotation, "gamma": gamma}
OUTSIDE: dict[str, Shift] = {"inversion": inversion, "resolution": resolution}
SHIFTS: dict[str, Shift] = IN_DOMAIN | WITHIN | OUTSIDE


def _with(sequence: Sequence, images: NDArray) -> Sequence:
    return sequence.with_(images=np.asarray(images, dtype=np.float32))


def _turned(grid: Grid, angle: float) -> Grid:
    """Return a lattice of the same size, turned in plane about its middle."""
    axes = grid.affine[:3, :3] / np.asarray(grid.spacing)
    turn = np.eye(3)
    turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    middle = (np.array(grid.shape) - 1) / 2
    turned = axes @ turn
    origin = grid.to_world(middle) - turned @ (middle * grid.spacing)
    return Grid.regular(grid.shape, grid.spacing, origin, turned)
