"""CHeart-type conditional spatio-temporal VAE of label maps."""

from cardiogen.models.sequence.config import SequenceConfig, SequenceTraining
from cardiogen.models.sequence.frames import at_own_base
from cardiogen.models.sequence.model import SequenceModel, sequence_from_tensors
from cardiogen.models.sequence.network import SequenceNetwork
from cardiogen.models.sequence.task import SequenceTask
from cardiogen.models.sequence.temporal import LstmPath, PeriodicPath
from cardiogen.models.sequence.train import train_sequence

__all__ = [
    "LstmPath",
    "PeriodicPath",
    "SequenceConfig",
    "SequenceModel",
    "SequenceNetwork",
    "SequenceTask",
    "SequenceTraining",
    "at_own_base",
    "sequence_from_tensors",
    "train_sequence",
]
