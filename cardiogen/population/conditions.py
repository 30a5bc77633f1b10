"""Conditions of the reference population: sex, age, height, body mass index, systolic pressure.

Marginals are those of the UK Biobank imaging participants without known cardiovascular disease
(Petersen et al., PLoS ONE 2017, doi 10.1371/journal.pone.0185114): women 61 +/- 7.5 y, 163 +/- 6
cm, 26.2 +/- 4.6 kg/m2, 133 +/- 19 mmHg; men 62 +/- 7.5 y, 176 +/- 7 cm, 27.1 +/- 3.9 kg/m2, 141
+/- 16 mmHg; 2,518 women to 2,133 men. Correlations within a sex are not published there; the ones
used are common epidemiology, small, and stated in ``CORRELATION``.

Given sex, the vector (age, log height, log BMI, pressure) is Gaussian, so any subset that a user
gives, weight included (log weight = log BMI + 2 log height), conditions the rest exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors

Array = NDArray[np.float64]

SHARE_OF_WOMEN = 2518 / (2518 + 2133)
AGE_RANGE = (18.0, 83.0)  # ages that the Healthy Hearts Consortium covers

# Order: age (y), height (cm), body mass index (kg/m2), systolic pressure (mmHg).
MEAN = {"F": np.array([61.0, 163.0, 26.2, 133.0]), "M": np.array([62.0, 176.0, 27.1, 141.0])}
SD = {"F": np.array([7.5, 6.0, 4.6, 19.0]), "M": np.array([7.5, 7.0, 3.9, 16.0])}
CORRELATION = np.array(
    [
        [1.00, -0.12, 0.03, 0.25],
        [-0.12, 1.00, -0.05, -0.05],
        [0.03, -0.05, 1.00, 0.20],
        [0.25, -0.05, 0.20, 1.00],
    ]
)
_LIMIT_SD = 3.5
_BMI_RANGE, _SBP_RANGE = (16.0, 50.0), (85.0, 210.0)  # limits of what is drawn


@dataclass(frozen=True)
class ConditionModel:
    """Gaussian of (age, log height, log BMI, pressure) given sex."""

    mean: Array
    covariance: Array

    @classmethod
    def of(cls, sex: str) -> ConditionModel:
        """Return the model of one sex; log marginals match the published mean and SD."""
        mean, sd = MEAN[sex].copy(), SD[sex].copy()
        for k in (1, 2):
            variance = np.log1p((sd[k] / mean[k]) ** 2)
            mean[k], sd[k] = np.log(mean[k]) - variance / 2, np.sqrt(variance)
        return cls(mean, CORRELATION * np.outer(sd, sd))


def condition_vector(factors: Factors) -> Array:
    """Return (age, log height, log BMI, pressure) of complete factors."""
    bmi = factors.weight / (factors.height / 100.0) ** 2
    return np.array([factors.age, np.log(factors.height), np.log(bmi), factors.sbp])


def _observations(given: Factors) -> tuple[Array, Array]:
    """Rows of the linear map from the condition vector to what is given, and its values."""
    rows, values = [], []
    if given.age is not None:
        rows.append([1, 0, 0, 0])
        values.append(given.age)
    if given.height is not None:
        rows.append([0, 1, 0, 0])
        values.append(np.log(given.height))
    if given.weight is not None:
        # log weight (kg) = log BMI + 2 log height (m)
        rows.append([0, 2, 1, 0])
        values.append(np.log(given.weight) + 2 * np.log(100.0))
    if given.sbp is not None:
        rows.append([0, 0, 0, 1])
        values.append(given.sbp)
    return np.array(rows, dtype=float).reshape(-1, 4), np.array(values)


def condition_posterior(sex: str, given: Factors) -> tuple[Array, Array]:
    """Return mean and covariance of the condition vector given sex and any other factors."""
    model = ConditionModel.of(sex)
    rows, values = _observations(given)
    if not len(rows):
        return model.mean, model.covariance
    cross = model.covariance @ rows.T
    gain = np.linalg.solve(rows @ cross, cross.T).T
    mean = model.mean + gain @ (values - rows @ model.mean)
    covariance = model.covariance - gain @ cross.T
    return mean, (covariance + covariance.T) / 2


def check_age(age: float | None, age_range: tuple[float, float] = AGE_RANGE) -> None:
    """Refuse an age outside the range that the model was made for.

    Raises:
        CardiogenError: D01 (exit 5).
    """
    if age is not None and not age_range[0] <= age <= age_range[1]:
        raise CardiogenError(
            "D01", "age", found=f"{age:g} years",
            expected=f"{age_range[0]:g} to {age_range[1]:g} years, which the data behind it cover",
            remedy="an age in that range",
        )  # fmt: skip


def sample_conditions(rng: np.random.Generator, given: Factors | None = None) -> Factors:
    """Draw complete factors; what ``given`` holds is kept as it is.

    Draws stop at 3.5 SD, ages at the ends of the covered range, body mass index and pressure at
    16-50 kg/m2 and 85-210 mmHg.
    """
    given = given if given is not None else Factors()
    check_age(given.age)
    uniform, normal = rng.random(), rng.normal(size=4)
    sex = given.sex or ("F" if uniform < SHARE_OF_WOMEN else "M")
    mean, covariance = condition_posterior(sex, given)
    values, vectors = np.linalg.eigh(covariance)
    spread = vectors * np.sqrt(np.maximum(values, 0.0))
    drawn = mean + spread @ np.clip(normal, -_LIMIT_SD, _LIMIT_SD)
    height = given.height if given.height is not None else float(np.exp(drawn[1]))
    bmi_weight = float(np.clip(np.exp(drawn[2]), *_BMI_RANGE)) * (height / 100.0) ** 2
    return Factors(
        age=given.age if given.age is not None else float(np.clip(drawn[0], *AGE_RANGE)),
        sex=sex,
        height=height,
        weight=given.weight if given.weight is not None else bmi_weight,
        sbp=given.sbp if given.sbp is not None else float(np.clip(drawn[3], *_SBP_RANGE)),
    )
