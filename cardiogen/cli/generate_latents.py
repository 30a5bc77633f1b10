"""Which latent a generated heart has: drawn given factors and targets, or given itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, keyed_seed

if TYPE_CHECKING:
    import torch

    from cardiogen.cli.generate_plan import Request
    from cardiogen.models.protocol import AnatomyModel, LatentDistribution

# Draws from a guided prior reach further out than hearts do: those that are none are drawn again.
_TRIES = 20
_FAR = 3.719  # standard normal quantile of 99.99 %


def latent_of(
    request: Request, model: AnatomyModel, prior: LatentDistribution | None = None
) -> torch.Tensor:
    """Return the latent ``(Z,)`` of a request.

    Args:
        request: what is asked for.
        model: of the latents.
        prior: what to draw from; by default the model's own given the factors, with the same draw
            for the same noise.

    Raises:
        CardiogenError: D03 (exit 5) for 20 draws in a row that are no hearts, or a given latent
            that is none; D08 for targets that cannot be hit.
    """
    import torch

    from cardiogen.models.protocol import encode_condition
    from cardiogen.synthesis import draw_latent

    if request.latent is not None:
        return torch.tensor(request.latent, dtype=torch.float64)
    if prior is None:
        return draw_latent(
            model, encode_condition(request.factors), seed=request.draw_seed, index=request.index
        )
    # The stream of draw_latent: guidance of 1 changes no bit.
    key = keyed_seed(request.draw_seed, "generate/latent", request.index)
    generator = torch.Generator().manual_seed(key)
    for _ in range(_TRIES):
        latent = prior.sample(generator)
        if model.is_possible(latent):
            return latent
    raise CardiogenError(
        "D03", request.subject_id, found=f"{_TRIES} draws in a row that are no hearts",
        expected="factors, targets and guidance of which most draws are hearts",
        remedy="--guidance nearer to 1, or other factors",
    )  # fmt: skip


def latent_count(model: AnatomyModel) -> int:
    """Return the number of latents of a model."""
    return unknown_prior(model).mean.numel()


def unknown_prior(model: AnatomyModel) -> LatentDistribution:
    """Return what a model's hearts are drawn from where nothing is known of them."""
    import torch

    from cardiogen.models.protocol import CONDITION_COLUMNS

    return model.prior(torch.full((len(CONDITION_COLUMNS),), float("nan"), dtype=torch.float64))


def outside(model: AnatomyModel, latent: tuple[float, ...], where: str) -> CardiogenError | None:
    """Return why a given latent is none of the model's hearts: D09, or raise D03 for no heart.

    The squared distance from the prior of unknown factors is compared with the 99.99 % quantile
    of chi-squared, by Wilson and Hilferty: ``Z (1 - 2 / 9 Z + 3.719 sqrt(2 / 9 Z))^3``.
    """
    import numpy as np
    import torch

    from cardiogen.models.distributions import GaussianMixture

    value = torch.tensor(latent, dtype=torch.float64)
    if not model.is_possible(value):
        raise CardiogenError(
            "D03", where, found="a heart that ejects more than it holds, or whose shape folds",
            expected="latents of a heart", remedy="latents nearer to those of other hearts",
        )  # fmt: skip
    prior = unknown_prior(model)
    prior = getattr(prior, "gaussian", prior)  # that a flow moves the draws of, if there is one
    if not isinstance(prior, GaussianMixture):
        return None
    size = len(latent)
    limit = size * (1 - 2 / (9 * size) + _FAR * math.sqrt(2 / (9 * size))) ** 3
    distances = []
    for mean, root in zip(prior.means, prior.factors, strict=True):
        offset = (value - mean).numpy()
        covariance = (root @ root.mT).numpy()
        distances.append(float(offset @ np.linalg.solve(covariance, offset)))
    if min(distances) <= limit:
        return None
    return CardiogenError(
        "D09", where, found=f"latents at a squared distance of {min(distances):.0f} from hearts",
        expected=f"at most {limit:.0f}, as nearly all hearts of the model",
        remedy="latents nearer to hearts, or --allow-extrapolation (outputs are marked)",
    )  # fmt: skip
