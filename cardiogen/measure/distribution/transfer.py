"""Train on synthetic, test on real, and the other way round: what a predictor can learn.

A linear predictor of a condition (age, sex) from phenotypes is trained in one cohort and judged in
the other. Its score within a cohort is cross-validated, so all four numbers are on new subjects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import keyed_rng
from cardiogen.measure.distribution.estimate import finite, same_rows
from cardiogen.measure.distribution.normative import auroc

Target = Literal["continuous", "binary"]


@dataclass(frozen=True)
class Transfer:
    """Scores of predictors by where they were trained and tested.

    Attributes:
        metric: ``R2`` (continuous; negative if worse than the mean) or ``AUROC`` (binary).
        real_to_real: trained and tested on real subjects, cross-validated.
        synthetic_to_real: what synthetic hearts teach about real ones.
        real_to_synthetic: whether synthetic hearts show what real ones taught.
        synthetic_to_synthetic: cross-validated; above the first, conditions show too clearly.
    """

    metric: Literal["R2", "AUROC"]
    real_to_real: float
    synthetic_to_real: float
    real_to_synthetic: float
    synthetic_to_synthetic: float


def transfer_scores(
    real_phenotypes: ArrayLike,
    real_target: ArrayLike,
    synthetic_phenotypes: ArrayLike,
    synthetic_target: ArrayLike,
    *,
    target: Target,
    penalty: float = 1.0,
    folds: int = 5,
    seed: int = 0,
) -> Transfer:
    """Return how well a condition is predicted within and across cohorts.

    Ridge regression for a ``continuous`` target, ridge-penalized logistic regression for a
    ``binary`` one, on phenotypes standardized by the training cohort. Cohorts of equal size make
    the two directions comparable.

    Args:
        real_phenotypes: ``(N, P)``.
        real_target: ``(N,)``: years, or 0 and 1.
        synthetic_phenotypes: ``(M, P)`` in the same units.
        synthetic_target: ``(M,)``.
        target: kind of target.
        penalty: weight of ``|b|^2 / 2`` against the sum over subjects.
        folds: parts of the cross-validation.
        seed: of the parts.

    Raises:
        ValueError: for tables that disagree, a constant target or phenotype, or a binary target
            with other values than 0 and 1.
    """
    cohorts = {
        "real": _cohort(real_phenotypes, real_target, "real", target),
        "synthetic": _cohort(synthetic_phenotypes, synthetic_target, "synthetic", target),
    }
    (x_real, y_real), (x_synthetic, y_synthetic) = cohorts.values()
    if x_real.shape[1] != x_synthetic.shape[1] or not penalty > 0:
        raise ValueError(
            f"phenotypes must be the same and penalty positive, got {x_real.shape[1]} and "
            f"{x_synthetic.shape[1]} columns, {penalty}"
        )
    score = _r2 if target == "continuous" else _auroc_of
    across = {
        "synthetic_to_real": _predict(x_synthetic, y_synthetic, x_real, target, penalty),
        "real_to_synthetic": _predict(x_real, y_real, x_synthetic, target, penalty),
    }
    within = {
        name: score(y, _cross_predicted(x, y, target, penalty, folds, seed))
        for name, (x, y) in cohorts.items()
    }
    return Transfer(
        metric="R2" if target == "continuous" else "AUROC",
        real_to_real=within["real"],
        synthetic_to_real=score(y_real, across["synthetic_to_real"]),
        real_to_synthetic=score(y_synthetic, across["real_to_synthetic"]),
        synthetic_to_synthetic=within["synthetic"],
    )


def _cohort(phenotypes: ArrayLike, values: ArrayLike, name: str, target: Target) -> tuple:
    if target not in ("continuous", "binary"):
        raise ValueError(f"target must be continuous or binary, got {target!r}")
    x = finite(phenotypes, f"{name}_phenotypes", ndim=2, least=4)
    y = finite(values, f"{name}_target", ndim=1)
    same_rows(phenotypes=x, target=y)
    if target == "binary" and not np.isin(y, (0.0, 1.0)).all():
        raise ValueError(f"{name}_target must be 0 or 1, got {np.unique(y)[:5]}")
    if np.ptp(y) == 0 or (np.ptp(x, axis=0) == 0).any():
        raise ValueError(f"{name} target and phenotypes must vary, got a constant one")
    return x, y


def _cross_predicted(
    x: NDArray, y: NDArray, target: Target, penalty: float, folds: int, seed: int
) -> NDArray:
    """Predictions ``(N,)`` for every subject by a predictor that has not seen it."""
    if not 2 <= folds <= len(y) // 2:
        raise ValueError(f"folds must be 2 to {len(y) // 2}, got {folds}")
    # Shuffled, then dealt out class by class, so that no part lacks one.
    order = keyed_rng(seed, "transfer folds").permutation(len(y))
    if target == "binary":
        order = order[np.argsort(y[order], kind="stable")]
    part = np.empty(len(y), dtype=np.int64)
    part[order] = np.arange(len(y)) % folds
    predicted = np.empty(len(y))
    for fold in range(folds):
        held_out = part == fold
        predicted[held_out] = _predict(x[~held_out], y[~held_out], x[held_out], target, penalty)
    return predicted


def _predict(
    x: NDArray, y: NDArray, new: NDArray, target: Target, penalty: float
) -> NDArray[np.float64]:
    """Linear prediction of ``new``: the target itself, or log odds of the class 1."""
    middle, unit = x.mean(axis=0), x.std(axis=0)
    unit = np.where(unit > 0, unit, 1.0)  # a fold may lack all variation of a column
    x, new = (x - middle) / unit, (new - middle) / unit
    if target == "continuous":
        slopes = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean()))
        return y.mean() + new @ slopes
    coefficients = _logistic(x, y, penalty)
    return coefficients[0] + new @ coefficients[1:]


def _logistic(x: NDArray, y: NDArray, penalty: float) -> NDArray[np.float64]:
    """Intercept and slopes that minimize ``sum log(1 + exp(-s z)) + penalty |b|^2 / 2``."""
    from scipy.optimize import minimize
    from scipy.special import expit

    sign = 2 * y - 1

    def energy(b: NDArray) -> tuple[float, NDArray]:
        logits = sign * (b[0] + x @ b[1:])
        pull = -sign * expit(-logits)
        gradient = np.concatenate([[pull.sum()], x.T @ pull + penalty * b[1:]])
        return float(np.logaddexp(0, -logits).sum() + penalty * (b[1:] ** 2).sum() / 2), gradient

    start = np.zeros(x.shape[1] + 1)
    return minimize(energy, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x


def _r2(true: NDArray, predicted: NDArray) -> float:
    return float(1 - ((true - predicted) ** 2).sum() / ((true - true.mean()) ** 2).sum())


def _auroc_of(true: NDArray, predicted: NDArray) -> float:
    return auroc(predicted[true == 1], predicted[true == 0])
