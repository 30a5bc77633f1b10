"""Adaptation to a cohort: how its hearts beat, given how they look at end diastole.

With phi(x) features of the shape at end diastole (below) and s the motion scores of N subjects,
each motion score is a Gaussian process over shapes, all with one kernel,

    s(x) = m + g(x) + e,   cov(s_i, s_j) = (k(phi_i, phi_j) + noise [i = j]) C,
    k(a, b) = exp(-|a - b|^2 / (2 length^2)),

C the covariance of the cohort's motion. Given a new shape, motion is Gaussian in closed form.
Length and noise are those that predict left-out subjects best.

Features: ln LVEDV, indexed to body surface where height and weight are known; ln LVM / LVEDV;
ln RVEDV / LVEDV; ln LVEDV / L^3 with L the length of the left ventricle. Standardized.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY, mesh_volumes
from cardiogen.models.deformation.phenotypes import ventricle_length

Array = NDArray[np.float64]

_LENGTHS, _NOISES = (1.0, 1.5, 2.0, 3.0), (0.2, 0.5, 1.0, 2.0)
_TYPICAL_AREA_M2 = 1.85


def shape_features(vertices: Array, topology: Topology, factors: Factors) -> Array:
    """Return phi ``(4,)`` of a mesh at end diastole ``(V, 3)`` mm.

    Body surface is Mosteller's, sqrt(height weight / 3600), 1.85 m2 where unknown.
    """
    volumes = mesh_volumes(vertices[None], topology)
    left, wall, right = (float(volumes[s][0]) for s in (Structure.LV, Structure.MYO, Structure.RV))
    area = _TYPICAL_AREA_M2
    if factors.height is not None and factors.weight is not None:
        area = float(np.sqrt(factors.height * factors.weight / 3600.0))
    length = float(ventricle_length(vertices[None], topology)[0])

    return np.log([left / area, wall * MYOCARDIAL_DENSITY / left, right / left,
                   1000.0 * left / length**3])  # fmt: skip


@dataclass(frozen=True, eq=False)
class MotionGivenShape:
    """The Gaussian process of the motion scores.

    Attributes:
        cohort_center, cohort_scale: standardize features, ``(4,)``.
        cohort_features: of the subjects, standardized ``(N, 4)``.
        cohort_mean: m ``(R,)``.
        cohort_weights: (K + noise I)^-1 (s - m), ``(N, R)``.
        cohort_gram: (K + noise I)^-1 ``(N, N)``.
        cohort_spread: C ``(R, R)``.
        cohort_kernel: length and noise ``(2,)``.
    """

    cohort_center: Array
    cohort_scale: Array
    cohort_features: Array
    cohort_mean: Array
    cohort_weights: Array
    cohort_gram: Array
    cohort_spread: Array
    cohort_kernel: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    def tensors(self) -> dict[str, Array]:
        """Return everything that was learned, by name."""
        return {name: getattr(self, name) for name in self.names()}

    @staticmethod
    def shapes(subjects: int, motion: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for N subjects and R motion scores."""
        return {
            "cohort_center": (4,),
            "cohort_scale": (4,),
            "cohort_features": (subjects, 4),
            "cohort_mean": (motion,),
            "cohort_weights": (subjects, motion),
            "cohort_gram": (subjects, subjects),
            "cohort_spread": (motion, motion),
            "cohort_kernel": (2,),
        }

    @classmethod
    def fit(cls, features: Array, motion: Array, scale: Array) -> MotionGivenShape:
        """Learn from features ``(N, 4)`` and motion scores ``(N, R)``.

        Args:
            features: of the shapes.
            motion: scores.
            scale: what a score moves, mm ``(R,)``: errors in mm choose length and noise.
        """
        center, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
        standard = (features - center) / spread
        length, noise = min(
            product(_LENGTHS, _NOISES),
            key=lambda pair: _left_out_error(standard, motion * scale, *pair),
        )
        mean = motion.mean(axis=0)
        gram = np.linalg.inv(_kernel(standard, standard, length) + noise * np.eye(len(motion)))
        # The variance of a score is C (1 + noise): C from the scatter that the process leaves.
        whitened = (motion - mean).T @ gram @ (motion - mean) / len(motion)

        return cls(center, spread, standard, mean, gram @ (motion - mean), gram, whitened,
                   np.array([length, noise]))  # fmt: skip

    def given(self, features: Array) -> tuple[Array, Array]:
        """Return mean ``(R,)`` and covariance ``(R, R)`` of the motion scores of one shape."""
        length, noise = self.cohort_kernel
        standard = (features - self.cohort_center) / self.cohort_scale
        near = _kernel(standard[None], self.cohort_features, length)[0]
        left = 1.0 + noise - near @ self.cohort_gram @ near

        return self.cohort_mean + near @ self.cohort_weights, left * self.cohort_spread


def _kernel(a: Array, b: Array, length: float) -> Array:
    squares = ((a[:, None] - b[None]) ** 2).sum(axis=-1)

    return np.exp(-squares / (2 * length**2))


def _left_out_error(features: Array, motion: Array, length: float, noise: float) -> float:
    """Return the mean squared error at each subject predicted from all others."""
    count = len(motion)
    gram = _kernel(features, features, length) + noise * np.eye(count)
    errors = []
    for k in range(count):
        rest = np.arange(count) != k
        mean = motion[rest].mean(axis=0)
        found = mean + gram[k, rest] @ np.linalg.solve(
            gram[np.ix_(rest, rest)], motion[rest] - mean
        )
        errors.append(((motion[k] - found) ** 2).sum())

    return float(np.mean(errors))
