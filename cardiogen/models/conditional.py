"""A Gaussian over latents given any subset of the clinical factors.

    z = A f(x) + S(x) e,  e ~ N(0, C),
    f(x) = (1, sex, age, sex age, log height, log weight, pressure), standardized,
    S(x) = diag exp(B (sex, age)).

Given sex the factors themselves are Gaussian, so that any subset of them conditions z exactly; an
unknown sex gives a mixture of two Gaussians.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import CONDITION_COLUMNS, CONDITION_UNITS

Array = NDArray[np.float64]

SEXES = ("F", "M")
_MIN_SUBJECTS = 20
# A condition is refused where fewer than one in 10,000 training subjects would be as unusual:
# 99.99 % quantiles of chi-squared with 1, 2 and 3 degrees of freedom. As literals, since importing
# scipy.special for them would cost every command a third of a second.
_JOINT_LIMIT = {1: 15.1367, 2: 18.4207, 3: 21.1075}


@dataclass(frozen=True, eq=False)
class ConditionalGaussian:
    """p(z | known factors), and which factors it was learned from.

    Attributes:
        slopes: A, ``(Z, 7)``.
        residual_tril: lower Cholesky factor of C, ``(Z, Z)``.
        residual_slopes: B, ``(Z, 2)``.
        factor_mean, factor_covariance: of (age, log height, log weight, pressure) given sex,
            ``(2, 4)`` and ``(2, 4, 4)``, rows F and M.
        factor_center, factor_scale: standardization of the same four, ``(4,)``.
        sex_share: share of F and M, ``(2,)``.
        factor_range: smallest and largest (age, height, weight, pressure) seen, ``(4, 2)``.
    """

    slopes: Array
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
        """Refuse (ValueError) factors that no covariance of theirs allows."""
        np.linalg.cholesky(self.factor_covariance)

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
            noise = residual_scale(sex, mean, self)[:, None] * self.residual_tril
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


def fit_conditional(latents: Array, subjects: Listing[Factors]) -> ConditionalGaussian:
    """Fit the Gaussian to latents ``(N, Z)`` of subjects with complete factors.

    Raises:
        CardiogenError: C28 for too few subjects or only one sex.
    """
    sex = np.array([SEXES.index(f.sex) for f in subjects])
    if min((sex == 0).sum(), (sex == 1).sum()) < _MIN_SUBJECTS:
        raise CardiogenError(
            "C28", "cohort", found=f"{(sex == 0).sum()} women and {(sex == 1).sum()} men",
            expected=f"at least {_MIN_SUBJECTS} of each", remedy="a larger cohort",
        )  # fmt: skip
    draft = _describe_factors(sex, subjects, latents.shape[1])
    logs = _log_factors(_factor_array(subjects))
    design = np.stack([features(s, x, draft) for s, x in zip(sex, logs, strict=True)])
    slopes, *_ = np.linalg.lstsq(design, latents, rcond=None)
    residual = latents - design @ slopes
    # E[ln e^2] = 2 ln sigma + constant: a regression gives how the spread depends on sex and age.
    spread = np.log(residual**2 + 1e-12)
    trend, *_ = np.linalg.lstsq(design[:, :3], spread, rcond=None)
    draft = replace(draft, slopes=slopes.T, residual_slopes=trend[1:].T / 2)
    residual /= np.stack([residual_scale(s, x, draft) for s, x in zip(sex, logs, strict=True)])
    covariance = residual.T @ residual / (len(latents) - design.shape[1])
    # A ridge of a millionth keeps the factor defined where a mode has no variance left.
    covariance += 1e-6 * np.eye(len(covariance))
    return replace(draft, residual_tril=np.linalg.cholesky(covariance))


def _describe_factors(
    sex: NDArray[np.int64], subjects: Listing[Factors], latents: int
) -> ConditionalGaussian:
    """Return what is known of the factors alone; latents do not depend on them yet."""
    factors = _factor_array(subjects)
    logs = _log_factors(factors)
    return ConditionalGaussian(
        slopes=np.zeros((latents, 7)),
        residual_tril=np.zeros((latents, latents)),
        residual_slopes=np.zeros((latents, 2)),
        factor_mean=np.stack([logs[sex == s].mean(axis=0) for s in (0, 1)]),
        factor_covariance=np.stack([np.cov(logs[sex == s].T) for s in (0, 1)]),
        factor_center=logs.mean(axis=0),
        factor_scale=logs.std(axis=0),
        sex_share=np.array([(sex == s).mean() for s in (0, 1)]),
        factor_range=np.stack([factors.min(axis=0), factors.max(axis=0)], axis=1),
    )


def _factor_array(subjects: Listing[Factors]) -> Array:
    """Return (age, height, weight, pressure) of every subject, ``(N, 4)``."""
    return np.array([[f.age, f.height, f.weight, f.sbp] for f in subjects])


def _log_factors(factors: Array) -> Array:
    """Return (age, log height, log weight, pressure), ``(N, 4)``."""
    logs = factors.copy()
    logs[:, 1:3] = np.log(factors[:, 1:3])
    return logs
