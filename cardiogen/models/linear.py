"""The linear model: PCA of end-diastolic shape and of Fourier motion, with a conditional Gaussian.

With y the cycle vector of a heart (``models.cycle``), standardized per entry, and z the scores on
the modes of its end-diastolic and motion blocks,

    y = mean + scale * (modes^T z),    z = A f(x) + S(x) e,  e ~ N(0, C),
    f(x) = (1, sex, age, sex age, log height, log weight, pressure), standardized,
    S(x) = diag exp(B (sex, age)):

the phenotypes are scores of their own, and their relative spread differs between sexes and ages.
Given sex the factors themselves are Gaussian, so that any subset of them conditions z exactly; an
unknown sex gives a mixture of two Gaussians. Every z decodes to a valid, periodic heart.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.models.cycle import ED_BLOCK, MOTION_BLOCK, decode_cycle, end_systole
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import CONDITION_COLUMNS, CONDITION_UNITS, Posterior
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

SEXES = ("F", "M")
# A condition is refused where fewer than one in 10,000 training subjects would be as unusual:
# 99.99 % quantiles of chi-squared with 1, 2 and 3 degrees of freedom. As literals, since importing
# scipy.special for them would cost every command a third of a second.
_JOINT_LIMIT = {1: 15.1367, 2: 18.4207, 3: 21.1075}


@dataclass(frozen=True, eq=False)
class LinearWeights:
    """Everything that is learned; saved as ``model.safetensors``.

    Attributes:
        mean, scale: of the cycle vector, ``(Y,)``.
        ed_modes, motion_modes: rows are unit modes of the standardized blocks, ``(Z1, Y1)``,
            ``(Z2, Y2)``.
        slopes: A, ``(Z, 7)``.
        residual_tril: lower Cholesky factor of C, ``(Z, Z)``.
        residual_slopes: B, ``(Z, 2)``.
        factor_mean, factor_covariance: of (age, log height, log weight, pressure) given sex,
            ``(2, 4)`` and ``(2, 4, 4)``, rows F and M.
        factor_center, factor_scale: standardization of the same four, ``(4,)``.
        sex_share: share of F and M, ``(2,)``.
        factor_range: smallest and largest (age, height, weight, pressure) seen, ``(4, 2)``.
    """

    mean: Array
    scale: Array
    ed_modes: Array
    motion_modes: Array
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


def features(sex: int, factors: Array, weights: LinearWeights) -> Array:
    """Return f(x) ``(..., 7)`` of (age, log height, log weight, pressure) ``(..., 4)``."""
    standard = (factors - weights.factor_center) / weights.factor_scale
    constant = np.ones_like(standard[..., :1])
    male = constant * (sex - 0.5)
    return np.concatenate([constant, male, standard[..., :1], male * standard[..., :1],
                           standard[..., 1:]], axis=-1)  # fmt: skip


def residual_scale(sex: int, factors: Array, weights: LinearWeights) -> Array:
    """Return the diagonal of S(x) ``(..., Z)`` of (age, log height, log weight, pressure)."""
    age = (factors[..., 0] - weights.factor_center[0]) / weights.factor_scale[0]
    sex_effect = (sex - 0.5) * weights.residual_slopes[:, 0]
    return np.exp(sex_effect + age[..., None] * weights.residual_slopes[:, 1])


def _feature_matrix(sex: int, weights: LinearWeights) -> tuple[Array, Array]:
    """Return F (7, 4) and f0 (7,) with ``f(x) = f0 + F x`` for one sex."""
    origin = features(sex, np.zeros(4), weights)
    return np.stack([features(sex, row, weights) - origin for row in np.eye(4)], axis=1), origin


class LinearModel:
    """``AnatomyModel`` over :class:`LinearWeights`."""

    def __init__(self, weights: LinearWeights) -> None:
        self.weights = weights
        self.topology: Topology = template_topology()
        self._ed_size = len(weights.ed_modes)

    @property
    def latent_size(self) -> int:
        """Number of latents Z."""
        return self._ed_size + len(self.weights.motion_modes)

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        values = condition.numpy()[[0, 2, 3, 4]]
        names = [CONDITION_COLUMNS[k] for k in (0, 2, 3, 4)]
        units = [CONDITION_UNITS[k] for k in (0, 2, 3, 4)]
        ranges = self.weights.factor_range
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
            mean, covariance = self.weights.factor_mean[sex], self.weights.factor_covariance[sex]
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
        w = self.weights
        log_weights, means, factors = [], [], []
        for sex in self._sexes(condition):
            mean, covariance, evidence = _condition(
                w.factor_mean[sex], w.factor_covariance[sex], known, observed
            )
            matrix, origin = _feature_matrix(sex, w)
            means.append(np.einsum("zf,f->z", w.slopes, origin + matrix @ mean))
            # Residual and unknown factors side by side: their sum needs no factorization of its
            # own, and einsum no BLAS, so that the bits do not depend on the number of threads.
            noise = residual_scale(sex, mean, w)[:, None] * w.residual_tril
            spread = np.einsum("zf,fx->zx", w.slopes, matrix @ _root(covariance))
            factors.append(np.concatenate([noise, spread], axis=1))
            log_weights.append(np.log(w.sex_share[sex]) + evidence)
        shares = np.exp(np.array(log_weights) - max(log_weights))
        return GaussianMixture(
            torch.from_numpy(shares / shares.sum()),
            torch.from_numpy(np.stack(means)),
            torch.from_numpy(np.stack(factors)),
        )

    def cycle_vector(self, latent: Tensor) -> Array:
        """Return the cycle vector ``(Y,)`` of a latent ``(Z,)``."""
        z = latent.detach().cpu().numpy().astype(np.float64)
        w = self.weights
        standard = np.empty_like(w.mean)
        # einsum without BLAS: the same bits for any number of threads.
        standard[ED_BLOCK] = np.einsum("z,zy->y", z[: self._ed_size], w.ed_modes)
        standard[MOTION_BLOCK] = np.einsum("z,zy->y", z[self._ed_size :], w.motion_modes)
        return w.mean + w.scale * standard

    def coordinates(self, latent: Tensor, phases: ArrayLike) -> Array:
        """Return the shape coordinates ``(T, P)`` of a latent at any phases."""
        return decode_cycle(self.cycle_vector(latent), phases)

    def decode(self, latent: Tensor, phases: ArrayLike) -> Array:
        """Return heart-frame meshes ``(T, V, 3)`` in mm of a latent ``(Z,)`` at any phases."""
        return heart_vertices(self.coordinates(latent, phases))

    def encode_vector(self, vector: Array) -> Tensor:
        """Return the latent whose cycle vector is nearest to ``vector``, ``(Z,)``."""
        w = self.weights
        standard = (vector - w.mean) / w.scale
        scores = [w.ed_modes @ standard[ED_BLOCK], w.motion_modes @ standard[MOTION_BLOCK]]
        return torch.from_numpy(np.concatenate(scores))

    def is_possible(self, latent: Tensor) -> bool:
        """Whether a latent decodes to a heart: no ventricle ejects more than it holds."""
        phases = [0.0, self.end_systole(latent)]
        return bool(np.isfinite(self.coordinates(latent, phases)).all())

    def end_systole(self, latent: Tensor) -> float:
        """Return the phase at which ejection ends: all but 0.5 % of the stroke is out."""
        return end_systole(self.cycle_vector(latent))

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the latents given label maps of any frames: see ``models.completion``."""
        from cardiogen.models.completion import linear_posterior

        return linear_posterior(self, observed, condition, healthy=healthy)


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
