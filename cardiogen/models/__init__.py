"""Conditional models of cardiac anatomy, all behind ``models.protocol.AnatomyModel``."""

from cardiogen.models.linear import LinearModel, LinearWeights
from cardiogen.models.linear_fit import Example, fit_linear, population_examples
from cardiogen.models.protocol import AnatomyModel, Posterior, encode_condition, frame_phases
from cardiogen.models.store import LoadedModel, load_model, save_model

__all__ = [
    "AnatomyModel",
    "Example",
    "LinearModel",
    "LinearWeights",
    "LoadedModel",
    "Posterior",
    "encode_condition",
    "fit_linear",
    "frame_phases",
    "load_model",
    "population_examples",
    "save_model",
]
