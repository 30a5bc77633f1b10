"""Modes of velocity codes: from velocities of whole cycles to a short vector of scores, and back.

Motion is a truncated Fourier series that vanishes at end diastole (``models.cycle``),

    v_t = sum_k c_k B_k(t),    B = (cos 2 pi k t - 1, sin 2 pi k t),

whose coefficients are combinations of a common set of spatial fields. Scores have unit variance:

    p_ed = mean + modes^T (scale * s_ed),    c = fields^T (mean + modes^T (scale * s_motion)).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.models.cycle import HARMONICS, fourier_basis
from cardiogen.models.principal import directions, principal

Array = NDArray[np.float64]

_FUNCTIONS = 2 * HARMONICS


@dataclass(frozen=True, eq=False)
class VelocityModes:
    """Linear map between scores and velocities.

    Attributes:
        ed_mean, ed_modes, ed_scale: of the velocity at end diastole, ``(P,)``, ``(R1, P)``,
            ``(R1,)``; P = 3 A, modes are unit vectors, scales in mm.
        fields: unit spatial fields of motion ``(F, P)``.
        motion_mean, motion_modes, motion_scale: of their Fourier coefficients, ``(F K2,)``,
            ``(R2, F K2)``, ``(R2,)`` with K2 = 16 functions of time.
    """

    ed_mean: Array
    ed_modes: Array
    ed_scale: Array
    fields: Array
    motion_mean: Array
    motion_modes: Array
    motion_scale: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    @property
    def ed_size(self) -> int:
        """Number of scores at end diastole."""
        return len(self.ed_modes)

    @property
    def size(self) -> int:
        """Number of scores S of a whole cycle, those at end diastole first."""
        return len(self.ed_modes) + len(self.motion_modes)

    def encode(self, ed: Array, motion: Array) -> Array:
        """Return the scores ``(N, S)`` of velocities ``(N, P)`` and series ``(N, K2, P)``."""
        series = np.einsum("nkp,fp->nfk", motion, self.fields).reshape(len(ed), -1)
        beat = (series - self.motion_mean) @ self.motion_modes.T / self.motion_scale

        return np.concatenate([self.encode_ed(ed), beat], axis=1)

    def encode_ed(self, ed: Array) -> Array:
        """Return the scores ``(N, R1)`` of velocities at end diastole ``(N, P)``."""
        return (ed - self.ed_mean) @ self.ed_modes.T / self.ed_scale

    def heart_velocities(self, scores: Array, phases: ArrayLike) -> tuple[Array, Array]:
        """Return v_ed ``(3, A)`` and v_t ``(T, 3, A)`` mm of one heart ``(S,)``.

        einsum without BLAS: the same bits for any number of threads and phases.
        """
        shape = scores[: self.ed_size] * self.ed_scale
        ed = self.ed_mean + np.einsum("r,rp->p", shape, self.ed_modes)
        return ed.reshape(3, -1), self.heart_motion(scores, phases)[0]

    def heart_motion(self, scores: Array, phases: ArrayLike) -> tuple[Array, Array]:
        """Return v_t ``(T, 3, A)`` and the fields' coefficients ``(T, F)`` mm of one heart."""
        told = self._coefficients(scores[self.ed_size :], phases)
        motion = np.einsum("tf,fp->tp", told, self.fields)

        return motion.reshape(len(motion), 3, self.ed_mean.size // 3), told

    def _coefficients(self, beat: Array, phases: ArrayLike) -> Array:
        """Return the coefficients of the fields ``(T, F)``, mm, of one heart."""
        series = np.einsum("r,rk->k", beat * self.motion_scale, self.motion_modes)
        series = (self.motion_mean + series).reshape(len(self.fields), _FUNCTIONS)

        return np.einsum("tk,fk->tf", fourier_basis(phases), series)

    def ed_velocity(self, scores: Tensor) -> Tensor:
        """Return v_ed ``(N, 3, A)`` mm of scores ``(N, S)``."""
        shape = scores[:, : self.ed_size] * self._tensor("ed_scale", scores)
        params = self._tensor("ed_mean", scores) + shape @ self._tensor("ed_modes", scores)

        return params.unflatten(1, (3, -1))

    def motion(self, scores: Tensor, phases: ArrayLike) -> tuple[Tensor, Tensor]:
        """Return v_t ``(N, T, 3, A)`` and coefficients ``(N, T, F)`` mm of scores ``(N, S)``."""
        beat = scores[:, self.ed_size :] * self._tensor("motion_scale", scores)
        series = self._tensor("motion_mean", scores) + beat @ self._tensor("motion_modes", scores)
        time = torch.from_numpy(fourier_basis(phases)).to(scores)
        told = torch.einsum("nfk,tk->ntf", series.unflatten(1, (-1, _FUNCTIONS)), time)

        return (told @ self._tensor("fields", scores)).unflatten(2, (3, -1)), told

    def _tensor(self, name: str, like: Tensor) -> Tensor:
        # Worker processes share arrays that cannot be written; torch warns of them.
        return torch.from_numpy(np.require(getattr(self, name), requirements="W")).to(like)


def fourier_series(phases: ArrayLike, frames: Array) -> Array:
    """Return the coefficients ``(N, K2, P)`` of velocities ``(N, T, P)``, in least squares."""
    basis = fourier_basis(phases)

    return np.einsum("kt,ntp->nkp", np.linalg.pinv(basis), frames)


def fit_modes(
    ed: Array, motion: Array, *, ed_modes: int, fields: int, motion_modes: int
) -> VelocityModes:
    """Find the principal modes of velocity codes.

    Args:
        ed: velocities at end diastole ``(N, P)``.
        motion: Fourier series of motion ``(N, K2, P)``.
        ed_modes, fields, motion_modes: how many to keep.
    """
    ed_mean, ed_kept, ed_scale = principal(ed, ed_modes)
    # Not centered: the mean motion must lie in the span as well.
    _, spatial = directions(motion.reshape(-1, motion.shape[2]), fields)
    series = np.einsum("nkp,fp->nfk", motion, spatial).reshape(len(motion), -1)
    mean, kept, scale = principal(series, motion_modes)

    return VelocityModes(ed_mean, ed_kept, ed_scale, spatial, mean, kept, scale)
