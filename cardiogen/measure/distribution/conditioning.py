"""Does a synthetic cohort depend on its conditions as the real one does? Slopes and R2.

Ordinary least squares of every phenotype on all conditions together, ``y = b_0 + C b + e``; a
slope is in the phenotype's unit per unit of the condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.measure.distribution.estimate import finite, same_rows

if TYPE_CHECKING:
    import pandas as pd

Errors = Literal["hc3", "classic"]


@dataclass(frozen=True, eq=False)
class Regression:
    """Least squares of P phenotypes on C conditions.

    Attributes:
        slopes: ``(C, P)``.
        standard_errors: ``(C, P)``, by the method ``errors``.
        low: lower bounds of the slopes ``(C, P)`` at ``level``.
        high: upper bounds ``(C, P)``.
        intercepts: ``(P,)``.
        r2: share of variance explained ``(P,)``.
        adjusted_r2: the same without the optimism of the fit,
            ``1 - (1 - R2) (N - 1) / (N - C - 1)``.
        residual_sd: ``(P,)``.
        subjects: N.
        level: confidence of the bounds.
        errors: ``hc3`` (right also when the spread depends on the conditions) or ``classic``.
    """

    slopes: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    r2: NDArray[np.float64]
    adjusted_r2: NDArray[np.float64]
    residual_sd: NDArray[np.float64]
    subjects: int
    level: float
    errors: Errors


def regress(
    phenotypes: ArrayLike,
    conditions: ArrayLike,
    *,
    errors: Errors = "hc3",
    level: float = 0.95,
) -> Regression:
    """Return the slopes of phenotypes on conditions with their intervals.

    With ``X = [1, C]``, residuals e and leverages h, the variance of the coefficients is

    - hc3: ``(X'X)^-1 X' diag(e^2 / (1 - h)^2) X (X'X)^-1`` (MacKinnon and White, J. Econometrics
      1985);
    - classic: ``s^2 (X'X)^-1``;

    and bounds are Student's with N - C - 1 degrees of freedom.

    Args:
        phenotypes: ``(N, P)`` in native units.
        conditions: ``(N, C)``; code sex as 0 and 1.
        errors: of the slopes.
        level: confidence of their bounds.

    Raises:
        ValueError: for too few subjects, conditions that are constant or determine each other, and
            a subject that alone determines a slope (HC3 is undefined).
    """
    from scipy.stats import t as student

    y, c = finite(phenotypes, "phenotypes", ndim=2), finite(conditions, "conditions", ndim=2)
    same_rows(phenotypes=y, conditions=c)
    if errors not in ("hc3", "classic") or not 0 < level < 1:
        raise ValueError(f"errors must be hc3 or classic, level in (0, 1): {errors!r}, {level}")
    free = len(y) - c.shape[1] - 1
    if free < 1:
        raise ValueError(f"need more than {c.shape[1] + 1} subjects, got {len(y)}")
    design, unit = _orthonormal(c)
    # About their mean and orthonormal, so that units of the conditions cost no digits.
    centered = y - y.mean(axis=0)
    fitted = design @ (design.T @ centered)
    residuals = centered - fitted
    residual_sd = np.sqrt((residuals**2).sum(axis=0) / free)
    influence = design @ np.linalg.inv(unit).T  # X (X'X)^-1 of the slopes, (N, C)
    spread = _hc3_spread(design, residuals) if errors == "hc3" else residual_sd[None]
    standard_errors = np.sqrt((influence**2).T @ np.broadcast_to(spread**2, y.shape))
    slopes = influence.T @ centered
    reach = student.ppf((1 + level) / 2, free) * standard_errors
    unexplained = (residuals**2).sum(axis=0) / _variation(centered, y)
    return Regression(
        slopes=slopes,
        standard_errors=standard_errors,
        low=slopes - reach,
        high=slopes + reach,
        intercepts=y.mean(axis=0) - c.mean(axis=0) @ slopes,
        r2=1 - unexplained,
        adjusted_r2=1 - unexplained * (len(y) - 1) / free,
        residual_sd=residual_sd,
        subjects=len(y),
        level=level,
        errors=errors,
    )


def compare_slopes(
    real: Regression,
    synthetic: Regression,
    *,
    phenotypes: Sequence[str],
    conditions: Sequence[str],
) -> pd.DataFrame:
    """Return every slope in both cohorts and whether they agree.

    Returns:
        Table with index ``(phenotype, condition)`` and columns ``real``, ``real low``,
        ``real high``, ``synthetic``, ``synthetic low``, ``synthetic high``, ``overlap`` (the
        intervals meet), ``inside`` (the synthetic slope lies in the real interval) and ``p`` of
        equal slopes (normal, two-sided): intervals can meet although slopes differ.
    """
    import pandas as pd
    from scipy.stats import norm

    _named(real, synthetic, phenotypes, conditions)
    index = pd.MultiIndex.from_product([phenotypes, conditions], names=["phenotype", "condition"])
    spread = np.hypot(real.standard_errors, synthetic.standard_errors)
    gap = np.abs(real.slopes - synthetic.slopes)
    # Two exact fits have no spread: equal slopes then agree for certain, others not at all.
    distance = np.divide(gap, spread, out=np.where(gap > 0, np.inf, 0.0), where=spread > 0)
    columns = {
        "real": real.slopes,
        "real low": real.low,
        "real high": real.high,
        "synthetic": synthetic.slopes,
        "synthetic low": synthetic.low,
        "synthetic high": synthetic.high,
        "overlap": (real.low <= synthetic.high) & (synthetic.low <= real.high),
        "inside": (real.low <= synthetic.slopes) & (synthetic.slopes <= real.high),
        "p": 2 * norm.sf(distance),
    }
    return pd.DataFrame({name: value.T.ravel() for name, value in columns.items()}, index=index)


def compare_r2(
    real: Regression, synthetic: Regression, *, phenotypes: Sequence[str]
) -> pd.DataFrame:
    """Return adjusted R2 in both cohorts and its difference, synthetic minus real.

    Adjusted, since plain R2 of cohorts of unequal sizes differs by ``C / N`` without a cause.

    Returns:
        Table with index ``phenotype`` and columns ``real``, ``synthetic``, ``difference``.
    """
    import pandas as pd

    _named(real, synthetic, phenotypes, None)
    columns = {
        "real": real.adjusted_r2,
        "synthetic": synthetic.adjusted_r2,
        "difference": synthetic.adjusted_r2 - real.adjusted_r2,
    }
    return pd.DataFrame(columns, index=pd.Index(phenotypes, name="phenotype"))


def _orthonormal(conditions: NDArray) -> tuple[NDArray, NDArray]:
    """Q ``(N, C)`` and R with ``C - mean = Q R``; refuses conditions that are not independent."""
    if conditions.shape[1] < 1:
        raise ValueError("conditions must have at least 1 column, got 0")
    centered = conditions - conditions.mean(axis=0)
    size = np.sqrt((centered**2).sum(axis=0))
    constant = size <= 1e-12 * np.sqrt(len(conditions)) * np.abs(conditions).max(axis=0)
    if constant.any():
        raise ValueError(f"conditions must vary, got constants in {np.flatnonzero(constant)}")
    q, r = np.linalg.qr(centered / size)
    dependent = np.abs(r.diagonal()) < 1e-8
    if dependent.any():
        raise ValueError(
            f"conditions must not determine each other, got {np.flatnonzero(dependent)} "
            "as a combination of those before"
        )
    return q, r * size


def _hc3_spread(design: NDArray, residuals: NDArray) -> NDArray:
    """Residuals ``(N, P)`` of every subject from the fit without it: ``e / (1 - h)``."""
    leverage = 1 / len(design) + (design**2).sum(axis=1)
    if (leverage > 1 - 1e-9).any():
        raise ValueError("hc3 needs every slope to rest on 2 or more subjects; use classic")
    return residuals / (1 - leverage)[:, None]


def _variation(centered: NDArray, phenotypes: NDArray) -> NDArray:
    """Sum of squares about the mean ``(P,)``, none of them zero."""
    total = (centered**2).sum(axis=0)
    largest = np.abs(phenotypes).max(axis=0)
    constant = np.flatnonzero(total <= len(phenotypes) * (1e-12 * largest) ** 2)
    if constant.size:
        raise ValueError(f"phenotypes must vary, got constants in {constant.tolist()}")
    return total


def _named(
    real: Regression,
    synthetic: Regression,
    phenotypes: Sequence[str],
    conditions: Sequence[str] | None,
) -> None:
    """Refuse regressions of different tables and names that do not fit."""
    shape = real.slopes.shape
    named = (len(conditions) if conditions is not None else shape[0], len(phenotypes))
    if shape != synthetic.slopes.shape or shape != named:
        raise ValueError(
            f"regressions and names must agree, got slopes {shape}, {synthetic.slopes.shape} and "
            f"names {named}"
        )
