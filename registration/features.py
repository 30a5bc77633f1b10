"""Image and label terms as squared differences of channels, which Gauss-Newton linearizes.

A term becomes channels of the fixed and of the moving image, made before the moving one is warped,
so that the data energy is ``mean_x sum_c w_c (F_c(x) - M_c(x + u))^2``:

- ``mse``: the images themselves; ``ncc``: standardized over the mask;
- ``lncc``: standardized over windows, for which ``1 - c = mean (f - m)^2 / 2`` exactly where both
  windows move together (the window of the moving image is not deformed);
- ``mind``: its descriptors; ``dice`` and ``multiscale_dice``: probabilities over their powers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.losses import LNCC, MIND, MSE, NCC, Dice, EnergyTerm, MultiScaleDice, Weighted
from cardiogen.losses.masks import standardized
from registration.prepare import in_plane_lengths
from registration.problem import Problem

_SUPPORTED = "mse, ncc, lncc, mind, dice, multiscale_dice"


@dataclass(frozen=True, eq=False)
class Channels:
    """Channels to compare: ``fixed`` and ``moving`` ``(B, C, *S)``, weights ``(B or 1, C)``."""

    fixed: Tensor
    moving: Tensor
    weights: Tensor


def channels_of(problem: Problem, terms: dict[str, Weighted]) -> Channels:
    """Return the channels of all image and label terms.

    Raises:
        CardiogenError: M07 for a term that has no such form.
    """
    parts = [
        _channels(entry.term, problem, float(entry.weight))
        for entry in terms.values()
        if entry.term.kind in ("image", "label") and float(entry.weight) > 0
    ]
    batch = max(len(part.weights) for part in parts)

    return Channels(
        torch.cat([part.fixed for part in parts], dim=1),
        torch.cat([part.moving for part in parts], dim=1),
        torch.cat([part.weights.expand(batch, -1) for part in parts], dim=1),
    )


def _channels(term: EnergyTerm, problem: Problem, weight: float) -> Channels:
    match term:
        case MSE():
            precision = 1.0 if term.sigma is None else 0.5 / term.sigma**2
            return _uniform(problem.fixed, problem.moving, weight * precision)
        case NCC():
            images = [standardized(x, problem.mask) for x in (problem.fixed, problem.moving)]
            return _uniform(*images, weight / 2)
        case LNCC():
            images = [_locally(x, term, problem) for x in (problem.fixed, problem.moving)]
            return _uniform(*images, weight * (1.0 if term.squared else 0.5))
        case MIND():
            spacing = problem.grid.spacing
            images = [term.descriptor(x, spacing=spacing) for x in _images(problem)]
            return _uniform(*images, weight)
        case Dice():
            return _overlap(problem.fixed_labels, problem.moving_labels, weight)
        case MultiScaleDice():
            return _scales(term, problem, weight)
    raise CardiogenError(
        "M07", "solver gauss_newton", found=f"the term {type(term).__name__}",
        expected=f"terms that are sums of squares: {_SUPPORTED}", remedy="solver adam or lbfgs",
    )  # fmt: skip


def _images(problem: Problem) -> tuple[Tensor, Tensor]:
    return problem.fixed, problem.moving


def _uniform(fixed: Tensor, moving: Tensor, weight: float) -> Channels:
    count = fixed.shape[1]

    return Channels(fixed, moving, fixed.new_full((1, count), weight / count))


def _locally(image: Tensor, term: LNCC, problem: Problem) -> Tensor:
    """Return the image less its windowed mean over its windowed deviation."""
    spacing = problem.grid.spacing
    image = standardized(image, problem.mask)
    reach = max(term.radius_mm, min(spacing)) / 3**0.5
    sigma = in_plane_lengths(reach, spacing)
    centered = image - ops.gaussian(image, sigma, spacing=spacing)
    variance = ops.gaussian(centered.square(), sigma, spacing=spacing)

    return centered * (variance + term.noise**2).rsqrt()


def _overlap(fixed: Tensor, moving: Tensor, weight: float) -> Channels:
    """Return probabilities such that their squared differences are the Dice distance."""
    power = (fixed.square() + moving.square()).flatten(2).sum(dim=2)
    voxels, labels = fixed[0, 0].numel(), fixed.shape[1]
    weights = torch.where(power > 0, weight * voxels / (labels * power.clamp(min=1e-12)), 0.0)

    return Channels(fixed, moving, weights)


def _scales(term: MultiScaleDice, problem: Problem, weight: float) -> Channels:
    spacing = problem.grid.spacing
    parts = []
    for scale in term.scales_mm:
        pair = [
            ops.gaussian(x, scale, spacing=spacing) if scale > 0 else x
            for x in (problem.fixed_labels, problem.moving_labels)
        ]
        parts.append(_overlap(*pair, weight / len(term.scales_mm)))

    return Channels(*(torch.cat(columns, dim=1) for columns in zip(
        *((p.fixed, p.moving, p.weights) for p in parts), strict=True)))  # fmt: skip
