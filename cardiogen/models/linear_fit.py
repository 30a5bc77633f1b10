"""Fitting the linear model to a cohort of beating hearts."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from cardiogen.base import CardiogenError, keyed_rng, progress
from cardiogen.data.factors import Factors
from cardiogen.models.cycle import ED_BLOCK, HARMONICS, MOTION_BLOCK, encode_cycle
from cardiogen.models.linear import SEXES, LinearWeights, features, residual_scale
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import sample_heart
from cardiogen.population.phenotypes import PHENOTYPES

Array = NDArray[np.float64]

_TRAINING_PHASES = np.arange(40) / 40.0
_MIN_SUBJECTS = 20


@dataclass(frozen=True, eq=False)
class Example:
    """One training subject: complete factors and cycle vector ``(Y,)``."""

    factors: Factors
    vector: Array


def population_example(seed: int, index: int) -> Example:
    """Return population heart ``index`` at an age drawn evenly from the covered range."""
    age = keyed_rng(seed, "linear/age", index).uniform(*AGE_RANGE)
    heart = sample_heart(seed, index, Factors(age=float(age)))
    vector = encode_cycle(_TRAINING_PHASES, heart.coordinates(_TRAINING_PHASES))
    return Example(heart.factors, vector)


def population_examples(count: int, seed: int) -> list[Example]:
    """Return the first ``count`` training subjects of the reference population."""
    return [population_example(seed, i) for i in progress(range(count), "drawing population")]


def _principal_modes(block: Array, kept: float) -> Array:
    """Return unit modes (Z, Y) of centered rows that explain a share ``kept`` of variance."""
    _, values, modes = np.linalg.svd(block, full_matrices=False)
    share = np.cumsum(values**2) / np.sum(values**2)
    modes = modes[: int(np.searchsorted(share, kept) + 1)]
    # A mode's sign is free: the largest entry is made positive, so that refits agree.
    largest = np.abs(modes).argmax(axis=1)
    return modes * np.sign(modes[np.arange(len(modes)), largest])[:, None]


def _factor_array(examples: Listing[Example]) -> Array:
    """Return (age, height, weight, pressure) of every subject, ``(N, 4)``."""
    return np.array(
        [[e.factors.age, e.factors.height, e.factors.weight, e.factors.sbp] for e in examples]
    )


def fit_linear(
    examples: Listing[Example], *, ed_variance: float = 0.9995, motion_variance: float = 0.995
) -> LinearWeights:
    """Fit the linear model.

    Args:
        examples: subjects with complete factors, both sexes among them.
        ed_variance: share of the standardized end-diastolic variance that the modes keep.
        motion_variance: the same for motion.

    Raises:
        CardiogenError: C28 for too few subjects or only one sex.
    """
    sex = np.array([SEXES.index(e.factors.sex) for e in examples])
    if min((sex == 0).sum(), (sex == 1).sum()) < _MIN_SUBJECTS:
        raise CardiogenError(
            "C28", "cohort", found=f"{(sex == 0).sum()} women and {(sex == 1).sum()} men",
            expected=f"at least {_MIN_SUBJECTS} of each", remedy="a larger cohort",
        )  # fmt: skip
    vectors = np.stack([e.vector for e in examples])
    mean, scale = vectors.mean(axis=0), _scales(vectors)
    standard = (vectors - mean) / scale
    shape = slice(len(PHENOTYPES), ED_BLOCK.stop)
    # Phenotypes stay scores of their own: they are what users condition and judge by.
    ed_modes = block_diag(
        np.eye(len(PHENOTYPES)), _principal_modes(standard[:, shape], ed_variance)
    )
    motion_modes = _principal_modes(standard[:, MOTION_BLOCK], motion_variance)
    scores = np.concatenate(
        [standard[:, ED_BLOCK] @ ed_modes.T, standard[:, MOTION_BLOCK] @ motion_modes.T], axis=1
    )
    return _conditional_gaussian(
        sex, _factor_array(examples), scores, mean, scale, ed_modes, motion_modes
    )


def _scales(vectors: Array) -> Array:
    """Return the SD of every entry; harmonics of one curve share one.

    Were each harmonic brought to unit variance, the modes would describe the smallest ones as
    faithfully as the beat itself.
    """
    scale = vectors.std(axis=0)
    # Entries that never vary keep their own unit.
    scale = np.where(scale > 1e-12, scale, 1.0)
    curves = vectors[:, MOTION_BLOCK].var(axis=0).reshape(-1, 2 * HARMONICS).sum(axis=1)
    floor = 1e-6 * np.sqrt(curves.mean())
    scale[MOTION_BLOCK] = np.repeat(np.maximum(np.sqrt(curves), floor), 2 * HARMONICS)
    return scale


def _conditional_gaussian(
    sex: NDArray[np.int64],
    factors: Array,
    scores: Array,
    mean: Array,
    scale: Array,
    ed_modes: Array,
    motion_modes: Array,
) -> LinearWeights:
    """Regress the scores on the factors and describe the factors themselves."""
    logs = factors.copy()
    logs[:, 1:3] = np.log(factors[:, 1:3])
    draft = LinearWeights(
        mean=mean,
        scale=scale,
        ed_modes=ed_modes,
        motion_modes=motion_modes,
        slopes=np.zeros((scores.shape[1], 7)),
        residual_tril=np.zeros((scores.shape[1],) * 2),
        residual_slopes=np.zeros((scores.shape[1], 2)),
        factor_mean=np.stack([logs[sex == s].mean(axis=0) for s in (0, 1)]),
        factor_covariance=np.stack([np.cov(logs[sex == s].T) for s in (0, 1)]),
        factor_center=logs.mean(axis=0),
        factor_scale=logs.std(axis=0),
        sex_share=np.array([(sex == s).mean() for s in (0, 1)]),
        factor_range=np.stack([factors.min(axis=0), factors.max(axis=0)], axis=1),
    )
    design = np.stack([features(s, x, draft) for s, x in zip(sex, logs, strict=True)])
    slopes, *_ = np.linalg.lstsq(design, scores, rcond=None)
    residual = scores - design @ slopes
    # E[ln e^2] = 2 ln sigma + constant: a regression gives how the spread depends on sex and age.
    spread = np.log(residual**2 + 1e-12)
    trend, *_ = np.linalg.lstsq(design[:, :3], spread, rcond=None)
    draft = _replace(draft, slopes=slopes.T, residual_slopes=trend[1:].T / 2)
    residual /= np.stack([residual_scale(s, x, draft) for s, x in zip(sex, logs, strict=True)])
    covariance = residual.T @ residual / (len(scores) - design.shape[1])
    # A ridge of a millionth keeps the factor defined where a mode has no variance left.
    covariance += 1e-6 * np.eye(len(covariance))
    return _replace(draft, residual_tril=np.linalg.cholesky(covariance))


def _replace(weights: LinearWeights, **changes: Array) -> LinearWeights:
    parts = {name: getattr(weights, name) for name in LinearWeights.names()}
    return LinearWeights(**(parts | changes))
