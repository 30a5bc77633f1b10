"""Phenotypes given conditions: volumes and mass of a healthy heart.

Means and spreads follow the Healthy Hearts Consortium (Raisi-Estabragh et al., JACC Imaging 2024,
White, smooth contours), a straight line in age with constant SD per sex. Body mass index and
pressure act log-linearly with the slopes of UK Biobank (Petersen et al., PLoS ONE 2017), height by
an exponent. What conditions explain is taken out of the spread, so that the marginal SD within sex
and age stays the published one.

The vector is (ln LVEDV, logit LVEF, ln LVM, ln RVEDV, ln(RVSV / LVSV)). LVESV follows from LVEDV
and LVEF, RVESV from the stroke volumes: a constant correlation of EDV and ESV could not give the
published spread of EF at every age. With smooth contours the right stroke volume is a few percent
above the left one, and their ratio is narrow: what enters one ventricle leaves the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.factors import Factors
from cardiogen.measure.reference import reference
from cardiogen.population.conditions import MEAN, ConditionModel, condition_vector

Array = NDArray[np.float64]

PHENOTYPES = ("log_lvedv", "logit_lvef", "log_lvm", "log_rvedv", "log_sv_ratio")

_BMI_SD, _SBP_SD = 4.3, 18.1  # SDs that the published slopes refer to
# Published percent change per SD of BMI and of systolic pressure, as log slopes. The LVEF slope
# reproduces the published LVESV slope: ln(1.02 / 1.045) of pressure is +1 point of EF.
_BMI_SLOPE = np.array([np.log(1.048), 0.006, np.log(1.083), np.log(1.053), 0.0])
_SBP_SLOPE = np.array([np.log(1.045), 0.040, np.log(1.068), np.log(1.045), 0.0])
# Exponents of height at a given BMI (LVEF and the ratio do not depend on it).
_HEIGHT_EXPONENT = np.array([1.1, 0.0, 0.6, 1.1, 0.0])
# Correlations within sex and age of ln LVEDV with ln LVM and ln RVEDV, and of those two. Mass goes
# with volume, which keeps wall thickness within its published spread.
_LVEDV_LVM, _LVEDV_RVEDV, _LVM_RVEDV = 0.62, 0.85, 0.50
# Larger ventricles eject a slightly smaller share: the published SD of LVESV asks for it.
_LVEDV_LVEF = -0.08
_RATIO_SD = 0.013
_RATIO_LIMITS = (1.0, 1.045)
_LIMIT_SD = 4.0


@dataclass(frozen=True)
class Phenotypes:
    """Volumes in mL and mass in g of one heart."""

    lvedv: float
    lvesv: float
    lvm: float
    rvedv: float
    rvesv: float

    @property
    def lvef(self) -> float:
        """Left ventricular ejection fraction, %."""
        return 100.0 * (1.0 - self.lvesv / self.lvedv)

    @classmethod
    def from_vector(cls, vector: Array) -> Phenotypes:
        """Return the phenotypes of a vector in the order of ``PHENOTYPES``."""
        lvedv, lvm, rvedv = (float(np.exp(vector[k])) for k in (0, 2, 3))
        stroke = lvedv / (1.0 + float(np.exp(-vector[1])))
        right_stroke = stroke * float(np.exp(vector[4]))
        return cls(lvedv, lvedv - stroke, lvm, rvedv, rvedv - right_stroke)

    def as_vector(self) -> Array:
        """Return the vector in the order of ``PHENOTYPES``."""
        stroke, right = self.lvedv - self.lvesv, self.rvedv - self.rvesv
        odds = np.log(stroke / self.lvesv)
        logs = np.log([self.lvedv, self.lvm, self.rvedv, right / stroke])
        return np.array([logs[0], odds, logs[1], logs[2], logs[3]])


def _line(measure: str, sex: str, age: float) -> tuple[float, float]:
    """Published mean and SD at an age."""
    entry = reference(measure, sex=sex, age=age)
    return entry.mean, entry.sd


def marginal(sex: str, age: float) -> tuple[Array, Array]:
    """Return mean and SD of the phenotype vector over all other conditions, ``(5,)`` each."""
    mean, sd = np.zeros(5), np.zeros(5)
    for k, measure in ((0, "LVEDV"), (2, "LVM"), (3, "RVEDV")):
        m, s = _line(measure, sex, age)
        variance = np.log1p((s / m) ** 2)
        mean[k], sd[k] = np.log(m) - variance / 2, np.sqrt(variance)
    ef, ef_sd = (value / 100.0 for value in _line("LVEF", sex, age))
    sd[1] = ef_sd / (ef * (1 - ef))
    # The mean of a logit-normal is pulled towards one half by about s^2 (p - 1/2) on the logit.
    mean[1] = np.log(ef / (1 - ef)) + sd[1] ** 2 * (ef - 0.5)
    # From the two ejection fractions: the published volumes alone give slightly other ones.
    right = _line("RVEF", sex, age)[0] / 100.0 * _line("RVEDV", sex, age)[0]
    ratio = float(np.clip(right / (ef * _line("LVEDV", sex, age)[0]), *_RATIO_LIMITS))
    mean[4], sd[4] = np.log(ratio), _RATIO_SD
    return mean, sd


def _correlation(sex: str, age: float, sd: Array) -> Array:
    """Return the correlation of the first four phenotypes within sex and age, ``(4, 4)``.

    ln RVEF = ln LVEDV + ln LVEF + ln ratio - ln RVEDV: its published SD fixes the one correlation
    that is left, that of RVEDV with LVEF.
    """
    ef = _line("LVEF", sex, age)[0] / 100.0
    log_ef_sd = sd[1] * (1.0 - ef)
    rvef, rvef_sd = _line("RVEF", sex, age)
    stroke = sd[0] ** 2 + log_ef_sd**2 + 2 * _LVEDV_LVEF * sd[0] * log_ef_sd
    wanted = (stroke + sd[3] ** 2 + sd[4] ** 2 - (rvef_sd / rvef) ** 2) / 2
    with_ef = (wanted - _LVEDV_RVEDV * sd[0] * sd[3]) / (log_ef_sd * sd[3])
    with_ef = float(np.clip(with_ef, 0.0, 0.45))
    return np.array(
        [
            [1.0, _LVEDV_LVEF, _LVEDV_LVM, _LVEDV_RVEDV],
            [_LVEDV_LVEF, 1.0, 0.0, with_ef],
            [_LVEDV_LVM, 0.0, 1.0, _LVM_RVEDV],
            [_LVEDV_RVEDV, with_ef, _LVM_RVEDV, 1.0],
        ]
    )


@cache
def _effects(sex: str) -> tuple[Array, Array]:
    """Slopes (5, 3) on (log height, BMI, pressure), and their covariance within sex and age."""
    slopes = np.stack([_HEIGHT_EXPONENT, _BMI_SLOPE / _BMI_SD, _SBP_SLOPE / _SBP_SD], axis=1)
    covariance = ConditionModel.of(sex).covariance
    rest = covariance[1:, 1:] - np.outer(covariance[1:, 0], covariance[0, 1:]) / covariance[0, 0]
    # log BMI -> BMI at the mean, to first order
    scale = np.array([1.0, MEAN[sex][2], 1.0])
    return slopes, rest * np.outer(scale, scale)


def _center(sex: str, age: float) -> Array:
    """Mean of (log height, BMI, pressure) at an age."""
    model = ConditionModel.of(sex)
    slope = model.covariance[1:, 0] / model.covariance[0, 0]
    center = model.mean[1:] + slope * (age - model.mean[0])
    variance = model.covariance[2, 2]
    return np.array([center[0], np.exp(center[1] + variance / 2), center[2]])


def phenotype_distribution(factors: Factors) -> tuple[Array, Array]:
    """Return mean ``(5,)`` and covariance ``(5, 5)`` of the phenotype vector given all factors."""
    mean, sd = marginal(factors.sex, factors.age)
    slopes, covariance = _effects(factors.sex)
    _, log_height, log_bmi, sbp = condition_vector(factors)
    offset = np.array([log_height, np.exp(log_bmi), sbp]) - _center(factors.sex, factors.age)
    total = np.zeros((5, 5))
    total[:4, :4] = _correlation(factors.sex, factors.age, sd) * np.outer(sd[:4], sd[:4])
    total[4, 4] = sd[4] ** 2
    residual = total - slopes @ covariance @ slopes.T
    return mean + slopes @ offset, residual


def sample_phenotypes(rng: np.random.Generator, factors: Factors) -> Phenotypes:
    """Draw the phenotypes of one heart; the draws stop at 4 SD."""
    mean, covariance = phenotype_distribution(factors)
    factor = np.linalg.cholesky(covariance)
    return Phenotypes.from_vector(
        mean + factor @ np.clip(rng.normal(size=5), -_LIMIT_SD, _LIMIT_SD)
    )
