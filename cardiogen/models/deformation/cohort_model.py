"""A model of the population, adapted to the real hearts of a cohort.

The population gives the template, the modes and what factors do; the cohort moves the mean, adds
its own spread, and teaches how motion follows from shape (``adaptation``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.cycle import HARMONICS
from cardiogen.models.deformation.adaptation import MotionGivenShape
from cardiogen.models.deformation.cohort import CohortCodes, require_enough
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.individual import smooth_curves
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.modes import VelocityModes
from cardiogen.models.protocol import encode_condition

Array = NDArray[np.float64]

_RANK, _STILL = 1e-3, 1e-2
_MOST_MODES = 64


def adapt(model: DeformationModel, codes: CohortCodes) -> DeformationModel:
    """Return a model of the cohort's hearts.

    Raises:
        CardiogenError: C28 for fewer than five subjects.
    """
    require_enough(len(codes.scores))
    model, scores = _with_cohort_modes(model, codes)
    expected = np.stack([model.prior(encode_condition(f)).mean.numpy() for f in codes.factors])
    modes = model.decoder.modes
    motion = MotionGivenShape.fit(
        codes.features, scores[:, modes.ed_size :], codes.ejection, codes.groups
    )

    return DeformationModel(
        model.decoder, _adapted(model.latents, scores - expected), model.phenotypes,
        noise=model.noise, cohort=motion,
    )  # fmt: skip


def _with_cohort_modes(
    model: DeformationModel, codes: CohortCodes
) -> tuple[DeformationModel, Array]:
    """Add the cohort's own modes of motion to a model; scores ``(N, S')`` with them.

    The population hardly moves along them, so that its own spread there is next to none.
    """
    modes, series = _with_cohort_fields(model.decoder.modes, codes)
    latents, maps = model.latents, model.phenotypes
    values, rows = _principal_rows(series)
    scale = values / np.sqrt(len(series))
    scores = np.concatenate([codes.scores, series @ rows.T / scale], axis=1)
    size, more = len(latents.residual_tril), len(rows)
    axes, tril = np.eye(size + more), _STILL * np.eye(size + more)
    axes[:size, :size], tril[:size, :size] = latents.residual_axes, latents.residual_tril
    grown = DeformationModel(
        VelocityDecoder(model.decoder.template, replace(
            modes,
            motion_modes=np.concatenate([modes.motion_modes, rows]),
            motion_scale=np.concatenate([modes.motion_scale, scale]),
        )),
        replace(
            latents,
            slopes=np.pad(latents.slopes, ((0, more), (0, 0))),
            residual_slopes=np.pad(latents.residual_slopes, ((0, more), (0, 0))),
            residual_axes=axes,
            residual_tril=tril,
        ),
        replace(maps, phenotype_weights=np.pad(maps.phenotype_weights, ((0, 0), (0, more)))),
        noise=model.noise,
    )  # fmt: skip

    return grown, scores


def _with_cohort_fields(modes: VelocityModes, codes: CohortCodes) -> tuple[VelocityModes, Array]:
    """Add the cohort's own spatial fields to modes; series ``(N, F' K2)`` of what is left over."""
    rows = np.concatenate(codes.leftover)
    _, fields = _principal_rows(rows - rows @ modes.fields.T @ modes.fields)
    added = len(fields) * 2 * HARMONICS
    grown = replace(
        modes,
        fields=np.concatenate([modes.fields, fields]),
        motion_mean=np.pad(modes.motion_mean, (0, added)),
        motion_modes=np.pad(modes.motion_modes, ((0, 0), (0, added))),
    )
    series = [
        np.einsum("tf,tk->fk", missed @ grown.fields.T, smooth_curves(phases)).ravel()
        for missed, phases in zip(codes.leftover, codes.phases, strict=True)
    ]

    return grown, np.stack(series)


def _principal_rows(rows: Array) -> tuple[Array, Array]:
    """Return the largest singular values and unit directions of rows, at most 64."""
    _, values, directions = np.linalg.svd(rows, full_matrices=False)
    kept = np.flatnonzero(values > _RANK * values[0])[:_MOST_MODES]

    return values[kept], directions[kept]


def _adapted(latents: ConditionalGaussian, residuals: Array) -> ConditionalGaussian:
    """Move and widen a conditional Gaussian to residuals ``(N, Z)`` of a cohort.

    In the covariance the population counts as much as the cohort, so that directions without data
    keep its spread; in the mean it counts as one subject.
    """
    count = len(residuals)
    shift = residuals.sum(axis=0) / (count + 1)
    slopes = latents.slopes.copy()
    slopes[:, 0] += shift
    along = np.linalg.solve(latents.residual_axes, (residuals - shift).T)
    before = latents.residual_tril @ latents.residual_tril.T
    covariance = (count * before + along @ along.T) / (2 * count)

    return replace(latents, slopes=slopes, residual_tril=np.linalg.cholesky(covariance))
