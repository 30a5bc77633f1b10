"""Settings of the sequence model and of its training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cardiogen.engine.config import Training
from cardiogen.models.voxel import VoxelConfig


class SequenceConfig(VoxelConfig):
    """Settings of :func:`cardiogen.models.sequence.train_sequence`."""

    frames: int = Field(default=10, ge=2, le=200, description="of a cycle, the first at ED")
    encoder_frame: Literal["ed", "any"] = Field(
        default="ed", description="what the encoder learns to read"
    )
    temporal: Literal["lstm", "periodic"] = Field(
        default="lstm", description="lstm: as CHeart; periodic: a Fourier series, which closes"
    )
    harmonics: int = Field(default=4, ge=1, le=32, description="of the periodic module")
    frames_per_step: int = Field(
        default=4, ge=1, description="frames of a heart that a step decodes; at most all"
    )


class SequenceTraining(Training):
    """What ``cardiogen train`` takes for a sequence model."""

    model: Literal["sequence"] = "sequence"
    network: SequenceConfig = Field(default_factory=SequenceConfig)
