"""Posteriors of models with a Gaussian prior: contours and volumes of frames, by Laplace."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.data.sequence import Sequence
from cardiogen.engine.contours import FrameObservation, observe_frame, require_heart
from cardiogen.engine.map_estimate import Observations, fit_with_chirality
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import Posterior

Array = NDArray[np.float64]


def observe(observed: Sequence) -> list[FrameObservation]:
    """Return what the label maps of all frames say.

    Raises:
        CardiogenError: L37, L60, L61, L66 for frames without a whole heart.
    """
    for number, labels in enumerate(observed.labels):
        require_heart(labels, f"{observed.subject_id}, frame {number}")

    return [observe_frame(labels, observed.grid) for labels in observed.labels]


def map_posterior(
    observed: Sequence,
    seen_of: Callable[[Listing[FrameObservation]], Observations],
    mean: Array,
    covariance: Array,
) -> Posterior:
    """Return the Laplace posterior of latents, with the pose of the heart.

    Args:
        observed: label maps with their phases, in any order; ED need not be among them.
        seen_of: frames -> their residuals as functions of the latents.
        mean, covariance: Gaussian prior of the latents, ``(Z,)`` and ``(Z, Z)``.

    Raises:
        CardiogenError: see :func:`observe`.
    """
    fit = fit_with_chirality(
        seen_of(observe(observed)), mean, covariance, observed.labels[observed.ed],
        observed.grid, observed.orientation,
    )  # fmt: skip
    factor = np.linalg.cholesky((fit.covariance + fit.covariance.T) / 2)
    latents = GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        torch.from_numpy(fit.z)[None],
        torch.from_numpy(factor)[None],
    )

    return Posterior(latents, fit.pose, fit.margin)
