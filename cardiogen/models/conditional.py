"""A Gaussian over latents given any subset of the clinical factors.

    z = A f(x) + M S(x) e,  e ~ N(0, C),
    f(x) = (1, sex, age, sex age, log height, log weight, pressure), standardized,
    S(x) = diag exp(B (sex, age)).

M holds the axes along which spreads differ between sexes and ages: the latents themselves, or axes
of which the first tell the phenotypes (``conditional_fit``).

Given sex the factors themselves are Gaussian, so that any subset of them conditions z exactly; an
unknown sex gives a mixture of two Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import CONDITION_COLUMNS, CONDITION_UNITS

Array = NDArray[np.float64]

SEXES = ("F", "M")
_MOST_COND = 1e8
# A condition is refused where fewer than one in 10,000 training subjects would be as unusual:
# 99.99 % quantiles of chi-squared with 1, 2 and 3 degrees of freedom. As literals, since importing
# scipy.special for them would cost every command a third of a second.
_JOINT_LIMIT = {1: 15.1367, 2: 18.4207, 3: 21.1075}


@dataclass(frozen=True, eq=False)
class ConditionalGaussian:
    """p(z | known factors), and which factors it was learned from.

    Attributes:
        slopes: A, ``(Z, 7)``.
        residual_axes: M, ``(Z, Z)``.
        residual_tril: lower Cholesky factor of C, ``(Z, Z)``.
        residual_slopes: B, ``(Z, 2)``.
        factor_mean, factor_covariance: of (age, log height, log weight, pressure) given sex,
            ``(2, 4)`` and ``(2, 4, 4)``, rows F and M.
        factor_center, factor_scale: standardization of the same four, ``(4,)``.
        sex_share: share of F and M, ``(2,)``.
        factor_range: smallest and largest (age, height, weight, pressure) seen, ``(4, 2)``.
    """

    slopes: Array
    residual_axes: Array
    residual_tril: Array
    residual_slopes: Array
    factor_mean: Array
    factor_covariance: Array
    factor_center: Array
    factor_scale: Array
    sex_share: Array
    factor_range: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    @staticmethod
    def shapes(latents: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for Z latents."""
        return {
            "slopes": (latents, 7),
            "residual_axes": (latents, latents),
            "residual_tril": (latents, latents),
            "residual_slopes": (latents, 2),
            "factor_mean": (2, 4),
            "factor_covariance": (2, 4, 4),
            "factor_center": (4,),
            "factor_scale": (4,),
            "sex_share": (2,),
            "factor_range": (4, 2),
        }

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value seen of every continuous factor."""
        names = [column for column in CONDITION_COLUMNS if column != "sex"]

        return dict(zip(names, self.factor_range.tolist(), strict=True))

    def require_positive(self) -> None:
        """Refuse (ValueError) factors and latents that no covariance of theirs allows."""
        np.linalg.cholesky(self.factor_covariance)
        for matrix in (self.residual_axes, self.residual_tril):
            if not np.linalg.cond(matrix) < _MOST_COND:
                raise ValueError("latents without a spread of their own")

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        values = condition.numpy()[[0, 2, 3, 4]]
        names = [CONDITION_COLUMNS[k] for k in (0, 2, 3, 4)]
        units = [CONDITION_UNITS[k] for k in (0, 2, 3, 4)]
        ranges = self.factor_range
        for name, unit, value, (least, most) in zip(names, units, values, ranges, strict=True):
            # To whole units outwards, as the message says it: no draw is exactly 18 years old.
            low, high = np.floor(least), np.ceil(most)
            if not np.isnan(value) and not low <= value <= high:
                raise CardiogenError(
                    "D01", name, found=f"{value:g} {unit}",
                    expected=f"{low:.0f} to {high:.0f} {unit}, the range of the training data",
                    remedy="a value in that range, or --allow-extrapolation (outputs are marked)",
                )  # fmt: skip
        known, observed = self._observed(condition)
        if not known.any():
            return
        distance, level = self._joint_distance(condition, known, observed)
        if distance > level:
            listed = ", ".join(
                f"{n} {v:g}" for n, v in zip(names, values, strict=True) if not np.isnan(v)
            )
            raise CardiogenError(
                "D02", "factors", found=f"{listed}: a combination hardly any subject shows",
                expected=f"a squared distance to the training data of at most {level:.0f}, "
                f"not {distance:.0f}",
                remedy="checking units, or --allow-extrapolation (outputs are marked)",
            )  # fmt: skip

    def _observed(self, condition: Tensor) -> tuple[NDArray[np.bool_], Array]:
        """Return which of (age, log height, log weight, pressure) are known, and their values."""
        age, _, height, weight, sbp = condition.numpy()
        values = np.array([age, np.log(height), np.log(weight), sbp])
        known = ~np.isnan(values)
        return known, values[known]

    def _sexes(self, condition: Tensor) -> list[int]:
        sex = float(condition[1])
        return [0, 1] if np.isnan(sex) else [int(sex)]

    def _joint_distance(
        self, condition: Tensor, known: NDArray[np.bool_], observed: Array
    ) -> tuple[float, float]:
        """Return the squared Mahalanobis distance of known factors but age, and its limit."""
        # Age is covered evenly between its limits, which D01 guards; its Gaussian says nothing.
        rest = known & np.array([False, True, True, True])
        if not rest.any():
            return 0.0, 1.0
        distances = []
        for sex in self._sexes(condition):
            mean, covariance = self.factor_mean[sex], self.factor_covariance[sex]
            if known[0]:
                gain = covariance[:, 0] / covariance[0, 0]
                mean = mean + gain * (observed[0] - mean[0])
                covariance = covariance - np.outer(gain, covariance[0])
            offset = observed[rest[known]] - mean[rest]
            solved = np.linalg.solve(covariance[np.ix_(rest, rest)], offset)
            distances.append(float(offset @ solved))
        return min(distances), _JOINT_LIMIT[int(rest.sum())]

    def prior(self, condition: Tensor) -> GaussianMixture:
        """Return p(z | known factors), a mixture of two Gaussians where sex is unknown."""
        known, observed = self._observed(condition)
        log_weights, means, factors = [], [], []
        for sex in self._sexes(condition):
            mean, covariance, evidence = _condition(
                self.factor_mean[sex], self.factor_covariance[sex], known, observed
            )
            matrix, origin = _feature_matrix(sex, self)
            means.append(np.einsum("zf,f->z", self.slopes, origin + matrix @ mean))
            # Residual and unknown factors side by side: their sum needs no factorization of its
            # own, and einsum no BLAS, so that the bits do not depend on the number of threads.
            scaled = residual_scale(sex, mean, self)[:, None] * self.residual_tril
            noise = np.einsum("za,ae->ze", self.residual_axes, scaled)
            spread = np.einsum("zf,fx->zx", self.slopes, matrix @ _root(covariance))
            factors.append(np.concatenate([noise, spread], axis=1))
            log_weights.append(np.log(self.sex_share[sex]) + evidence)
        shares = np.exp(np.array(log_weights) - max(log_weights))
        return GaussianMixture(
            torch.from_numpy(shares / shares.sum()),
            torch.from_numpy(np.stack(means)),
            torch.from_numpy(np.stack(factors)),
        )


def features(sex: int, factors: Array, gaussian: ConditionalGaussian) -> Array:
    """Return f(x) ``(..., 7)`` of (age, log height, log weight, pressure) ``(..., 4)``."""
    standard = (factors - gaussian.factor_center) / gaussian.factor_scale
    constant = np.ones_like(standard[..., :1])
    male = constant * (sex - 0.5)
    return np.concatenate([constant, male, standard[..., :1], male * standard[..., :1],
                           standard[..., 1:]], axis=-1)  # fmt: skip


def residual_scale(sex: int, factors: Array, gaussian: ConditionalGaussian) -> Array:
    """Return the diagonal of S(x) ``(..., Z)`` of (age, log height, log weight, pressure)."""
    age = (factors[..., 0] - gaussian.factor_center[0]) / gaussian.factor_scale[0]
    sex_effect = (sex - 0.5) * gaussian.residual_slopes[:, 0]
    return np.exp(sex_effect + age[..., None] * gaussian.residual_slopes[:, 1])


def _feature_matrix(sex: int, gaussian: ConditionalGaussian) -> tuple[Array, Array]:
    """Return F (7, 4) and f0 (7,) with ``f(x) = f0 + F x`` for one sex."""
    origin = features(sex, np.zeros(4), gaussian)
    return np.stack([features(sex, row, gaussian) - origin for row in np.eye(4)], axis=1), origin


def _root(covariance: Array) -> Array:
    """Return R with ``R R^T`` the covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def _condition(
    mean: Array, covariance: Array, known: NDArray[np.bool_], observed: Array
) -> tuple[Array, Array, float]:
    """Condition a Gaussian on some entries: mean, covariance, log evidence of what is known."""
    if not known.any():
        return mean, covariance, 0.0
    block = covariance[np.ix_(known, known)]
    offset = observed - mean[known]
    gain = np.linalg.solve(block, covariance[known]).T
    _, log_det = np.linalg.slogdet(block)
    evidence = -0.5 * (log_det + offset @ np.linalg.solve(block, offset))
    rest = covariance - gain @ covariance[known]
    return mean + gain @ offset, (rest + rest.T) / 2, float(evidence)
