"""Artifacts of the acquisition in k-space: motion between shots, and truncation.

Convention: every slice (H, W) is Fourier transformed by itself, as it is acquired. What is added
to the image is the transform of the change alone, so that no change leaves the image's own bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import Params, Photometric, check_bound, uniform


@dataclass(frozen=True, kw_only=True)
class KSpaceMotion(Photometric):
    """Move the body between the shots that fill k-space: ``F(k) e^(-2 pi i k . r_shot)``.

    Interleaved shots give ghosts along the phase-encoding axis, shots one after the other blur
    and ringing. A shot's shift r is free; the shot that holds the center of k-space stays, so
    that the anatomy and its labels stay in place.

    Attributes:
        shift_mm: largest shift along each of H and W.
        shots: number of shots; lines are dealt out to them.
        order: how lines are dealt out.
    """

    shift_mm: float = 3.0
    shots: int = 4
    order: Literal["interleaved", "sequential"] = "interleaved"

    def __post_init__(self) -> None:
        check_bound(self.shift_mm, "shift_mm")
        if self.shots < 2:
            raise ValueError(f"shots must be at least 2, got {self.shots}")
        if self.order not in ("interleaved", "sequential"):
            raise ValueError(f"order must be interleaved or sequential, got {self.order!r}")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw the shifts ``(B, shots, 2)``; ``fixed`` ``(B, 1)`` is 1 where W encodes phase."""
        free = uniform((lattice.batch, self.shots, 2), generator=generator)
        along = uniform((lattice.batch, 1), generator=generator, low=0.0) < 0.5

        return Params(free=free, fixed=along.to(free.dtype))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the image with its k-space lines out of step."""
        along_w = params.fixed.view(-1, 1, 1).to(params.free)
        shifts = [
            (1 - along_w) * by_h + along_w * by_w
            for by_h, by_w in zip(
                *(self._by_line(params, lattice, a) for a in (0, 1)), strict=True
            )
        ]
        turns = (
            _frequencies(lattice, 0, image) * shifts[0]
            + _frequencies(lattice, 1, image) * shifts[1]
        )
        angle = -2 * math.pi * turns
        change = torch.complex(torch.cos(angle) - 1, torch.sin(angle))

        return _with_change(image, change)

    def _by_line(self, params: Params, lattice: Lattice, axis: int) -> list[Tensor]:
        """Return the shift along H and along W at every frequency if ``axis`` encodes phase."""
        size = lattice.shape[-2:][axis]
        # Line 0 is the center of k-space: its shot is the reference.
        lines = torch.fft.fftfreq(size, 1 / size).round().long()
        if self.order == "interleaved":
            shot = lines % self.shots
        else:
            shot = (lines + size // 2) * self.shots // size
        still = torch.ones(self.shots)
        still[shot[0]] = 0.0
        moved = params.free * (self.shift_mm * still.to(params.free)).view(1, -1, 1)
        shape = (-1, size, 1) if axis == 0 else (-1, 1, size)

        return [
            (moved[:, shot.to(moved.device), a] / step).reshape(shape)
            for a, step in enumerate(lattice.spacing[-2:])
        ]


@dataclass(frozen=True, kw_only=True)
class Gibbs(Photometric):
    """Truncate k-space, which rings at edges, and interpolate by zeros back to the grid.

    Attributes:
        lost: largest share of the frequencies, along each of H and W, that is not acquired.
    """

    low: ClassVar[float] = 0.0
    lost: float = 0.5

    def __post_init__(self) -> None:
        check_bound(self.lost, "lost", most=0.95)

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw the lost shares along H and W ``(B, 2)`` uniformly."""
        return Params(free=uniform((lattice.batch, 2), generator=generator, low=0.0))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the truncated image; the edge of the window falls over one frequency."""
        window = 1.0
        for axis, size in enumerate(lattice.shape[-2:]):
            highest = size / 2 * (1 - self.lost * params.free[:, axis].view(-1, 1, 1))
            number = (_frequencies(lattice, axis, image) * size).abs()
            window = window * (highest.to(number) + 1 - number).clamp(0, 1)
        change = torch.complex(window - 1, torch.zeros_like(window))

        return _with_change(image, change)


def _frequencies(lattice: Lattice, axis: int, image: Tensor) -> Tensor:
    """Return cycles per voxel along H ``(1, H, 1)`` or W ``(1, 1, W)``."""
    size = lattice.shape[-2:][axis]
    shape = (1, -1, 1) if axis == 0 else (1, 1, -1)
    dtype = torch.promote_types(image.dtype, torch.float32)

    return torch.fft.fftfreq(size, dtype=dtype, device=image.device).view(shape)


def _with_change(image: Tensor, change: Tensor) -> Tensor:
    """Return ``x + Re F^-1[change F x]``, ``change`` ``(B, H, W)``."""
    work = image.to(torch.promote_types(image.dtype, torch.float32))
    change = change.view(len(change), *[1] * (image.ndim - 3), *change.shape[1:])
    added = torch.fft.ifft2(torch.fft.fft2(work) * change).real

    return image + added.to(image.dtype)
