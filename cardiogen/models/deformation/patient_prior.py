"""Hearts that may be ill: the prior of the deformation model, moved and widened by disease.

Disease (``models.disease``) changes the phenotypes f. With the parts of f at end diastole, e, and
of motion, m, and d their deviations from the healthy mean,

    d z_ed = K_e d_e + own shape,    d z_motion = K_m (d_m - W_m,ed d z_ed) + own motion,

K being the regressions in health. So end diastole tells of motion through phenotypes alone: a
shape that no healthy heart has says nothing of how it beats. Among m is what the wall loses of its
volume: far from healthy shapes motion would not keep it by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.models.deformation.phenotypes import PhenotypeMap, mesh_sizes
from cardiogen.models.disease import (
    SHORTENING_MEAN,
    SHORTENING_SD,
    disease_covariance,
    disease_shift,
)
from cardiogen.models.protocol import Posterior

if TYPE_CHECKING:
    from cardiogen.models.deformation.model import DeformationModel

Array = NDArray[np.float64]

_FLOOR = 1e-4
# Contours of other hearts differ in shape more than healthy ones: three times their SD.
_SHAPE_EXCESS = 8.0
_SIZES = [0, 2, 3]  # phenotypes of end diastole; the others are of motion
# Muscle is not compressed: the share of it that may come and go beyond what does in health.
_WALL_SD = 0.03


@dataclass(frozen=True, eq=False)
class PatientPrior:
    """Gaussian prior of the scores of a heart that may be ill.

    Attributes:
        mean, covariance: ``(S,)`` and ``(S, S)``.
        healthy: mean in health ``(S,)``.
        by_sizes: by how much the mean follows (ln LVEDV, ln LVM, ln RVEDV) beyond what the scores
            tell of them, ``(S, 3)``.
    """

    mean: Array
    covariance: Array
    healthy: Array
    by_sizes: Array


def any_health(
    phenotypes: PhenotypeMap, wall: Array | None, mean: Array, covariance: Array, shapes: int
) -> PatientPrior:
    """Move and widen a prior of the scores by disease.

    f is linear in scores of healthy hearts. What the sizes of another heart are beyond that, x,
    moves its motion by ``K_m C_me C_ee^-1 x``, C being the covariance of f.

    Args:
        phenotypes: those that disease changes, as functions of scores.
        wall: slopes ``(S,)`` of what the wall loses, the logarithm of a share; None if motion
            does not set it.
        mean, covariance: Gaussian prior of the scores in health, ``(S,)`` and ``(S, S)``.
        shapes: number of scores at end diastole.
    """
    weights = _weights(phenotypes, shapes)
    weights = weights if wall is None else np.concatenate([weights, wall[None]])
    beats = np.setdiff1d(np.arange(len(weights)), _SIZES)
    ed, beat = slice(0, shapes), slice(shapes, None)
    by_size, size_rest = _regression(weights[_SIZES, ed], covariance[ed, ed])
    by_beat, beat_rest = _regression(weights[beats, beat], covariance[beat, beat])
    # Own shape leaves the sizes alone: W_e (1 - K_e W_e) = 0.
    apart = np.eye(shapes) - by_size @ weights[_SIZES, ed]
    shape_rest = size_rest + _SHAPE_EXCESS * (apart * np.diag(covariance)[ed]) @ apart.T
    shift, spread = _disease(phenotypes, mean, len(weights))
    told = weights @ covariance @ weights.T + spread
    # From (d_e, d_m) and own shape to the scores; own motion adds to them.
    taken = -by_beat @ weights[beats, ed]
    from_told = np.zeros((len(mean), len(weights)))
    from_told[ed, _SIZES] = by_size
    from_told[beat, _SIZES] = taken @ by_size
    from_told[beat, beats] = by_beat
    from_shape = np.concatenate([np.eye(shapes), taken])
    total = from_told @ told @ from_told.T + from_shape @ shape_rest @ from_shape.T
    total[beat, beat] += beat_rest
    by_sizes = np.zeros((len(mean), 3))
    by_sizes[beat] = (
        by_beat @ np.linalg.solve(told[np.ix_(_SIZES, _SIZES)], told[np.ix_(_SIZES, beats)]).T
    )
    total += _FLOOR * np.eye(len(mean))

    return PatientPrior(mean + from_told @ shift, total, mean, by_sizes)


def follow_sizes(model: DeformationModel, found: Posterior, prior: PatientPrior) -> Posterior:
    """Return a posterior whose motion follows the sizes that its mean shape really has.

    A prior whose mean moves by m moves the posterior by ``P C^-1 m``, of covariances P after and C
    before: what was seen stays as it was seen.
    """
    latents = found.latents
    mean = latents.mean.numpy()
    shape = model.decoder.resting(model.decoder.shape(mean), mean)[0]
    weights = _weights(model.phenotypes, model.decoder.modes.ed_size)
    typical = prior.healthy
    bias = model.phenotypes.phenotype_bias + model.phenotypes.phenotype_weights @ typical
    told = bias + weights @ (mean - typical)
    beyond = mesh_sizes(shape, model.topology) - told[_SIZES]
    moved = np.linalg.solve(prior.covariance, prior.by_sizes @ beyond)
    means = latents.means + torch.from_numpy(latents.covariance.numpy() @ moved)

    return replace(found, latents=replace(latents, means=means))


def _weights(phenotypes: PhenotypeMap, shapes: int) -> Array:
    """Return slopes of f ``(6, S)``; what a regression of sizes put on motion is noise."""
    weights = phenotypes.phenotype_weights.copy()
    weights[_SIZES, shapes:] = 0.0

    return weights


def _regression(weights: Array, covariance: Array) -> tuple[Array, Array]:
    """Return the regression of scores on phenotypes ``(S, K)``, and what it leaves ``(S, S)``."""
    shared = covariance @ weights.T
    gain = np.linalg.solve(weights @ shared, shared.T).T

    return gain, covariance - gain @ shared.T


def _disease(phenotypes: PhenotypeMap, mean: Array, count: int) -> tuple[Array, Array]:
    """Return mean ``(K,)`` and covariance ``(K, K)`` of what disease adds to ``count`` of f."""
    shortening = float(phenotypes.phenotype_bias[5] + phenotypes.phenotype_weights[5] @ mean)
    spread = np.zeros((7, 7))
    spread[:5, :5] = disease_covariance()
    spread[5, 5], spread[6, 6] = (SHORTENING_SD * shortening) ** 2, _WALL_SD**2
    shift = np.append(disease_shift(), [(SHORTENING_MEAN - 1.0) * shortening, 0.0])

    return shift[:count], spread[:count, :count]
