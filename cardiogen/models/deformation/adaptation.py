"""Adaptation to a cohort: how its hearts beat, given how they look at end diastole.

With phi(x) features of the shape at end diastole (below) and s the motion scores of N subjects,
each motion score is a Gaussian process over shapes, all with one kernel,

    s(x) = m + g(x) + e,   cov(s_i, s_j) = (k(phi_i, phi_j) + noise [i = j]) C,
    k(a, b) = exp(-|a - b|^2 / (2 length^2)),

C the covariance of the cohort's motion. Given a new shape, motion is Gaussian in closed form. The
logits of both ejection fractions follow from shape by such a kernel too: averages of motions eject
less than averages of ejection fractions, so that the mean motion is moved to these afterwards.

Where a patient's group is known (a diagnosis), these logits have an offset of each group as well,

    k((a, g), (b, h)) = k(a, b) + share [g = h],

with the share that makes the cohort's own logits most probable; none may be best. Motion beyond
the ejection fractions has no such offset: groups of few patients tell less of it than they cost.

Features: ln LVEDV, indexed to body surface where height and weight are known; ln LVM / LVEDV;
ln RVEDV / LVEDV; ln LVEDV / L^3 with L the length of the left ventricle; ln RVEDV, indexed as
LVEDV. Standardized. Motion and LVEF go by the first four; RVEF goes by the sizes of both
ventricles alone, since the shape of the left wall says little of the right ventricle.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY, mesh_volumes
from cardiogen.models.deformation.phenotypes import ventricle_length

Array = NDArray[np.float64]

# Length in SDs of the features, noise as shares of the variance of logits and of C: motion follows
# shape less than ejection does. Fixed: a few dozen subjects tell no more.
_LENGTH, _NOISE, _MOTION_NOISE = 2.0, 0.5, 1.0
_GROUP_SHARES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_NAME_BYTES = 64
_TYPICAL_AREA_M2 = 1.85
FEATURES = 5
_SHAPE, _SIZES = slice(0, 4), [0, 4]
_BY = (_SHAPE, _SIZES)  # the features of LVEF and RVEF


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
        cohort_logits, cohort_logit_values: mean of the logits of LVEF and RVEF ``(2,)``, and
            what the subjects' differ from it by ``(N, 2)``.
        cohort_logit_kernel: noise, and share of the group offsets, of either ``(2, 2)``.
        cohort_groups: UTF-8 codes of the subjects' groups ``(N, 64)``, zeros where unknown.
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
    cohort_logit_values: Array
    cohort_logit_kernel: Array
    cohort_groups: Array

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
            "cohort_logit_values": (subjects, 2),
            "cohort_logit_kernel": (2, 2),
            "cohort_groups": (subjects, _NAME_BYTES),
        }

    @classmethod
    def fit(
        cls, features: Array, motion: Array, ejection: Array, groups: Listing[str | None]
    ) -> MotionGivenShape:
        """Learn from features ``(N, 5)``, motion scores ``(N, R)``, EFs ``(N, 2)`` and groups."""
        center, spread = features.mean(axis=0), features.std(axis=0) + 1e-9
        standard = (features - center) / spread
        mean, logits = motion.mean(axis=0), logit(ejection)
        own = np.eye(len(motion))
        likeness = [_kernel(x, x, _LENGTH) for x in (standard[:, chosen] for chosen in _BY)]
        gram = np.linalg.inv(likeness[0] + _MOTION_NOISE * own)
        # The most likely C of a matrix normal, given the kernel.
        scatter = (motion - mean).T @ gram @ (motion - mean) / len(motion)
        names = np.stack([_name_codes(group) for group in groups])
        away, same = logits - logits.mean(axis=0), _alike(names, names)
        shares = [
            _group_share(k + _NOISE * own, same, y) for k, y in zip(likeness, away.T, strict=True)
        ]

        return cls(
            center, spread, standard, mean, gram @ (motion - mean), gram, scatter,
            np.array([_LENGTH, _MOTION_NOISE]), logits.mean(axis=0), away,
            np.array([[_NOISE, share] for share in shares]), names,
        )  # fmt: skip

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the cohort's groups, sorted."""
        names = {bytes(row.astype(np.uint8)).rstrip(b"\0") for row in self.cohort_groups}

        return tuple(sorted(name.decode() for name in names if name))

    def given(self, features: Array) -> tuple[Array, Array]:
        """Return mean ``(R,)`` and covariance ``(R, R)`` of the motion scores of one shape."""
        near = self._near(features, _SHAPE)
        left = 1.0 + self.cohort_kernel[1] - near @ self.cohort_gram @ near

        return self.cohort_mean + near @ self.cohort_weights, left * self.cohort_spread

    def logits_given(self, features: Array, group: str | None = None) -> tuple[Array, Array]:
        """Return means and variances ``(2,)`` of the logits of LVEF and RVEF of one shape.

        A group that the cohort lacks tells nothing.
        """
        same = _alike(_name_codes(group)[None], self.cohort_groups)[0]
        alike = _alike(self.cohort_groups, self.cohort_groups)
        told = []
        for chosen, values, (noise, share) in zip(
            _BY, self.cohort_logit_values.T, self.cohort_logit_kernel, strict=True
        ):
            taken = share if same.any() else 0.0
            known = self.cohort_features[:, chosen]
            gram = _kernel(known, known, self.cohort_kernel[0]) + taken * alike
            gram += noise * np.eye(len(known))
            near = self._near(features, chosen) + taken * same
            weights = np.linalg.solve(gram, near)
            # What they lack of one is the mean's, which is as uncertain as the subjects are few.
            weights += (1.0 - weights.sum()) / len(weights)
            # The variance of Student's t: the scale is as uncertain as the subjects are few.
            scale = values @ np.linalg.solve(gram, values) / (len(values) - 3)
            left = 1.0 + taken + noise - 2.0 * weights @ near + weights @ gram @ weights
            told.append((weights @ values, scale * left))
        mean, variance = np.transpose(told)

        return self.cohort_logits + mean, variance

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


def _group_share(kernel: Array, same: Array, values: Array) -> float:
    """Return the share of group offsets in values ``(N,)`` that is most likely.

    The likelihood of values whose scale is unknown is ``-ln |K| / 2 - N / 2 ln(y^T K^-1 y)`` with
    ``K = kernel + share same``.
    """

    def evidence(share: float) -> float:
        gram = kernel + share * same
        fit = values @ np.linalg.solve(gram, values)
        return float(-np.linalg.slogdet(gram)[1] - len(values) * np.log(max(fit, 1e-300)))

    return max(_GROUP_SHARES, key=evidence)


def _name_codes(group: str | None) -> Array:
    """Return the UTF-8 codes of a group's name ``(64,)``, zeros for none."""
    text = (group or "").encode()
    if len(text) > _NAME_BYTES:
        raise CardiogenError(
            "C28", "cohort", found=f"a group called {group}",
            expected=f"names of at most {_NAME_BYTES} bytes", remedy="a shorter name",
        )  # fmt: skip

    return np.frombuffer(text.ljust(_NAME_BYTES, b"\0"), np.uint8).astype(np.float64)


def _alike(a: Array, b: Array) -> Array:
    """Return 1 where groups are known and the same, else 0, ``(A, B)``."""
    return ((a[:, None] == b[None]).all(axis=-1) & a.any(axis=1)[:, None]).astype(np.float64)
