"""The plain baseline: PCA of vertices over the cycle and a conditional Gaussian of its scores.

modes      scores to meshes, and back
model      all of it behind ``models.protocol``
training   a model from the reference population
"""

from cardiogen.models.pca.model import PcaModel
from cardiogen.models.pca.modes import CycleModes, cycle_basis, motion_series
from cardiogen.models.pca.training import (
    CYCLE_PHASES,
    Cycles,
    fit_pca,
    pca_from_population,
    population_cycles,
)

__all__ = [
    "CYCLE_PHASES",
    "CycleModes",
    "Cycles",
    "PcaModel",
    "cycle_basis",
    "fit_pca",
    "motion_series",
    "pca_from_population",
    "population_cycles",
]
