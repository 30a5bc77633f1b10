"""Settings of the volume model and of its training."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cardiogen.engine.config import Training
from cardiogen.models.voxel import VoxelConfig


class AgeingConfig(BaseModel):
    """Weights with which the terms of ageing press on encoder and decoder; 0 leaves a term out.

    Critics and age regressor always learn at full weight.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    latent_adversary: float = Field(default=0.0, ge=0.0, description="z against its prior")
    image_adversary: float = Field(default=0.0, ge=0.0, description="aged hearts against real")
    age_consistency: float = Field(default=0.0, ge=0.0, description="aged hearts look their age")
    cycle: float = Field(default=0.0, ge=0.0, description="aged there and back again")
    width: int = Field(default=64, ge=1, le=1024, description="of the latent critic")

    @property
    def wanted(self) -> bool:
        """Whether any term is in use."""
        return any((self.latent_adversary, self.image_adversary, self.age_consistency, self.cycle))


class VolumeConfig(VoxelConfig):
    """Settings of :func:`cardiogen.models.volume.train_volume`."""

    frames: Literal["ed", "es", "ed+es"] = "ed+es"
    frame_dropout: float = Field(default=0.3, ge=0.0, lt=1.0, description="of ED or ES at input")
    ageing: AgeingConfig = AgeingConfig()


class VolumeTraining(Training):
    """What ``cardiogen train`` takes for a volume model."""

    model: Literal["volume"] = "volume"
    network: VolumeConfig = Field(default_factory=VolumeConfig)
