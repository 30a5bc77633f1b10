"""Posteriors of hearts that need not look like the model's: patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence
from cardiogen.measure.crossing import crossing_faces
from cardiogen.models.deformation.adaptation import logit
from cardiogen.models.deformation.cohort import (
    ed_features,
    ed_scores,
    ejection_fractions,
)
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.encoding import EncodedHeart, has_end_diastole
from cardiogen.models.deformation.individual import own_modes, seen_motion
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.template import WEDGES_MM
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import CONDITION_COLUMNS, Posterior

Array = NDArray[np.float64]

_EJECTION_STEPS, _DIFFERENCE, _RIDGE = 3, 0.05, 1e-4
_CYCLE = np.arange(25) / 25
_SURE = 1e-3  # standard deviation of the scores of an encoded end diastole


def patient_posterior(model: DeformationModel, observed: Sequence, condition: Tensor) -> Posterior:
    """Return the latents of a patient of the cohort that a model was adapted to.

    End diastole is encoded; motion is ``adaptation``'s Gaussian given its shape, conditioned on
    the velocities of the other frames.

    Other frames than end diastole are taken at their own phases, though the cohort's time runs by
    stage: an end systole much later than typical reads as one that has begun to fill.

    Args:
        model: adapted model.
        observed: label maps of end diastole and any other frames; its group, if known, tells of
            the ejection fractions.
        condition: ``(5,)``, NaN where unknown; body size indexes the volumes. Age, sex and
            pressure tell nothing more here: shape is seen, and motion is learned from shape.

    Raises:
        CardiogenError: L37, L60, L61 for frames without a whole heart.
    """
    heart = model.encoder.encode(observed)

    return encoded_posterior(model, heart, condition, group=observed.group)


def encoded_posterior(
    model: DeformationModel, heart: EncodedHeart, condition: Tensor, *, group: str | None = None
) -> Posterior:
    """Return the latents of an encoded heart; see :func:`patient_posterior`."""
    decoder = model.decoder
    features = ed_features(decoder, heart, _body(condition))
    mean, covariance = model.cohort.given(features)
    shape = ed_scores(decoder, heart)
    told = model.cohort.logits_given(features, group)
    mean, covariance = _ejecting(model, heart, shape, mean, covariance, *told)
    later = np.mod(heart.phases, 1.0) != 0
    motion = heart.motion.flatten(1).double().numpy()[later]
    if later.any():
        mean, covariance = seen_motion(
            decoder.modes, heart.phases[later], motion, mean, covariance
        )
    # As many directions as subjects: a covariance without a Cholesky factor.
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    factor = np.zeros((len(shape) + len(mean),) * 2)
    factor[: len(shape), : len(shape)] = _SURE * np.eye(len(shape))
    factor[len(shape) :, len(shape) :] = root
    scores = np.concatenate([shape, mean])
    latents = GaussianMixture(
        torch.ones(1, dtype=torch.float64), torch.from_numpy(scores)[None],
        torch.from_numpy(factor)[None],
    )  # fmt: skip

    return Posterior(latents, heart.pose, heart.margin, own_model(model, scores, heart))


def _ejecting(
    model: DeformationModel,
    heart: EncodedHeart,
    shape: Array,
    mean: Array,
    covariance: Array,
    logits: Array,
    variances: Array,
) -> tuple[Array, Array]:
    """Move motion scores the least, as their covariance measures it, to wanted EFs.

    Their covariance changes along with EFs alone, so that these get the variances that the cohort
    gives them; given EFs, motion is as uncertain as before (Jeffrey's rule).

    Args:
        model: adapted model.
        heart: gives the shape that ejects.
        shape: its scores ``(R1,)``.
        mean, covariance: of the motion scores.
        logits: of LVEF and RVEF ``(2,)``.
        variances: of these.

    Returns:
        Mean and covariance of the motion scores after.
    """
    still = replace(heart, motion=0 * heart.motion[:1], phases=np.zeros(1))
    own = own_model(model, np.concatenate([shape, mean]), still)
    for _ in range(_EJECTION_STEPS):
        systole = own.end_systole(torch.from_numpy(np.concatenate([shape, mean])))
        steps = np.concatenate([np.zeros((1, len(mean))), _DIFFERENCE * np.eye(len(mean))])
        hearts = np.concatenate([np.tile(shape, (len(steps), 1)), mean + steps], axis=1)
        with torch.no_grad():
            meshes = own.decoder.meshes(torch.from_numpy(hearts).float(), [0.0, systole])
        found = np.stack(
            [logit(ejection_fractions(m, model.topology)) for m in meshes.double().numpy()]
        )
        slopes = (found[1:] - found[0]).T / _DIFFERENCE
        shared = covariance @ slopes.T
        before = slopes @ shared + _RIDGE * np.eye(2)
        gain = np.linalg.solve(before, shared.T).T
        mean = mean + gain @ (logits - found[0])
    scale = np.sqrt(variances / np.diag(before))

    return mean, covariance + gain @ (before * np.outer(scale, scale) - before) @ gain.T


def with_own_modes(model: DeformationModel, observed: Sequence, found: Posterior) -> Posterior:
    """Return a posterior whose own model shows the observed frames as they were observed.

    Nothing changes without end diastole, to which all motion refers.
    """
    if not has_end_diastole(observed):
        return found
    latent = found.latents.mean.numpy()
    ed, motion = model.decoder.modes.heart_velocities(model.scores(latent), observed.phases)
    heart = model.encoder.follow(
        observed, found.pose, torch.from_numpy(ed).float(), torch.from_numpy(motion).float()
    )

    return replace(found, own=own_model(model, latent, heart))


def own_model(model: DeformationModel, latent: Array, heart: EncodedHeart) -> DeformationModel:
    """Return the model whose modes show one heart at its latent, with strokes as they were.

    Vertices follow what was seen and do not slip there; the right wall is inserted by a wedge
    that is wide enough for no faces to cross.
    """
    later = np.mod(heart.phases, 1.0) != 0
    scores = model.solved_scores(latent) if later.any() else model.scores(latent)
    modes = own_modes(
        model.decoder.modes, scores, heart.ed.double().numpy().ravel(), heart.phases[later],
        heart.motion.flatten(1).double().numpy()[later],
    )  # fmt: skip
    slips = model.decoder.slips
    unseen = None if slips is None or later.any() else slips.beats_alone()
    decoder = VelocityDecoder(model.decoder.template, modes, unseen)

    return DeformationModel(
        _without_crossing(decoder, scores), model.latents, model.phenotypes, noise=model.noise,
        strokes=model.strokes, cohort=model.cohort, solver=model.solver,
    )  # fmt: skip


def _without_crossing(decoder: VelocityDecoder, scores: Array) -> VelocityDecoder:
    """Return a decoder whose heart crosses itself in no frame, or as it was if no wedge helps."""
    faces = decoder.template.topology.all_faces
    for wedge in WEDGES_MM:
        wider = replace(decoder, wedge_mm=wedge)
        meshes = wider.heart(scores, _CYCLE)
        if not any(len(crossing_faces(mesh, faces)) for mesh in meshes):
            return wider

    return decoder


def _body(condition: Tensor) -> Factors:
    """Return height and weight of a condition, if known."""
    known = {
        name: float(value)
        for name, value in zip(CONDITION_COLUMNS, condition.tolist(), strict=True)
        if name in ("height", "weight") and np.isfinite(value)
    }

    return Factors(**known)
