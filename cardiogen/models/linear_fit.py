"""Fitting the linear model to a cohort of beating hearts."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.factors import Factors
from cardiogen.models.conditional_fit import fit_conditional
from cardiogen.models.cycle import ED_BLOCK, HARMONICS, MOTION_BLOCK, encode_cycle
from cardiogen.models.linear import LinearWeights
from cardiogen.population.heart import training_heart
from cardiogen.population.phenotypes import PHENOTYPES

Array = NDArray[np.float64]

_TRAINING_PHASES = np.arange(40) / 40.0


@dataclass(frozen=True, eq=False)
class Example:
    """One training subject: complete factors and cycle vector ``(Y,)``."""

    factors: Factors
    vector: Array


def population_example(seed: int, index: int) -> Example:
    """Return population heart ``index`` at an age drawn evenly from the covered range."""
    heart = training_heart(seed, index)
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
    from scipy.linalg import block_diag

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
    latents = fit_conditional(scores, [e.factors for e in examples])

    return LinearWeights(mean, scale, ed_modes, motion_modes, latents)


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
