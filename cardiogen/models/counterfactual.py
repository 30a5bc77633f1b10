"""The same heart under other factors: what sets it apart is kept, what its factors explain moves.

Given factors c the latents of a model are Gaussian, z = m(c) + L(c) e with ``L L^T`` their
covariance. The residual e is the identity of a heart; under factors c' it becomes

    z' = m(c') + L(c') L(c)^-1 (z - m(c)).

With all factors known, and spreads that differ along the latents themselves, ``L' L^-1`` is the
ratio ``S(x') / S(x)`` of ``models.conditional``; along other axes it is the triangular matrix that
makes the one covariance of the other. Factors that are not known move with those that
change, as they do between people: without height the mean heart of 80 years is that of people as
tall as those of 80 years are. Hearts drawn from p(z | c) so become hearts drawn from p(z | c').

This is cross-sectional: it shows what differs between people, not what one person lives through.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.protocol import CONDITION_COLUMNS

Array = NDArray[np.float64]

_SEX = CONDITION_COLUMNS.index("sex")


def counterfactual(
    latents: ConditionalGaussian, latent: Tensor, *, given: Tensor, wanted: Tensor
) -> Tensor:
    """Return the latent of the same heart under other factors.

    Args:
        latents: p(z | factors) of any model.
        latent: ``(Z,)``.
        given: condition of the heart ``(5,)``, NaN where unknown. An unknown sex is taken as
            ``likely_sex`` says.
        wanted: the condition to move it to; what it leaves NaN is as unknown there. Its sex is
            that of ``given`` if NaN.

    Returns:
        ``(Z,)``; the very bits of ``latent`` where no condition changes.

    Raises:
        ValueError: for a factor known on one side only, the effect of which cannot be undone.
    """
    given = likely_sex(latents, latent, given)
    wanted = wanted.clone()
    if bool(wanted[_SEX].isnan()):
        wanted[_SEX] = given[_SEX]
    known = ~given.isnan()
    if bool((known != ~wanted.isnan()).any()):
        names = [n for n, odd in zip(CONDITION_COLUMNS, known == wanted.isnan(), strict=True)
                 if odd]  # fmt: skip
        raise ValueError(
            f"wanted must know the factors that given knows, got {', '.join(names)} on one side"
        )
    if bool((given[known] == wanted[known]).all()):
        return latent.clone()
    residual = standard_residual(latents, latent, given)
    mean, factor = _mean_and_factor(latents, wanted)

    return torch.from_numpy(mean + factor @ residual)


def standard_residual(latents: ConditionalGaussian, latent: Tensor, condition: Tensor) -> Array:
    """Return e ``(Z,)``: what of a heart its factors do not explain, in standard deviations.

    Its entries are independent and standard normal over hearts with these factors.

    Raises:
        ValueError: if the sex is unknown.
    """
    mean, factor = _mean_and_factor(latents, condition)

    return np.linalg.solve(factor, latent.numpy().astype(np.float64) - mean)


def likely_sex(latents: ConditionalGaussian, latent: Tensor, condition: Tensor) -> Tensor:
    """Return the condition with its sex, if unknown, that under which the heart is likelier.

    One sex and not a mixture of both keeps the way to other factors invertible.
    """
    if not bool(condition[_SEX].isnan()):
        return condition
    densities = []
    for sex in (0.0, 1.0):
        told = condition.clone()
        told[_SEX] = sex
        residual = standard_residual(latents, latent, told)
        log_det = np.log(np.diag(_mean_and_factor(latents, told)[1])).sum()
        densities.append(-0.5 * float(residual @ residual) - float(log_det))
    # The mixture's own weights hold what the other factors, such as height, tell of the sex.
    shares = latents.prior(condition).weights.log().tolist()
    filled = condition.clone()
    filled[_SEX] = float(densities[1] + shares[1] > densities[0] + shares[0])

    return filled


def _mean_and_factor(latents: ConditionalGaussian, condition: Tensor) -> tuple[Array, Array]:
    """Return m(c) ``(Z,)`` and the lower triangular L(c) ``(Z, Z)`` for one sex."""
    if bool(condition[_SEX].isnan()):
        raise ValueError("condition must know the sex, got NaN")
    prior = latents.prior(condition)

    return prior.means[0].numpy(), np.linalg.cholesky(prior.covariance.numpy())
