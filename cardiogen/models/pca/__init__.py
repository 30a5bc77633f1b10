"""The plain baseline: PCA of vertices over the cycle and a conditional Gaussian of its scores.

modes      scores to meshes, and back
noise      errors of meshes that are fitted to label maps
model      all of it behind ``models.protocol``
posterior  latents given label maps
training   a model from the reference population
"""

from cardiogen.models.pca.model import PcaModel
from cardiogen.models.pca.modes import CycleModes, cycle_basis, motion_series
from cardiogen.models.pca.noise import FitNoise, MeshNoise
from cardiogen.models.pca.training import (
    CYCLE_PHASES,
    Cycles,
    Fitted,
    fit_pca,
    fitted_population,
    pca_from_population,
    population_cycles,
)

__all__ = [
    "CYCLE_PHASES",
    "CycleModes",
    "Cycles",
    "FitNoise",
    "Fitted",
    "MeshNoise",
    "PcaModel",
    "cycle_basis",
    "fit_pca",
    "fitted_population",
    "motion_series",
    "pca_from_population",
    "population_cycles",
]
