"""The one training loop of all models: exact resume, atomic checkpoints, keyed randomness.

A model brings a :class:`Task`; :func:`fit` trains its module. Nothing here knows any model.
"""

from cardiogen.engine.fit.batches import example_indices, keyed_generator, keyed_layers
from cardiogen.engine.fit.config import FitConfig, kl_weight, learning_rate
from cardiogen.engine.fit.latents import active_units, draw_latent, gaussian_kl, kl_loss
from cardiogen.engine.fit.loop import Fitted, fit
from cardiogen.engine.fit.processes import find_device
from cardiogen.engine.fit.task import StepInfo, Task, ValidatedTask

__all__ = [
    "FitConfig",
    "Fitted",
    "StepInfo",
    "Task",
    "ValidatedTask",
    "active_units",
    "draw_latent",
    "example_indices",
    "find_device",
    "fit",
    "gaussian_kl",
    "keyed_generator",
    "keyed_layers",
    "kl_loss",
    "kl_weight",
    "learning_rate",
]
