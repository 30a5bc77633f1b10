"""What a model must answer for the MESA table, and the simple models that it must beat.

``fit(train, validation) -> Model`` with two functions:

    sample(conditions (N, 2), n, rng)          -> ED and ES (N, n, 2, V, 3)
    complete(ed (N, V, 3), conditions, n, rng) -> ES (N, n, V, 3); conditions may be None
    point(ed (N, V, 3), conditions)            -> ES (N, V, 3), the best single guess
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.mesa_data import Cohort
from cardiogen.base import keyed_rng
from cardiogen.measure.distribution import SetDistances, one_nna, vertex_distances

Array = NDArray[np.float64]
Sampler = Callable[[Array, int, np.random.Generator], NDArray]
Completer = Callable[[NDArray, Array | None, int, np.random.Generator], NDArray]
Guess = Callable[[NDArray, Array | None], NDArray]

_MODES = (8, 12, 16, 20, 24)
_LEAST_MM = 0.02  # RMS of a mode above the rounding of the files, which is no shape


@dataclass(frozen=True)
class Model:
    """A fitted model.

    Attributes:
        sample: draws given conditions; None for one that only completes.
        complete: draws of ES given ED; None for one that only generates.
        point: single guess of ES; where None, the first draw (of models whose draws are equal).
        random: whether draws for the same conditions differ.
        real: whether draws are training subjects themselves; their specificity would be 0, so
            that of the test subjects stands for it.
        note: what was chosen or how long it took.
    """

    sample: Sampler | None
    complete: Completer | None
    point: Guess | None = None
    random: bool = True
    real: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False)
class JointGaussian:
    """PCA scores s and standardized conditions as one Gaussian; ``x = mean + s modes``."""

    mean: Array
    modes: Array
    covariance: Array
    middle: Array
    unit: Array
    noise_mm: float

    def prior(self, conditions: Array | None, count: int) -> tuple[Array, Array]:
        """Mean ``(N, K)`` and covariance ``(K, K)`` of scores given all or no conditions."""
        k = len(self.modes)
        own = self.covariance[:k, :k]
        if conditions is None:
            return np.zeros((count, k)), own
        across, rest = self.covariance[:k, k:], self.covariance[k:, k:]
        gain = np.linalg.solve(rest, across.T).T
        return (conditions - self.middle) / self.unit @ gain.T, own - gain @ across.T

    def draw(self, mean: Array, covariance: Array, n: int, rng: np.random.Generator) -> Array:
        """Scores ``(N, n, K)``."""
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        return mean[:, None] + rng.normal(size=(len(mean), n, len(root))) @ root.T


def fit_gaussian(train: Cohort, modes: int) -> JointGaussian:
    """Fit PCA of ED and ES together, and the covariance of scores and conditions."""
    flat = train.shapes.reshape(len(train.shapes), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    # By the matrix of inner products: subjects are fewer than coordinates.
    values, vectors = np.linalg.eigh((flat - mean) @ (flat - mean).T)
    size = np.sqrt(np.maximum(values[::-1][:modes], 0))
    size = size[size > _LEAST_MM * np.sqrt(flat.size)]
    modes = len(size)
    axes = (vectors[:, ::-1][:, :modes] / size).T @ (flat - mean)
    middle, unit = train.conditions.mean(axis=0), train.conditions.std(axis=0)
    scores = vectors[:, ::-1][:, :modes] * size
    joint = np.concatenate([scores, (train.conditions - middle) / unit], axis=1)
    left = np.sqrt(max(values[::-1][modes:].sum(), 0.0) / flat.size)
    return JointGaussian(mean, axes, np.cov(joint.T), middle, unit, max(float(left), _LEAST_MM))


def pca_model(gaussian: JointGaussian, note: str = "") -> Model:
    """Return the sampler and completer of a joint Gaussian."""

    def sample(conditions: Array, n: int, rng: np.random.Generator) -> NDArray:
        scores = gaussian.draw(*gaussian.prior(conditions, len(conditions)), n, rng)
        flat = (gaussian.mean + scores @ gaussian.modes).astype(np.float32)
        return flat.reshape(len(conditions), n, 2, -1, 3)

    half = gaussian.modes.shape[1] // 2

    def given_ed(ed: NDArray, conditions: Array | None) -> tuple[Array, Array]:
        mean, covariance = gaussian.prior(conditions, len(ed))
        seen = gaussian.modes[:, :half]
        away = ed.reshape(len(ed), -1) - gaussian.mean[:half] - mean @ seen
        inner = np.linalg.inv(covariance + 1e-9 * np.trace(covariance) * np.eye(len(covariance)))
        posterior = np.linalg.inv(inner + seen @ seen.T / gaussian.noise_mm**2)
        return mean + (away @ seen.T / gaussian.noise_mm**2) @ posterior, posterior

    def es_of(scores: Array) -> NDArray:
        flat = gaussian.mean[half:] + scores @ gaussian.modes[:, half:]
        return flat.astype(np.float32).reshape(*scores.shape[:-1], -1, 3)

    def complete(
        ed: NDArray, conditions: Array | None, n: int, rng: np.random.Generator
    ) -> NDArray:
        return es_of(gaussian.draw(*given_ed(ed, conditions), n, rng))

    def point(ed: NDArray, conditions: Array | None) -> NDArray:
        return es_of(given_ed(ed, conditions)[0])

    return Model(sample, complete, point, note=note)


def fit_pca(train: Cohort, validation: Cohort) -> Model:
    """Return PCA + conditional Gaussian, with the modes that are best on the validation subjects.

    For generation by 1-NNA, for completion by the vertex error: neither is best for both.
    """
    models = {modes: pca_model(fit_gaussian(train, modes)) for modes in _MODES}
    real = validation.shapes.reshape(len(validation.shapes), -1, 3)
    among = vertex_distances(real)
    apart, error = {}, {}
    for modes, model in models.items():
        drawn = model.sample(validation.conditions, 20, keyed_rng(0, "mesa modes", modes))
        drawn = drawn.reshape(*drawn.shape[:2], -1, 3)
        accuracy = [
            one_nna(SetDistances(
                among, vertex_distances(drawn[:, k]), vertex_distances(real, drawn[:, k])
            ))
            for k in range(drawn.shape[1])
        ]  # fmt: skip
        apart[modes] = abs(float(np.mean(accuracy)) - 0.5)
        guess = model.point(validation.shapes[:, 0], None)
        error[modes] = float(((guess - validation.shapes[:, 1]) ** 2).sum())
    drawing, filling = (min(found, key=lambda m, f=found: f[m]) for found in (apart, error))
    note = f"{drawing} modes; ES {filling}"
    best = models[filling]
    return Model(models[drawing].sample, best.complete, best.point, note=note)


def fit_nearest(train: Cohort, validation: Cohort) -> Model:
    """Return the training subject with the nearest conditions, or nearest at ED."""
    del validation
    middle, unit = train.conditions.mean(axis=0), train.conditions.std(axis=0)
    known = (train.conditions - middle) / unit

    def sample(conditions: Array, n: int, rng: np.random.Generator) -> NDArray:
        del rng
        away = np.linalg.norm(((conditions - middle) / unit)[:, None] - known, axis=-1)
        return np.repeat(train.shapes[away.argmin(axis=1)][:, None], n, axis=1)

    def complete(
        ed: NDArray, conditions: Array | None, n: int, rng: np.random.Generator
    ) -> NDArray:
        del rng
        away = vertex_distances(ed, train.shapes[:, 0])
        if conditions is not None:
            # One SD of a condition weighs as much as one SD of ED shape.
            gap = ((conditions - middle) / unit)[:, None] - known
            away = np.sqrt((away / away.std()) ** 2 + (gap**2).sum(axis=-1))
        chosen = train.shapes[away.argmin(axis=1)]
        return np.repeat((ed + chosen[:, 1] - chosen[:, 0])[:, None], n, axis=1)

    return Model(sample, complete, random=False)


def fit_mean_motion(train: Cohort, validation: Cohort) -> Model:
    """Return ED moved by the mean motion; it generates nothing."""
    del validation
    motion = (train.shapes[:, 1] - train.shapes[:, 0]).mean(axis=0)

    def complete(
        ed: NDArray, conditions: Array | None, n: int, rng: np.random.Generator
    ) -> NDArray:
        del conditions, rng
        return np.repeat((ed + motion)[:, None], n, axis=1)

    return Model(None, complete, random=False)


def fit_real(train: Cohort, validation: Cohort) -> Model:
    """Return training subjects drawn at random, whatever the conditions: the floor."""
    del validation

    def sample(conditions: Array, n: int, rng: np.random.Generator) -> NDArray:
        rows = np.stack(
            [rng.permutation(len(train.shapes))[: len(conditions)] for _ in range(n)], axis=1
        )
        return train.shapes[rows]

    return Model(sample, None, real=True)
