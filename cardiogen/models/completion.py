"""Completion with the linear model: latents given label maps of any frames and any factors.

Unless told that a heart is healthy, its prior is widened by ``models.disease``.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.sequence import Sequence
from cardiogen.engine.contours import FrameObservation
from cardiogen.engine.fit_template import RayObservations
from cardiogen.models.cycle import curve_entries
from cardiogen.models.disease import (
    SHORTENING_MEAN,
    SHORTENING_SD,
    disease_covariance,
    disease_shift,
)
from cardiogen.models.linear import LinearModel
from cardiogen.models.map_posterior import map_posterior
from cardiogen.models.protocol import Posterior
from cardiogen.population.phenotypes import PHENOTYPES

Array = NDArray[np.float64]


def any_health(model: LinearModel, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Move and widen a prior of the latents by disease.

    What the phenotypes are in health correlated with follows them: latents move by their
    regression on the first four phenotypes. The ratio of stroke volumes is too narrow in health
    to say anything about shape.

    Args:
        model: the model.
        mean, covariance: Gaussian prior of the latents in health, ``(Z,)`` and ``(Z, Z)``.
    """
    size = len(PHENOTYPES)
    regression = np.zeros((len(covariance), size))
    known = covariance[: size - 1, : size - 1]
    regression[:, : size - 1] = np.linalg.solve(known, covariance[: size - 1]).T
    regression[:size] = np.eye(size)
    scale = model.weights.scale[:size]
    spread = disease_covariance() / np.outer(scale, scale)
    moved = mean + regression @ (disease_shift() / scale)
    shortening = _shortening(model, moved)
    widened = covariance + regression @ spread @ regression.T
    return (
        moved + (SHORTENING_MEAN - 1.0) * shortening,
        widened + SHORTENING_SD**2 * np.outer(shortening, shortening),
    )


def _shortening(model: LinearModel, mean: Array) -> Array:
    """Return the latents ``(Z,)`` that add the mean heart's longitudinal motion once more."""
    vector = model.cycle_vector(torch.from_numpy(mean))
    longitudinal = model.weights.mean.copy()
    entries = curve_entries(("log_focal", "descent"))
    longitudinal[entries] += vector[entries]
    return model.encode_vector(longitudinal).numpy()


def linear_posterior(
    model: LinearModel, observed: Sequence, condition: Tensor, *, healthy: bool = False
) -> Posterior:
    """Return the Laplace posterior of the latents.

    The prior given the condition (its two sexes merged to one Gaussian where sex is unknown) meets
    the contours and volumes of all observed frames; see ``engine.fit_template``.

    Args:
        model: the model.
        observed: label maps with their phases, in any order; ED need not be among them.
        condition: ``(5,)``, NaN where unknown.
        healthy: trust the healthy population's own spread.

    Raises:
        CardiogenError: L37, L60, L61, L66 for frames without a whole heart.
    """
    prior = model.prior(condition)
    mean, covariance = prior.mean.numpy(), prior.covariance.numpy()
    if not healthy:
        mean, covariance = any_health(model, mean, covariance)

    def seen_of(frames: Listing[FrameObservation]) -> RayObservations:
        return RayObservations(
            lambda z: model.coordinates(torch.from_numpy(z), observed.phases), frames
        )

    return map_posterior(observed, seen_of, mean, covariance)
