"""Settings that all label models share, and their plain form for bundles."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from cardiogen.engine.fit import FitConfig

# TOML knows arrays, bundles know strings; a record knows tuples.
_Lax = Field(strict=False)
Three = Annotated[tuple[int, int, int], _Lax]
ThreeMm = Annotated[tuple[float, float, float], _Lax]
Widths = Annotated[tuple[int, ...], Field(strict=False, min_length=1)]


class VoxelConfig(BaseModel):
    """What every label model is set by.

    The loss, per voxel and frame, is

        cross-entropy + dice_weight (1 - Dice) + beta KL / (voxels frames evidence_share):

    neighboring voxels err together, so that only a share of them counts as evidence of its own.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

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
    fit: FitConfig = FitConfig()

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
