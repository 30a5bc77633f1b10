"""Completion with the deformation model: latents given label maps of any frames and any factors.

The Gaussian prior given the factors, widened by ``models.disease`` unless the heart is known to be
healthy, meets meshes that are fitted to all frames: ``models.mesh_posterior``. Of a heart that may
be ill, velocities beyond the modes follow, so that observed frames look as observed.

A model adapted to a cohort encodes end diastole and predicts motion as the cohort's hearts beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.data.sequence import Sequence
from cardiogen.models.deformation.encoding import has_end_diastole
from cardiogen.models.deformation.linearized import linearized
from cardiogen.models.deformation.patient_prior import any_health, follow_sizes
from cardiogen.models.mesh_posterior import mesh_posterior
from cardiogen.models.protocol import Posterior

if TYPE_CHECKING:
    from cardiogen.models.deformation.model import DeformationModel


def deformation_posterior(
    model: DeformationModel, observed: Sequence, condition: Tensor, *, healthy: bool = False
) -> Posterior:
    """Return the Laplace posterior of the latents.

    Args:
        model: the model.
        observed: label maps with their phases, in any order; ED need not be among them.
        condition: ``(5,)``, NaN where unknown.
        healthy: trust the healthy population's own spread.

    Raises:
        CardiogenError: L37, L60, L61 for frames without a whole heart, M21 for ``healthy`` and a
            model that was adapted to a cohort.
    """
    from cardiogen.models.deformation.patients import patient_posterior, with_own_modes

    if model.cohort is not None and healthy:
        raise CardiogenError(
            "M21", "model", found="a model adapted to a cohort, taken for a healthy population",
            expected="a model of healthy hearts", remedy="--model deformation, or no --healthy",
        )  # fmt: skip
    if model.cohort is not None and has_end_diastole(observed):
        return patient_posterior(model, observed, condition)
    prior = model.prior(condition)
    mean, covariance = prior.mean.numpy(), prior.covariance.numpy()
    hearts, ill = linearized(model, observed.phases), None
    if not healthy and model.cohort is None:
        wall = None if model.strokes is None else model.strokes.stroke_slopes[2]
        ill = any_health(model.phenotypes, wall, mean, covariance, model.decoder.modes.ed_size)
        mean, covariance = ill.mean, ill.covariance
    found = mesh_posterior(observed, hearts, model.noise, mean, covariance)
    if ill is not None:
        found = follow_sizes(model, found, ill)

    return found if healthy else with_own_modes(model, observed, found)
