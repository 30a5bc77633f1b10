"""Fitting of the Gaussian of ``conditional`` to latents of subjects with complete factors."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.models.conditional import SEXES, ConditionalGaussian, features, residual_scale

Array = NDArray[np.float64]

_MIN_SUBJECTS = 20
_APART = 0.05


def fit_conditional(
    latents: Array, subjects: Listing[Factors], *, telling: Array | None = None
) -> ConditionalGaussian:
    """Fit the Gaussian to latents ``(N, Z)`` of subjects with complete factors.

    Args:
        latents: of the subjects.
        subjects: their factors.
        telling: slopes ``(P, Z)`` of phenotypes that are linear in latents. Their spreads at every
            sex and age then are those of the subjects, however many latents they are made of; a
            phenotype that the ones before it tell but for 5 % has none of its own. By default
            this holds of the latents themselves.

    Raises:
        CardiogenError: C28 for too few subjects or only one sex.
    """
    sex = np.array([SEXES.index(f.sex) for f in subjects])
    if min((sex == 0).sum(), (sex == 1).sum()) < _MIN_SUBJECTS:
        raise CardiogenError(
            "C28", "cohort", found=f"{(sex == 0).sum()} women and {(sex == 1).sum()} men",
            expected=f"at least {_MIN_SUBJECTS} of each", remedy="a larger cohort",
        )  # fmt: skip
    draft = _describe_factors(sex, subjects, latents.shape[1])
    logs = _log_factors(_factor_array(subjects))
    design = np.stack([features(s, x, draft) for s, x in zip(sex, logs, strict=True)])
    slopes, *_ = np.linalg.lstsq(design, latents, rcond=None)
    residual = latents - design @ slopes
    axes = np.eye(len(slopes.T)) if telling is None else _axes(residual, telling)
    back = np.linalg.inv(axes)
    along = residual @ back.T
    # E[ln e^2] = 2 ln sigma + constant: a regression gives how the spread depends on sex and age.
    spread = np.log(along**2 + 1e-12)
    trend, *_ = np.linalg.lstsq(design[:, :3], spread, rcond=None)
    draft = replace(draft, slopes=slopes.T, residual_axes=axes, residual_slopes=trend[1:].T / 2)
    along /= np.stack([residual_scale(s, x, draft) for s, x in zip(sex, logs, strict=True)])

    freedom = len(latents) - design.shape[1]

    return replace(draft, residual_tril=_tril(along, freedom, ridge=back @ back.T))


def _axes(residual: Array, telling: Array) -> Array:
    """Return axes M ``(Z, Z)``: the first P rows of ``M^-1`` are the slopes that tell phenotypes.

    Along the others, which follow the latents in their order, residuals are white and without
    correlation to the phenotypes.
    """
    tril = _tril(residual, len(residual), ridge=np.eye(residual.shape[1]))
    # Phenotypes that others tell already would make axes of next to nothing.
    _, upper = np.linalg.qr(tril.T @ telling.T)
    apart = np.abs(np.diag(upper)) > _APART * np.linalg.norm(upper, axis=0)[: len(upper)]
    telling = telling[: len(upper)][apart]
    every = np.concatenate([telling.T, np.eye(len(tril))], axis=1)

    ways, upper = np.linalg.qr(tril.T @ every)
    axes, count = tril @ ways, len(telling)
    axes[:, :count] = axes[:, :count] @ np.linalg.inv(upper[:count, :count].T)

    return axes


def _tril(rows: Array, freedom: int, *, ridge: Array) -> Array:
    """Return the lower Cholesky factor of the covariance of rows ``(N, Z)``.

    A millionth of the ridge keeps it defined where latents have no variance left.
    """
    return np.linalg.cholesky(rows.T @ rows / freedom + 1e-6 * ridge)


def _describe_factors(
    sex: NDArray[np.int64], subjects: Listing[Factors], latents: int
) -> ConditionalGaussian:
    """Return what is known of the factors alone; latents do not depend on them yet."""
    factors = _factor_array(subjects)
    logs = _log_factors(factors)
    return ConditionalGaussian(
        slopes=np.zeros((latents, 7)),
        residual_axes=np.eye(latents),
        residual_tril=np.zeros((latents, latents)),
        residual_slopes=np.zeros((latents, 2)),
        factor_mean=np.stack([logs[sex == s].mean(axis=0) for s in (0, 1)]),
        factor_covariance=np.stack([np.cov(logs[sex == s].T) for s in (0, 1)]),
        factor_center=logs.mean(axis=0),
        factor_scale=logs.std(axis=0),
        sex_share=np.array([(sex == s).mean() for s in (0, 1)]),
        factor_range=np.stack([factors.min(axis=0), factors.max(axis=0)], axis=1),
    )


def _factor_array(subjects: Listing[Factors]) -> Array:
    """Return (age, height, weight, pressure) of every subject, ``(N, 4)``."""
    return np.array([[f.age, f.height, f.weight, f.sbp] for f in subjects])


def _log_factors(factors: Array) -> Array:
    """Return (age, log height, log weight, pressure), ``(N, 4)``."""
    logs = factors.copy()
    logs[:, 1:3] = np.log(factors[:, 1:3])
    return logs
