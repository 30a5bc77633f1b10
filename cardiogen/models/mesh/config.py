"""What a mesh model is built and trained by."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cardiogen.engine.config import Training
from cardiogen.engine.fit import FitConfig


class MeshConfig(BaseModel):
    """Architecture and training of the mesh VAE; a whole TOML file.

    ``evidence`` is what gives the KL weight of 1 its meaning: errors of neighboring vertices go
    together, so a heart of 100,000 coordinates holds only some hundreds of independent numbers.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    latents: int = Field(default=24, ge=1, le=512, description="z")
    harmonics: int = Field(default=4, ge=0, le=32, description="of the time code; 0: one frame")
    shape_modes: int = Field(default=48, ge=1, le=1024, description="PCA modes of single frames")
    noise_modes: int = Field(default=16, ge=0, le=256, description="of the smooth residual")
    width: int = Field(default=64, ge=8, description="of the tokens of both transformers")
    heads: int = Field(default=4, ge=1)
    layers: int = Field(default=2, ge=1, description="of each transformer")
    memory: int = Field(default=4, ge=1, description="tokens that z is decoded from")
    channels: tuple[int, ...] = Field(default=(8, 16, 32), description="of the graph levels")
    coarsening: int = Field(default=5, ge=2, description="vertices per cluster, level by level")
    condition_width: int = Field(default=32, ge=2)
    noise_mm: float = Field(
        default=0.0, ge=0.0, description="SD of the likelihood; 0: learned, never below the floor"
    )
    noise_floor_mm: float = Field(default=0.2, gt=0.0, description="least SD of the likelihood")
    evidence: float = Field(default=400.0, gt=0.0, description="independent numbers of a heart")
    smoothness: float = Field(
        default=0.1, ge=0.0, description="weight of the Laplacian of the error, per mm^2"
    )
    condition_dropout: float = Field(default=0.25, ge=0.0, lt=1.0, description="null tokens")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the first weights")
    fit: FitConfig = Field(
        default_factory=lambda: FitConfig(
            steps=3000,
            batch_size=16,
            learning_rate=1e-3,
            warmup_steps=100,
            ema_decay=0.995,
            weight_decay=0.01,
        )
    )

    @field_validator("channels", mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        # TOML has lists only.
        return tuple(value) if isinstance(value, list) else value

    @field_validator("channels")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 1:
            raise ValueError("needs one positive number or more")
        return value

    @field_validator("heads")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("width", value) % value:
            raise ValueError("must divide width")
        return value


class MeshTraining(Training):
    """What ``cardiogen train`` takes for a mesh model."""

    model: Literal["mesh"] = "mesh"
    frames: int = Field(default=10, ge=2, le=100, description="of every training heart")
    network: MeshConfig = Field(default_factory=MeshConfig)
