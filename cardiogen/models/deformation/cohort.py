"""Cohorts of label maps as training data: a model of the population, adapted to real hearts.

The population gives the template, the modes and what factors do; the cohort moves the mean, adds
its own spread, and teaches how motion follows from shape (``adaptation``).
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, progress
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.deformation.adaptation import MotionGivenShape, shape_features
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.encoding import EncodedHeart, HeartEncoder
from cardiogen.models.deformation.individual import seen_motion
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.protocol import encode_condition

Array = NDArray[np.float64]

FEWEST = 5
_ED_NOISE_MM = 10.0
_PRIOR_EXCESS = 25.0  # patients beat five times farther from the mean than healthy hearts


@dataclass(frozen=True, eq=False)
class CohortCodes:
    """What a cohort tells of a model.

    Attributes:
        scores: ``(N, S)``.
        features: of the shapes at end diastole ``(N, 4)``, see ``adaptation``.
        factors: of the subjects, any missing.
    """

    scores: Array
    features: Array
    factors: tuple[Factors, ...]


def encode_cohort(model: DeformationModel, hearts: Listing[Sequence]) -> list[EncodedHeart]:
    """Encode label maps of end diastole and any other frames; see ``encoding``."""
    encoder = HeartEncoder(model.decoder, typical_scores(model))

    return [encoder.encode(heart) for heart in progress(hearts, "encoding hearts")]


def typical_scores(model: DeformationModel) -> Array:
    """Return the scores of the mean heart ``(S,)``."""
    return model.prior(encode_condition(Factors())).mean.numpy()


def cohort_codes(
    model: DeformationModel, hearts: Listing[EncodedHeart], factors: Listing[Factors]
) -> CohortCodes:
    """Return scores and features of encoded hearts."""
    decoder, typical = model.decoder, typical_scores(model)
    prior = model.prior(encode_condition(Factors())).covariance.numpy()
    beats = slice(decoder.modes.ed_size, None)
    scores, features = [], []
    for heart, known in zip(hearts, factors, strict=True):
        mean, _ = seen_motion(
            decoder.modes, heart.phases, heart.motion.flatten(1).double().numpy(),
            typical[beats], _PRIOR_EXCESS * prior[beats, beats],
        )  # fmt: skip
        scores.append(np.concatenate([ed_scores(decoder, heart), mean]))
        features.append(ed_features(decoder, heart, known))

    return CohortCodes(np.stack(scores), np.stack(features), tuple(factors))


def ed_scores(decoder: VelocityDecoder, heart: EncodedHeart) -> Array:
    """Return the most probable scores ``(R1,)`` of the velocity at end diastole.

    Scores of modes that move less than the noise of encoding are shrunk to nothing.
    """
    modes = decoder.modes
    seen = modes.ed_modes @ (heart.ed.double().numpy().ravel() - modes.ed_mean)

    return seen * modes.ed_scale / (modes.ed_scale**2 + _ED_NOISE_MM**2)


def ed_features(decoder: VelocityDecoder, heart: EncodedHeart, factors: Factors) -> Array:
    """Return the features of the shape at end diastole ``(4,)``."""
    still = replace(heart, motion=0 * heart.motion[:1], phases=np.zeros(1))
    vertices = heart.pose.to_heart(still.meshes(decoder)[0])

    return shape_features(vertices, decoder.template.topology, factors)


def adapt(model: DeformationModel, codes: CohortCodes) -> DeformationModel:
    """Return a model of the cohort's hearts.

    Raises:
        CardiogenError: C28 for fewer than five subjects.
    """
    if len(codes.scores) < FEWEST:
        raise CardiogenError(
            "C28", "cohort", found=f"{len(codes.scores)} subjects with ED and another frame",
            expected=f"at least {FEWEST}", remedy="a larger cohort",
        )  # fmt: skip
    expected = np.stack([model.prior(encode_condition(f)).mean.numpy() for f in codes.factors])
    modes = model.decoder.modes
    motion = MotionGivenShape.fit(
        codes.features, codes.scores[:, modes.ed_size :], modes.motion_scale
    )

    return DeformationModel(
        model.decoder, _adapted(model.latents, codes.scores - expected), model.phenotypes,
        cohort=motion,
    )  # fmt: skip


def _adapted(latents: ConditionalGaussian, residuals: Array) -> ConditionalGaussian:
    """Move and widen a conditional Gaussian to residuals ``(N, Z)`` of a cohort.

    The population counts as much as the cohort, so that directions without data keep its spread.
    """
    count = len(residuals)
    shift = residuals.sum(axis=0) / (count + 1)
    slopes = latents.slopes.copy()
    slopes[:, 0] += shift
    before = latents.residual_tril @ latents.residual_tril.T
    scatter = (residuals - shift).T @ (residuals - shift)
    covariance = (count * before + scatter) / (2 * count)

    return replace(latents, slopes=slopes, residual_tril=np.linalg.cholesky(covariance))
