"""A Fourier basis in time whose functions are orthogonal over the frames.

The series of ``transforms.TemporalSVF``, ``cos 2 pi k t - 1`` and ``sin 2 pi k t``, is zero at ED
but far from orthogonal. With its matrix B over the frames and the energy P of its derivative,

    A' (B' B / T) A = 1,    A' P A = diag(q),

so that columns of ``W = B A`` neither couple in the smoothness of the velocity nor in its
smoothness in time, and a solver can be preconditioned by numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiogen.transforms.temporal import fourier_basis

_RANK = 1e-8


@dataclass(frozen=True, eq=False)
class TimeBasis:
    """Orthogonal functions of time.

    Attributes:
        frames: W, value of every function in every frame ``(T, R)``.
        to_fourier: A, coefficients a_1, b_1, ... of every function ``(2 K, R)``.
        price: q, mean square derivative of every function over the cycle ``(R,)``, in units of
            that of ``sin 2 pi t`` over its mean square, so about k^2.
    """

    frames: Tensor
    to_fourier: Tensor
    price: Tensor

    @property
    def harmonics(self) -> int:
        """Number K of harmonics."""
        return len(self.to_fourier) // 2

    def at(self, phases: Tensor) -> Tensor:
        """Return the value of every function at any phases ``(T,)``, ``(T, R)``."""
        return fourier_basis(phases, self.harmonics) @ self.to_fourier


def time_basis(phases: Tensor, harmonics: int) -> TimeBasis:
    """Return the basis of frames at ``phases`` ``(T,)``, fractions of the cycle since ED.

    No more harmonics are used than half of the frames that move, and no combinations that the
    frames do not see.
    """
    frames = len(phases)
    harmonics = max(1, min(harmonics, (frames - 1) // 2))
    matrix = fourier_basis(phases, harmonics)
    energy, axes = torch.linalg.eigh(matrix.T @ matrix / frames)
    kept = energy > _RANK * energy.max()
    white = axes[:, kept] * energy[kept].rsqrt()
    orders = torch.arange(1, harmonics + 1, dtype=torch.float64).repeat_interleave(2)
    price, turn = torch.linalg.eigh((white.T * (orders.square() / 2)) @ white)
    to_fourier = white @ turn

    return TimeBasis(matrix @ to_fourier, to_fourier, 2 * price)
