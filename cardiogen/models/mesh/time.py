"""The periodic time code: harmonics of the phase of the cardiac cycle."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def time_code(phases: Tensor, harmonics: int) -> Tensor:
    """Return ``1, cos 2 pi k t, sin 2 pi k t`` for k = 1..K, ``(..., 2 K + 1)``.

    Phase 1 gives the bits of phase 0, so whatever follows from the code closes exactly.

    Args:
        phases: fraction of the cycle, any shape.
        harmonics: K; 0 leaves the constant, for shapes without time.
    """
    angle = 2 * math.pi * torch.remainder(phases, 1.0)[..., None]
    angle = angle * torch.arange(1, harmonics + 1, dtype=phases.dtype, device=phases.device)

    return torch.cat([torch.ones_like(phases)[..., None], angle.cos(), angle.sin()], dim=-1)
