"""What disease does to the phenotypes of a heart, for models that know healthy hearts only.

Patients are not the healthy hearts that such a model knows. Unless told that a heart is healthy,
its prior is moved and widened by the spread of disease, and of contouring habits, in volumes,
mass, ejection fractions and longitudinal shortening; shape and motion follow these as they do in
health. The two stroke volumes still agree but for leaking valves and other people's basal slices:
a left ventricle three times as large as the right one ejects little of itself. The figures are
rounded clinical knowledge of patients who are sent to cardiac MR, not a fit to any cohort.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Disease in (ln LVEDV, logit LVEF, ln LVM, ln RVEDV, logit RVEF): mean and SD. The mean ejection
# fractions are about 50 %; a dilated heart has twice the volume and a third of the odds of
# ejecting; ventricles that dilate eject less.
_DISEASE_MEAN = np.array([0.0, -0.4, 0.0, 0.0, -0.3])
_DISEASE_SD = np.array([0.40, 0.70, 0.30, 0.40, 0.55])
_DILATION_EJECTION = -0.5
# Of ln(RVSV / LVSV): what goes into the lungs comes out of them.
_STROKES_SD = 0.3
# Longitudinal shortening as a share of the healthy one: the base descends by 13-15 mm in health,
# by less than 10 mm in most disease, also where the ejection fraction is kept.
SHORTENING_MEAN, SHORTENING_SD = 0.7, 0.3

# From disease to the phenotypes of the model: ln(RVSV / LVSV) = ln RVEDV + ln RVEF - ln LVEDV
# - ln LVEF, and d ln EF = (1 - EF) d logit EF, taken at an ejection fraction of 60 %.
_TO_PHENOTYPES = np.eye(5)
_TO_PHENOTYPES[4] = [-1.0, -0.4, 0.0, 1.0, 0.4]


def disease_covariance() -> Array:
    """Return the covariance of disease in the phenotype vector ``(5, 5)``."""
    covariance = _independent()

    return covariance - np.outer(_agreement(covariance), covariance[4])


def disease_shift() -> Array:
    """Return the mean change of the phenotype vector ``(5,)``."""
    shift = _TO_PHENOTYPES @ _DISEASE_MEAN

    return shift - _agreement(_independent()) * shift[4]


def _independent() -> Array:
    """Return the covariance if disease of one ventricle told nothing of the other."""
    correlation = np.eye(5)
    for volume, ejection in ((0, 1), (3, 4)):
        correlation[volume, ejection] = correlation[ejection, volume] = _DILATION_EJECTION
    spread = correlation * np.outer(_DISEASE_SD, _DISEASE_SD)

    return _TO_PHENOTYPES @ spread @ _TO_PHENOTYPES.T


def _agreement(covariance: Array) -> Array:
    """Return by how much the phenotypes follow a ratio of stroke volumes that is seen ``(5,)``."""
    return covariance[4] / (covariance[4, 4] + _STROKES_SD**2)
