"""Adaptation to a cohort: how its hearts beat, given how they look at end diastole.

With phi(x) features of the shape at end diastole (below) and s the motion scores of N subjects,
each motion score is a Gaussian process over shapes, all with one kernel,

    s(x) = m + g(x) + e,   cov(s_i, s_j) = (k(phi_i, phi_j) + noise [i = j]) C,
    k(a, b) = exp(-|a - b|^2 / (2 length^2)),

C the covariance of the cohort's motion. Given a new shape, motion is Gaussian in closed form. The
logits of both ejection fractions follow from shape by such a kernel too: averages of motions eject
less than averages of ejection fractions, so that the mean motion is moved to these afterwards.

Features: ln LVEDV, indexed to body surface where height and weight are known; ln LVM / LVEDV;
ln RVEDV / LVEDV; ln LVEDV / L^3 with L the length of the left ventricle; ln RVEDV, indexed as
LVEDV. Standardized. Motion and LVEF go by the first four; RVEF goes by the sizes of both
ventricles alone, since the shape of the left wall says little of the right ventricle.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY, mesh_volumes
from cardiogen.models.deformation.phenotypes import ventricle_length

Array = NDArray[np.float64]

# Length in SDs of the features, noise as a share of C. Fixed: a few dozen subjects tell no more.
_LENGTH, _NOISE = 2.0, 0.5
_TYPICAL_AREA_M2 = 1.85
FEATURES = 5
_SHAPE, _SIZES = slice(0, 4), [0, 4]


def shape_features(vertices: Array, topology: Topology, factors: Factors) -> Array:
    """Return phi ``(5,)`` of a mesh at end diastole ``(V, 3)`` mm.

    Body surface is Mosteller's, sqrt(height weight / 3600), 1.85 m2 where unknown.
    """
    volumes = mesh_volumes(vertices[None], topology)
    left, wall, right = (float(volumes[s][0]) for s in (Structure.LV, Structure.MYO, Structure.RV))
    area = _TYPICAL_AREA_M2
    if factors.height is not None and factors.weight is not None:
        area = float(np.sqrt(factors.height * factors.weight / 3600.0))
    length = float(ventricle_length(vertices[None], topology)[0])

    return np.log([left / area, wall * MYOCARDIAL_DENSITY / left, right / left,
                   1000.0 * left / length**3, right / area])  # fmt: skip


@dataclass(frozen=True, eq=False)
class MotionGivenShape:
    """The Gaussian process of the motion scores.

    Attributes:
        cohort_center, cohort_scale: standardize features, ``(5,)``.
        cohort_features: of the subjects, standardized ``(N, 5)``.
        cohort_mean: m ``(R,)``.
        cohort_weights: (K + noise I)^-1 (s - m), ``(N, R)``.
        cohort_gram: (K + noise I)^-1 ``(N, N)``.
        cohort_spread: C ``(R, R)``.
        cohort_kernel: length and noise ``(2,)``.
        cohort_logits, cohort_logit_weights: mean of the logits of LVEF and RVEF ``(2,)``, and
            their weights ``(N, 2)``.
    """

    cohort_center: Array
    cohort_scale: Array
    cohort_features: Array
    cohort_mean: Array
    cohort_weights: Array
    cohort_gram: Array
    cohort_spread: Array
    cohort_kernel: Array
    cohort_logits: Array
    cohort_logit_weights: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    @staticmethod
    def shapes(subjects: int, motion: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for N subjects and R motion scores."""
        return {
            "cohort_center": (FEATURES,),
            "cohort_scale": (FEATURES,),
            "cohort_features": (subjects, FEATURES),
            "cohort_mean": (motion,),
            "cohort_weights": (subjects, motion),
            "cohort_gram": (subjects, subjects),
            "cohort_spread": (motion, motion),
            "cohort_kernel": (2,),
            "cohort_logits": (2,),
            "cohort_logit_weights": (subjects, 2),
        }

    @classmethod
    def fit(cls, features: Array, motion: Array, ejection: Array) -> MotionGivenShape:
        """Learn from features ``(N, 5)``, motion scores ``(N, R)`` and EFs ``(N, 2)``."""
        center, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
        standard = (features - center) / spread
        mean, logits = motion.mean(axis=0), logit(ejection)
        gram, sizes = (
            np.linalg.inv(_kernel(x, x, _LENGTH) + _NOISE * np.eye(len(motion)))
            for x in (standard[:, _SHAPE], standard[:, _SIZES])
        )
        away = logits - logits.mean(axis=0)
        # The most likely C of a matrix normal, given the kernel.
        scatter = (motion - mean).T @ gram @ (motion - mean) / len(motion)

        return cls(
            center, spread, standard, mean, gram @ (motion - mean), gram, scatter,
            np.array([_LENGTH, _NOISE]), logits.mean(axis=0),
            np.stack([gram @ away[:, 0], sizes @ away[:, 1]], axis=1),
        )  # fmt: skip

    def given(self, features: Array) -> tuple[Array, Array]:
        """Return mean ``(R,)`` and covariance ``(R, R)`` of the motion scores of one shape."""
        near = self._near(features, _SHAPE)
        left = 1.0 + self.cohort_kernel[1] - near @ self.cohort_gram @ near

        return self.cohort_mean + near @ self.cohort_weights, left * self.cohort_spread

    def logits_given(self, features: Array) -> Array:
        """Return the expected logits of LVEF and RVEF ``(2,)`` of one shape."""
        near = np.stack([self._near(features, _SHAPE), self._near(features, _SIZES)], axis=1)

        return self.cohort_logits + (near * self.cohort_logit_weights).sum(axis=0)

    def _near(self, features: Array, chosen: slice | list[int]) -> Array:
        """Return the kernel of some features between one shape and the subjects' ``(N,)``."""
        standard = (features - self.cohort_center) / self.cohort_scale
        length = float(self.cohort_kernel[0])

        return _kernel(standard[None, chosen], self.cohort_features[:, chosen], length)[0]


def logit(share: Array) -> Array:
    """Return ln(x / (1 - x)), shares taken into 2 to 98 %."""
    inside = np.clip(share, 0.02, 0.98)

    return np.log(inside / (1.0 - inside))


def _kernel(a: Array, b: Array, length: float) -> Array:
    squares = ((a[:, None] - b[None]) ** 2).sum(axis=-1)

    return np.exp(-squares / (2 * length**2))
