"""Principal components of beating meshes: from scores to vertices, and back.

With x_0 the mesh at end diastole and psi the periodic functions that vanish there,

    x_0 = mean + sum_r z_r s_r m_r,    x(t) - x_0 = sum_k psi_k(t) (c_k + sum_r z_r s_r c_kr),

z holding the scores of both blocks, of unit variance. The functions psi are orthonormal over the
cycle, so that the components of motion are those of mean squares over all vertices and times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.models.cycle import HARMONICS, fourier_basis
from cardiogen.models.principal import principal

Array = NDArray[np.float64]

FUNCTIONS = 2 * HARMONICS
# Mean products of the functions cos 2 pi k t - 1 over the cycle; those of sines are halves.
_COSINES = np.linalg.cholesky(np.eye(HARMONICS) / 2 + 1.0)


@dataclass(frozen=True, eq=False)
class CycleModes:
    """Linear map between scores and beating meshes; P = 3 V numbers per mesh, mm.

    Attributes:
        ed_mean, ed_modes, ed_scale: at end diastole, ``(P,)``, unit modes ``(R1, P)``, ``(R1,)``.
        motion_mean, motion_modes, motion_scale: of motion, ``(K2, P)``, unit modes
            ``(R2, K2, P)``, ``(R2,)`` with K2 = 16 functions of time.
    """

    ed_mean: Array
    ed_modes: Array
    ed_scale: Array
    motion_mean: Array
    motion_modes: Array
    motion_scale: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    @staticmethod
    def shapes(ed: int, motion: int, vertices: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for numbers of modes and vertices."""
        size = 3 * vertices
        return {
            "ed_mean": (size,),
            "ed_modes": (ed, size),
            "ed_scale": (ed,),
            "motion_mean": (FUNCTIONS, size),
            "motion_modes": (motion, FUNCTIONS, size),
            "motion_scale": (motion,),
        }

    @classmethod
    def fit(cls, ed: NDArray, motion: NDArray, *, ed_modes: int, motion_modes: int) -> CycleModes:
        """Find the principal components.

        Args:
            ed: meshes at end diastole ``(N, P)`` mm.
            motion: series of their motion ``(N, K2, P)`` mm, see :func:`motion_series`.
            ed_modes, motion_modes: how many to keep at most.
        """
        mean, modes, scale = principal(motion.reshape(len(motion), -1), motion_modes)
        series = motion.shape[1:]

        return cls(*principal(ed, ed_modes), mean.reshape(series), modes.reshape(-1, *series),
                   scale)  # fmt: skip

    @property
    def ed_size(self) -> int:
        """Number of scores at end diastole."""
        return len(self.ed_modes)

    @property
    def size(self) -> int:
        """Number of scores Z, those at end diastole first."""
        return len(self.ed_modes) + len(self.motion_modes)

    def encode(self, ed: NDArray, motion: NDArray) -> Array:
        """Return the scores ``(N, Z)`` of meshes ``(N, P)`` and series ``(N, K2, P)``."""
        shape = (ed - self.ed_mean) @ self.ed_modes.T / self.ed_scale
        modes = self.motion_modes.reshape(len(self.motion_modes), -1)
        # One heart at a time: centered, the series of all would fill the memory.
        beat = np.stack([modes @ (series - self.motion_mean).ravel() for series in motion])

        return np.concatenate([shape, beat / self.motion_scale], axis=1)

    def decode(self, scores: Array, phases: ArrayLike) -> Array:
        """Return the meshes ``(T, V, 3)`` mm of one heart ``(Z,)`` at any phases.

        einsum without BLAS: the same bits for any number of threads and phases.
        """
        shape, beat = scores[: self.ed_size], scores[self.ed_size :]
        ed = self.ed_mean + np.einsum("r,rp->p", shape * self.ed_scale, self.ed_modes)
        series = np.einsum("r,rkp->kp", beat * self.motion_scale, self.motion_modes)
        moved = np.einsum("tk,kp->tp", cycle_basis(phases), self.motion_mean + series)

        return (ed + moved).reshape(len(moved), len(ed) // 3, 3)

    def designs(self, phases: ArrayLike) -> Callable[[Array], tuple[Array, Array]]:
        """Return meshes ``(T, V, 3)`` and their derivatives ``(T, P, Z)`` as a function of scores.

        Args:
            phases: ``(T,)``.
        """
        means, matrices = zip(*(self.design(phase) for phase in np.asarray(phases)), strict=True)
        mean, matrix = np.stack(means), np.stack(matrices)

        def linearized(scores: Array) -> tuple[Array, Array]:
            return (mean + matrix @ scores).reshape(len(mean), -1, 3), matrix

        return linearized

    def design(self, phase: float) -> tuple[Array, Array]:
        """Return mean ``(P,)`` and matrix ``(P, Z)`` of the mesh at a phase, linear in scores."""
        basis = cycle_basis([phase])[0]
        moved = np.einsum("k,rkp->pr", basis, self.motion_modes)
        mean = self.ed_mean + basis @ self.motion_mean

        return mean, np.concatenate(
            [self.ed_modes.T * self.ed_scale, moved * self.motion_scale], axis=1
        )


def cycle_basis(phases: ArrayLike) -> Array:
    """Return psi ``(T, K2)``: orthonormal over the cycle, zero at phase 0."""
    plain = fourier_basis(phases)
    # psi = L^-1 B, so that the mean of psi psi^T is L^-1 (L L^T) L^-T.
    cosines = np.einsum("lk,tk->tl", _INVERSE, plain[:, :HARMONICS])

    return np.concatenate([cosines, np.sqrt(2.0) * plain[:, HARMONICS:]], axis=1)


_INVERSE = np.linalg.inv(_COSINES)


def motion_series(phases: ArrayLike, meshes: Array) -> Array:
    """Return the series ``(K2, P)`` of a cycle of meshes ``(T, V, 3)``, in least squares.

    Args:
        phases: ``(T,)``, 0 first; at least 17 of them, spread over the cycle.
        meshes: at these phases, mm.
    """
    flat = meshes.reshape(len(meshes), -1)

    return np.linalg.pinv(cycle_basis(phases)) @ (flat - flat[0])
