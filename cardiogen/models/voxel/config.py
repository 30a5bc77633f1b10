"""Settings that all label models share, and their plain form for bundles."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cardiogen.engine.fit import FitConfig
from cardiogen.models.voxel.slots import Named

# TOML knows arrays, bundles know strings; a record knows tuples.
_Lax = Field(strict=False)
_Size = Annotated[int, Field(ge=4, le=512)]
_Mm = Annotated[float, Field(ge=0.1, le=50.0)]
_Width = Annotated[int, Field(ge=1, le=4096)]
Three = Annotated[tuple[_Size, _Size, _Size], _Lax]
ThreeMm = Annotated[tuple[_Mm, _Mm, _Mm], _Lax]
Widths = Annotated[tuple[_Width, ...], Field(strict=False, min_length=1, max_length=8)]


def short_fit() -> FitConfig:
    """Return settings of a training of half an hour on one core, for a lattice of 3 mm."""
    return FitConfig(
        steps=2000, batch_size=8, learning_rate=3e-3, warmup_steps=50, weight_decay=0.01,
        ema_decay=0.995, beta_warmup_steps=400, free_bits=0.05, prefetch=1,
    )  # fmt: skip


class VoxelConfig(BaseModel):
    """What every label model is set by.

    The loss, per voxel and frame, is

        cross-entropy + dice_weight (1 - Dice) + beta KL / (voxels frames evidence_share):

    neighboring voxels err together, so that only a share of them counts as evidence of its own.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    frames: Named | int = "ed+es"
    shape: Three = (48, 44, 44)
    spacing_mm: ThreeMm = (3.0, 3.0, 3.0)
    widths: Widths = (12, 24, 48)
    latent: int = Field(default=24, ge=1, le=512, description="size of z")
    code: int = Field(default=16, ge=1, le=512, description="size of the condition's code")
    mapping_width: int = Field(default=64, ge=1, le=1024)
    mapping_depth: int = Field(default=8, ge=1, le=32, description="layers from condition to code")
    condition_dropout: float = Field(default=0.15, ge=0.0, lt=1.0, description="of each factor")
    evidence_share: float = Field(default=0.02, gt=0.0, le=1.0)
    dice_weight: float = Field(default=0.2, ge=0.0)
    prior: Literal["fitted", "standard"] = Field(
        default="fitted",
        description="fitted: a Gaussian given factors through the latents of the training hearts",
    )
    fit: FitConfig = Field(default_factory=short_fit)

    @property
    def voxels(self) -> int:
        """Number of voxels of the lattice."""
        d, h, w = self.shape
        return d * h * w


Config = TypeVar("Config", bound=VoxelConfig)


def to_plain(config: VoxelConfig) -> dict[str, int | float | str]:
    """Return the architecture as numbers and strings; arrays are joined by spaces."""
    values = config.model_dump(exclude={"fit"})
    return {
        name: " ".join(map(repr, value)) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def from_plain(kind: type[Config], architecture: dict[str, int | float | str]) -> Config:
    """Return the config of :func:`to_plain`, with the default ``fit``.

    Raises:
        ValueError: for values that are no such architecture.
    """
    arrays = {n for n, v in kind().model_dump().items() if isinstance(v, tuple)}
    values = {n: _numbers(str(v)) if n in arrays else v for n, v in architecture.items()}
    return kind.model_validate(values)


def _numbers(text: str) -> list[int | float]:
    return [int(word) if word.isdigit() else float(word) for word in text.split()]
