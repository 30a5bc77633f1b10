"""Conditional VAE of 3D label maps, with the ageing-heart options."""

from cardiogen.models.volume.config import AgeingConfig, VolumeConfig, VolumeTraining
from cardiogen.models.volume.model import VolumeModel, volume_from_tensors
from cardiogen.models.volume.network import VolumeNetwork
from cardiogen.models.volume.task import VolumeParts, VolumeTask
from cardiogen.models.volume.train import train_volume

__all__ = [
    "AgeingConfig",
    "VolumeConfig",
    "VolumeModel",
    "VolumeNetwork",
    "VolumeParts",
    "VolumeTask",
    "VolumeTraining",
    "train_volume",
    "volume_from_tensors",
]
