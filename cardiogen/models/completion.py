"""Completion with the linear model: latents given label maps of any frames and any factors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.sequence import Sequence
from cardiogen.engine.contours import observe_frame, require_heart
from cardiogen.engine.fit_template import fit_with_chirality
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.linear import LinearModel
from cardiogen.models.protocol import Posterior

Array = NDArray[np.float64]


def linear_posterior(model: LinearModel, observed: Sequence, condition: Tensor) -> Posterior:
    """Return the Laplace posterior of the latents.

    The prior given the condition (its two sexes merged to one Gaussian where sex is unknown) meets
    the contours and volumes of all observed frames; see ``engine.fit_template``.

    Args:
        model: the model.
        observed: label maps with their phases, in any order; ED need not be among them.
        condition: ``(5,)``, NaN where unknown.

    Raises:
        CardiogenError: L37, L60, L61 for frames without a whole heart.
    """
    for number, labels in enumerate(observed.labels):
        require_heart(labels, f"{observed.subject_id}, frame {number}")
    prior = model.prior(condition)
    frames = [observe_frame(labels, observed.grid) for labels in observed.labels]
    fit = fit_with_chirality(
        lambda z: model.coordinates(torch.from_numpy(z), observed.phases),
        prior.mean.numpy(),
        prior.covariance.numpy(),
        frames,
        observed.labels[observed.ed],
        observed.grid,
        observed.orientation,
    )
    covariance = (fit.covariance + fit.covariance.T) / 2
    latents = GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        torch.from_numpy(fit.z)[None],
        torch.from_numpy(np.linalg.cholesky(covariance))[None],
    )
    return Posterior(latents, fit.pose)
