"""Completion with the linear model: latents given label maps of any frames and any factors.

Unless told that a heart is healthy, its prior is widened by ``models.disease``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.sequence import Sequence
from cardiogen.engine.contours import observe_frame, require_heart
from cardiogen.engine.fit_template import RayObservations
from cardiogen.engine.map_estimate import fit_with_chirality
from cardiogen.models.cycle import curve_entries
from cardiogen.models.disease import (
    SHORTENING_MEAN,
    SHORTENING_SD,
    disease_covariance,
    disease_shift,
)
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.linear import LinearModel
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
        CardiogenError: L37, L60, L61 for frames without a whole heart.
    """
    for number, labels in enumerate(observed.labels):
        require_heart(labels, f"{observed.subject_id}, frame {number}")
    prior = model.prior(condition)
    mean, covariance = prior.mean.numpy(), prior.covariance.numpy()
    if not healthy:
        mean, covariance = any_health(model, mean, covariance)
    seen = RayObservations(
        lambda z: model.coordinates(torch.from_numpy(z), observed.phases),
        [observe_frame(labels, observed.grid) for labels in observed.labels],
    )
    fit = fit_with_chirality(
        seen,
        mean,
        covariance,
        observed.labels[observed.ed],
        observed.grid,
        observed.orientation,
    )
    posterior = (fit.covariance + fit.covariance.T) / 2
    latents = GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        torch.from_numpy(fit.z)[None],
        torch.from_numpy(np.linalg.cholesky(posterior))[None],
    )
    return Posterior(latents, fit.pose, fit.margin)
