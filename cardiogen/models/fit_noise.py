"""How far meshes fitted to label maps lie from the truth.

Errors of one mesh go together: a base found too high, a wall too thick, a turn about the long
axis that no contour shows. With e of held-out hearts and E[e e^T] = sum_j l_j u_j u_j^T the error
is Gaussian of mean zero with covariance

    C = f^2 I + sum_j (l_j - f^2) u_j u_j^T,

f^2 the least l_j that is kept: directions of which little was seen count as badly known.

At end diastole errors are smaller than in other frames: there is no twist that could be missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.models.fitted_meshes import FittedMeshes
from cardiogen.models.principal import directions

Array = NDArray[np.float64]

_NOISES = ("rest_noise_modes", "beat_noise_modes")
_LENGTHS = ("rest_floor_mm", "beat_floor_mm", "fit_rms_mm")
_AT_REST = 0.05  # of the cycle: next to nothing is ejected so soon
_LEAST_MM = 0.01  # keeps the covariance invertible where fits are exact


@dataclass(frozen=True, eq=False)
class MeshNoise:
    """Distribution of the error of one fitted mesh.

    Attributes:
        modes: ``sqrt(l_j - f^2) u_j``, ``(R, P)`` mm.
        floor_mm: f.
    """

    modes: Array
    floor_mm: float

    @classmethod
    def of(cls, errors: Array) -> MeshNoise:
        """Return the distribution of errors ``(N, P)`` mm, half as many modes as errors."""
        values, modes = directions(errors, max(1, len(errors) // 2))
        shares = values / len(errors)
        floor = max(shares[-1], _LEAST_MM**2)
        kept = shares > floor

        return cls(np.sqrt(shares[kept] - floor)[:, None] * modes[kept], float(np.sqrt(floor)))

    def weighted(self, matrix: Array) -> Array:
        """Return ``C^-1 matrix`` ``(P, M)``."""
        inner = self.floor_mm**2 * np.eye(len(self.modes)) + self.modes @ self.modes.T
        outer = matrix - self.modes.T @ np.linalg.solve(inner, self.modes @ matrix)

        return outer / self.floor_mm**2


@dataclass(frozen=True, eq=False)
class FitNoise:
    """Errors of fitted meshes of any frame.

    Attributes:
        rest: at end diastole.
        beat: of other frames.
        rms_mm: typical distance of contour points from the surfaces that are fitted to them.
    """

    rest: MeshNoise
    beat: MeshNoise
    rms_mm: float

    @classmethod
    def of(cls, fitted: FittedMeshes, shown: Array) -> FitNoise:
        """Return the errors of fitted meshes.

        Args:
            fitted: the meshes.
            shown: ``(N, T, P)`` mm, the hearts that a model shows nearest to their truth: errors
                are of the fit and of the model.
        """
        errors = fitted.meshes - shown
        rest, beat = errors[:, 0], errors[:, 1:].reshape(-1, errors.shape[-1])

        return cls(MeshNoise.of(rest), MeshNoise.of(beat), float(np.median(fitted.rms_mm)))

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the tensors."""
        return _NOISES

    @staticmethod
    def shapes(tensors: Mapping[str, Array], size: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for P numbers of a mesh."""
        return {name: (len(np.atleast_1d(tensors[name])), size) for name in _NOISES}

    def tensors(self) -> dict[str, Array]:
        """Return the modes by name."""
        return dict(zip(_NOISES, (self.rest.modes, self.beat.modes), strict=True))

    def lengths(self) -> dict[str, float]:
        """Return the lengths by name, mm."""
        found = (self.rest.floor_mm, self.beat.floor_mm, self.rms_mm)

        return dict(zip(_LENGTHS, found, strict=True))

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Array], architecture: Mapping[str, int | float | str]
    ) -> FitNoise:
        """Return the noise of named tensors and lengths.

        Raises:
            ValueError: for lengths that are none.
        """
        lengths = [float(architecture[name]) for name in _LENGTHS]
        if not all(0 < length < np.inf for length in lengths):
            raise ValueError(f"{', '.join(_LENGTHS)} must be positive, got {lengths}")
        rest, beat = (MeshNoise(tensors[n], f) for n, f in zip(_NOISES, lengths[:2], strict=True))

        return cls(rest, beat, lengths[2])

    def weighted(self, matrix: Array, phase: float, *, rms_mm: float) -> Array:
        """Return ``C^-1 matrix`` ``(P, M)`` of a fit whose contours lie ``rms_mm`` off.

        Where that is more than typical, as of thick slices, errors grow in proportion.

        Args:
            matrix: ``(P, M)``.
            phase: of the frame.
            rms_mm: of its fit.
        """
        away = abs((phase + 0.5) % 1.0 - 0.5)
        noise = self.rest if away < _AT_REST else self.beat

        return noise.weighted(matrix) / max(1.0, rms_mm / self.rms_mm) ** 2
