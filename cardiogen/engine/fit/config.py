"""What a training run is set by, and the schedules that follow from it."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Precision = Literal["32", "bf16-mixed", "16-mixed"]

# Settings that say when to write, not what to compute: they may change when a run is resumed.
FREE_FIELDS = frozenset({"checkpoint_every", "prefetch"})


class FitConfig(BaseModel):
    """Settings of :func:`cardiogen.engine.fit.fit`; a section of a model's own TOML file.

    A batch is cut into as many shares as there are processes times ``accumulate``; their
    gradients add up to that of the batch, so neither number changes what is minimized.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    steps: int = Field(default=10_000, ge=1, description="optimizer steps")
    batch_size: int = Field(default=16, ge=1, description="examples a step, over all devices")
    accumulate: int = Field(default=1, ge=1, description="shares a device takes one by one")
    learning_rate: float = Field(default=1e-3, gt=0.0, description="highest of the schedule")
    warmup_steps: int = Field(default=0, ge=0, description="linear rise of the learning rate")
    schedule: Literal["constant", "cosine"] = "cosine"
    final_share: float = Field(default=0.01, ge=0.0, le=1.0, description="where the cosine ends")
    weight_decay: float = Field(default=0.0, ge=0.0, description="AdamW's, of matrices alone")
    gradient_clip: float = Field(default=1.0, ge=0.0, description="largest norm; 0 for none")
    ema_decay: float = Field(default=0.0, ge=0.0, lt=1.0, description="0 for no average")
    precision: Precision = "32"
    beta_max: float = Field(default=1.0, ge=0.0, description="weight of the KL divergence")
    beta_warmup_steps: int = Field(default=0, ge=0, description="linear rise of that weight")
    free_bits: float = Field(default=0.0, ge=0.0, description="nats of every latent left free")
    seed: int = Field(default=0, ge=0, lt=2**63, description="same seed, same weights")
    max_skipped: int = Field(default=20, ge=0, description="non-finite steps in a row")
    log_every: int = Field(default=50, ge=1, description="steps that a row of log.csv averages")
    checkpoint_every: int = Field(default=1000, ge=1, description="steps")
    validate_every: int = Field(default=0, ge=0, description="steps; 0 for never")
    keep_best: bool = Field(default=False, description="return the weights that validated best")
    prefetch: int = Field(default=0, ge=0, le=64, description="batches made ahead by a thread")

    @field_validator("keep_best")
    @classmethod
    def _needs_validation(cls, value: bool, info: ValidationInfo) -> bool:
        if value and not info.data.get("validate_every"):
            raise ValueError("needs validate_every above 0")
        return value


def learning_rate(config: FitConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0.

    ``(s + 1) / warmup`` of the highest while warming up; then it stays there, or falls along half
    a cosine to ``final_share`` of it in the last step.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    past = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    share = (1 + math.cos(math.pi * min(1.0, past))) / 2
    return config.learning_rate * (config.final_share + (1 - config.final_share) * share)


def kl_weight(config: FitConfig, step: int) -> float:
    """Return beta of a step, counted from 0: a linear rise from 0 to ``beta_max``."""
    if step >= config.beta_warmup_steps:
        return config.beta_max
    return config.beta_max * step / config.beta_warmup_steps
