"""Conditional models of cardiac anatomy, all behind ``models.protocol.AnatomyModel``."""

from cardiogen.models.linear import LinearModel, LinearWeights
from cardiogen.models.linear_fit import Example, fit_linear, population_examples
from cardiogen.models.protocol import AnatomyModel, Posterior, encode_condition, frame_phases
from cardiogen.models.store import LoadedModel, load_model, save_model
from cardiogen.models.target_values import Targets, parse_targets
from cardiogen.models.targets import TargetedPrior, condition_on_targets, guided_prior

__all__ = [
    "AnatomyModel",
    "Example",
    "LinearModel",
    "LinearWeights",
    "LoadedModel",
    "Posterior",
    "TargetedPrior",
    "Targets",
    "condition_on_targets",
    "encode_condition",
    "fit_linear",
    "frame_phases",
    "guided_prior",
    "load_model",
    "parse_targets",
    "population_examples",
    "save_model",
]
