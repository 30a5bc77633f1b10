"""The temporal modules: one latent z to the path u(t) of latents over the cycle, u(0) = z.

- ``lstm``, as in CHeart: a cell that is fed the same z at every step, ``u_k = W h_k + b`` for
  frame k; between frames u is interpolated linearly, after the last one back to the first.
- ``periodic``: ``u(t) = z + sum_k a_k (cos 2 pi k t - 1) + b_k sin 2 pi k t`` with (a, b) of a
  small network of z and the condition's code; smooth, at any t, and u(1) = u(0) exactly.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cardiogen.nn import SLOPE


class LstmPath(nn.Module):
    """Path of an LSTM over a fixed number of frames.

    The condition joins after the cell, in the decoder.
    """

    def __init__(self, latent: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.cell = nn.LSTM(latent, latent, batch_first=True)
        # The cell's output lies within (-1, 1), latents do not.
        self.linear = nn.Linear(latent, latent)

    def forward(self, z: Tensor, code: Tensor, phases: Tensor) -> Tensor:
        """Return ``(B, T, Z)``.

        Args:
            z: ``(B, Z)``.
            code: of the condition ``(B, C)``.
            phases: ``(B, T)`` or ``(T,)``; whole cycles are taken off.
        """
        hidden, _ = self.cell(z[:, None].expand(-1, self.frames - 1, -1))
        knots = torch.cat([z[:, None], self.linear(hidden)], dim=1)
        place = torch.remainder(phases, 1.0).expand(len(z), -1) * self.frames
        before = place.floor().long() % self.frames
        share = (place - place.floor())[..., None].to(knots)
        at = [
            knots.gather(1, index[..., None].expand(-1, -1, knots.shape[2]))
            for index in (before, (before + 1) % self.frames)
        ]
        return at[0] + share * (at[1] - at[0])


class PeriodicPath(nn.Module):
    """Path of a truncated Fourier series."""

    def __init__(self, latent: int, code: int, harmonics: int) -> None:
        super().__init__()
        self.harmonics = harmonics
        self.series = nn.Sequential(
            nn.Linear(latent + code, 2 * latent), nn.LeakyReLU(SLOPE),
            nn.Linear(2 * latent, 2 * harmonics * latent),
        )  # fmt: skip

    def forward(self, z: Tensor, code: Tensor, phases: Tensor) -> Tensor:
        """Return ``(B, T, Z)``; see :meth:`LstmPath.forward`."""
        series = self.series(torch.cat([z, code], dim=1))
        series = series.unflatten(1, (2 * self.harmonics, -1))
        # Whole cycles are taken off in float64, so that phase 1 is phase 0 to the last bit.
        phase = torch.remainder(phases.double(), 1.0).expand(len(z), -1)
        order = torch.arange(1, self.harmonics + 1, device=phase.device)
        angle = 2 * math.pi * phase[..., None] * order
        basis = torch.cat([angle.cos() - 1.0, angle.sin()], dim=-1).to(series)
        return z[:, None] + torch.einsum("btk,bkz->btz", basis, series)
