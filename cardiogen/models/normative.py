"""How far a heart lies from healthy hearts of its factors, as far as its observations tell.

The prior of the latents given the factors is N(m, P), the posterior of the subject N(u, V). For a
healthy subject ``u - m ~ N(0, P - V)``: where nothing was seen the posterior mean is the prior's,
whatever the heart. So the squared deviation is measured against what can be seen,

    d2 = (u - m)^T D^-1 (u - m),    D = P - V + eps P,

eps keeping directions of which next to nothing is known from counting. It is the sum of three
parts, each given the ones before: size (ln LVEDV, ln LVM, ln RVEDV), the rest of the
end-diastolic shape, and motion, by the chain rule of Gaussians

    d2 = d2(size) + [d2(ED) - d2(size)] + [d2 - d2(ED)].

None of this is a diagnosis: the healthy hearts are those that the model was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, keyed_rng, keyed_seed
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models.protocol import AnatomyModel, Posterior, encode_condition
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import PopulationHeart, sample_heart
from cardiogen.population.pose import Pose
from cardiogen.population.render import render_sequence
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

PARTS = ("size", "shape", "motion")
_EPSILON = 0.1
_STEP = 1e-3
_SIZES = (Structure.LV, Structure.MYO, Structure.RV)


@dataclass(frozen=True, eq=False)
class LatentParts:
    """What latents act on.

    Attributes:
        size: derivatives of ln LVEDV, ln LVM and ln RVEDV, ``(3, Z)``.
        ed: which latents change the heart at end diastole, ``(Z,)``.
    """

    size: Array
    ed: NDArray[np.bool_]


def latent_parts(model: AnatomyModel, latent: Tensor) -> LatentParts:
    """Return what the latents act on, from differences of the decoded heart around ``latent``."""
    base = model.decode(latent, [0.0])
    logs = _log_sizes(model, base)
    size = np.zeros((3, len(latent)))
    ed = np.zeros(len(latent), dtype=bool)
    for k in range(len(latent)):
        moved = latent.clone()
        moved[k] += _STEP
        vertices = model.decode(moved, [0.0])
        ed[k] = not np.array_equal(vertices, base)
        if ed[k]:
            size[:, k] = (_log_sizes(model, vertices) - logs) / _STEP

    return LatentParts(size, ed)


def _log_sizes(model: AnatomyModel, vertices: Array) -> Array:
    volumes = mesh_volumes(vertices, model.topology)

    return np.log([volumes[structure][0] for structure in _SIZES])


def deviation(
    mean: ArrayLike,
    covariance: ArrayLike,
    found: ArrayLike,
    uncertainty: ArrayLike,
    parts: LatentParts,
) -> Array:
    """Return the squared deviation of posteriors from a prior: total and ``PARTS``, ``(..., 4)``.

    Args:
        mean, covariance: m ``(Z,)`` and P ``(Z, Z)`` of the prior given the factors.
        found: u ``(..., Z)`` of posteriors under that prior.
        uncertainty: their V ``(Z, Z)``.
        parts: what the latents act on.
    """
    spread = (1.0 + _EPSILON) * np.asarray(covariance) - np.asarray(uncertainty)
    away = np.asarray(found, np.float64) - np.asarray(mean, np.float64)
    whole = _squared(away, spread)
    ed = _squared(away[..., parts.ed], spread[np.ix_(parts.ed, parts.ed)])
    size = _squared(away @ parts.size.T, parts.size @ spread @ parts.size.T)

    return np.stack([whole, size, ed - size, whole - ed], axis=-1)


def _squared(away: Array, covariance: Array) -> Array:
    return (away * np.linalg.solve(covariance, away.T).T).sum(axis=-1)


def score_posterior(
    model: AnatomyModel, posterior: Posterior, condition: Tensor, parts: LatentParts
) -> Array:
    """Return the deviation ``(4,)`` of a posterior with ``healthy=True`` from its own prior."""
    prior, found = model.prior(condition), posterior.latents

    return deviation(
        prior.mean.numpy(), prior.covariance.numpy(), found.mean.numpy(),
        found.covariance.numpy(), parts,
    )  # fmt: skip


def expected_deviations(
    model: AnatomyModel,
    posterior: Posterior,
    condition: Tensor,
    parts: LatentParts,
    *,
    draws: int,
    seed: int,
) -> Array:
    """Return deviations ``(n, 4)`` that the model expects of healthy subjects seen as this one.

    Posterior means are drawn from N(m, P - V). It takes the model, its Gaussian and its linear fit
    at their word, unlike ``reference_deviation``, which observes hearts anew.
    """
    prior, found = model.prior(condition), posterior.latents
    covariance, uncertainty = prior.covariance.numpy(), found.covariance.numpy()
    values, vectors = np.linalg.eigh(covariance - uncertainty)
    noise = keyed_rng(seed, "score/expected").normal(size=(draws, len(values)))
    means = prior.mean.numpy() + (noise * np.sqrt(np.maximum(values, 0.0))) @ vectors.T

    return deviation(prior.mean.numpy(), covariance, means, uncertainty, parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """How a subject was observed, to observe healthy hearts in the same way.

    Attributes:
        factors: what is known of the subject.
        grid: lattice of its label maps.
        pose: of its heart in the world.
        phases: observed phases ``(T,)``.
    """

    factors: Factors
    grid: Grid
    pose: Pose
    phases: Array


def healthy_heart(factors: Factors, *, seed: int, index: int) -> PopulationHeart:
    """Return heart ``index`` of the reference population that has the known factors.

    It was never trained on: its seed is derived for this purpose alone.
    """
    return sample_heart(keyed_seed(seed, "score/reference"), index, factors)


def observe(heart: PopulationHeart, setting: Setting) -> Sequence:
    """Return the label maps of a heart with known truth, seen as a subject was."""
    vertices = setting.pose.to_world(heart_vertices(heart.coordinates(setting.phases)))
    mirrored = setting.pose.mirrored
    topology = template_topology().mirrored() if mirrored else template_topology()

    return Sequence(
        phases=setting.phases,
        ed=int(np.argmin(np.minimum(setting.phases, 1.0 - setting.phases))),
        labels=render_sequence(vertices, topology, setting.grid),
        grid=setting.grid,
        factors=setting.factors,
        orientation="mirrored" if mirrored else "trusted",
        subject_id=f"population_{heart.index:06d}",
    )


def reference_deviation(
    model: AnatomyModel, setting: Setting, parts: LatentParts, *, seed: int, index: int
) -> Array | None:
    """Return the deviation ``(4,)`` of one healthy heart, None if the grid does not hold it."""
    observed = observe(healthy_heart(setting.factors, seed=seed, index=index), setting)
    condition = encode_condition(setting.factors)
    try:
        posterior = model.posterior(observed, condition, healthy=True)
    except CardiogenError as error:
        # Label maps of a larger heart than the subject's can lack a part; the caller counts them.
        if error.code.startswith("L"):
            return None
        raise

    return score_posterior(model, posterior, condition, parts)


def norm_latents(model: AnatomyModel, condition: Tensor, *, draws: int, seed: int) -> list[Tensor]:
    """Return latents of healthy hearts with these factors; the first k do not depend on draws."""
    prior, found, index = model.prior(condition), [], 0
    while len(found) < draws:
        generator = torch.Generator().manual_seed(keyed_seed(seed, "score/norm", index))
        latent = prior.sample(generator)
        index += 1
        if model.is_possible(latent):
            found.append(latent)
        elif index > 100 * draws:
            raise CardiogenError(
                "D03", "factors", found=f"{index} draws with hardly a possible heart",
                expected="factors at which the model makes hearts", remedy="other factors",
            )  # fmt: skip

    return found


def z_scores(value: ArrayLike, draws: ArrayLike) -> tuple[Array, Array]:
    """Return z-scores and percentiles of values ``(...)`` among draws ``(n, ...)``.

    The percentile is the mid-rank ``100 (less + (equal + 1) / 2) / (n + 1)``. Both are NaN where
    the draws do not vary or hold NaN.
    """
    value, draws = np.asarray(value, np.float64), np.asarray(draws, np.float64)
    spread = draws.std(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(spread > 0, (value - draws.mean(axis=0)) / spread, np.nan)
    less, equal = (draws < value).sum(axis=0), (draws == value).sum(axis=0)
    percentile = 100.0 * (less + (equal + 1) / 2) / (len(draws) + 1)

    return z, np.where(np.isfinite(z), percentile, np.nan)


def outward_shift(vertices: ArrayLike, mean: ArrayLike, faces: ArrayLike) -> Array:
    """Return how far vertices ``(..., V, 3)`` lie outside the surface of a mean mesh, mm.

    It is the component of their offset from ``mean`` ``(V, 3)`` along the mean's outward normal.
    """
    mean = np.asarray(mean, np.float64)
    corners = mean[np.asarray(faces)]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(mean)
    for corner in np.asarray(faces).T:
        np.add.at(normals, corner, flat)
    length = np.linalg.norm(normals, axis=1, keepdims=True)

    return ((np.asarray(vertices) - mean) * (normals / np.where(length > 0, length, 1.0))).sum(-1)
