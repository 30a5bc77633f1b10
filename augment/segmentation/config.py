"""What a segmentation training is set by: TOML sections to pydantic records."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cardiogen.engine.fit import FitConfig

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
# A level of no channels is no level; one of more than this outgrows any device by itself.
_Width = Annotated[int, Field(ge=1, le=2048)]
# TOML knows arrays; a record knows tuples.
_Widths = Annotated[tuple[_Width, ...], Field(strict=False, min_length=2, max_length=8)]
_Names = Annotated[tuple[str, ...], Field(strict=False)]

Arm = Literal["none", "random", "consistency", "adversarial", "shape"]
Frames = Literal["ed+es", "all"]


class DataConfig(BaseModel):
    """Which hearts a network learns from, is chosen by and is judged on.

    Subjects are counted or named. Counted ones are drawn by ``split_seed``: first those of the
    test, then of the validation, then of the training, so that a training of 3 is part of one of
    10 and the test stays the same.
    """

    model_config = _STRICT

    cohort: str = Field(default="", description="folder of images and label maps; empty for none")
    layout: Literal["cardiogen", "acdc", "acdc_dev25", "ukbb"] | None = None
    label_map: str | None = Field(default=None, description="of the cohort's files")
    frames: Frames = "ed+es"
    train: int | _Names = Field(default=-1, description="-1 for all that are left, 0 for none")
    validation: int | _Names = 0
    test: int | _Names = 0
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    synthetic: str = Field(
        default="",
        description="'population', a bundle folder, a folder of generated hearts, or empty",
    )
    synthetic_label_map: str | None = Field(default=None, description="of such a folder")
    synthetic_hearts: int = Field(default=40, ge=1, le=100_000)
    synthetic_seed: int = Field(default=0, ge=0, lt=2**63)
    synthetic_share: float = Field(
        default=0.5, gt=0.0, le=1.0, description="of every batch, where there is a cohort too"
    )

    @model_validator(mode="after")
    def _counts(self) -> DataConfig:
        for name, least in (("train", -1), ("validation", 0), ("test", 0)):
            count = getattr(self, name)
            if isinstance(count, int) and count < least:
                raise ValueError(f"{name} must be at least {least}, got {count}")
        return self


class ImageConfig(BaseModel):
    """How images are brought to the network: lattice, intensities, patches."""

    model_config = _STRICT

    spacing_mm: float = Field(default=1.5, gt=0.1, le=10.0, description="in plane")
    normalization: Literal["range", "zscore"] = Field(
        default="range",
        description="of each volume; range: percentiles 0.5 and 99.5 become 0 and 1, so that "
        "factors such as a bias field keep their meaning",
    )
    patch: int = Field(default=128, ge=16, le=1024, description="pixels along each side")
    heart_share: float = Field(
        default=0.67, ge=0.0, le=1.0, description="of patches around the heart, others anywhere"
    )
    jitter_mm: float = Field(default=20.0, ge=0.0, description="SD of a patch's center")


class NetworkConfig(BaseModel):
    """Size of the U-Net."""

    model_config = _STRICT

    widths: _Widths = (16, 32, 64, 128)
    deep_supervision: bool = False


class AugmentationConfig(BaseModel):
    """Which arm of augmentation a training takes; see ``augment.segmentation.build``."""

    model_config = _STRICT

    arm: Arm = Field(
        default="random",
        description="none; random: transforms of image and labels; consistency: agreement under "
        "random transforms; adversarial: under those found hardest; shape: the same with changes "
        "of anatomy along a model of it",
    )
    strength: float = Field(default=1.0, gt=0.0, le=3.0, description="times the usual bounds")
    share: float = Field(default=0.5, ge=0.0, le=1.0, description="of a batch that is augmented")
    supervised: Literal["clean", "random"] = Field(
        default="clean", description="what the arms of agreement learn the labels on"
    )
    reference: Literal["prediction", "labels", "teacher"] = Field(
        default="prediction",
        description="what they compare with: the clean prediction, labels, or the clean "
        "prediction of a teacher, whose weights are a moving average of the network's",
    )
    teacher_decay: float = Field(
        default=0.99, ge=0.0, lt=1.0, description="of that average, for every step"
    )
    weight: float = Field(default=1.0, ge=0.0, description="of the agreement, after its rise")
    ramp_share: float = Field(default=0.3, ge=0.0, le=1.0, description="of the steps, to rise in")
    ascent_steps: int = Field(default=1, ge=1, le=10, description="of a search")
    every: int = Field(default=1, ge=1, le=100, description="steps from search to search")
    bundle: str = Field(default="", description="of arm shape; empty for the one shipped")


class PredictionConfig(BaseModel):
    """How whole images are segmented."""

    model_config = _STRICT

    overlap: float = Field(default=0.5, ge=0.0, lt=0.95, description="of neighboring windows")
    windows: int = Field(default=16, ge=1, le=1024, description="that go through at once")
    largest_piece: bool = Field(default=True, description="keep one piece of every structure")


class SegmentationConfig(BaseModel):
    """All settings of a segmentation training."""

    model_config = _STRICT

    data: DataConfig = DataConfig()
    image: ImageConfig = ImageConfig()
    network: NetworkConfig = NetworkConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    prediction: PredictionConfig = PredictionConfig()
    fit: FitConfig = FitConfig()

    @model_validator(mode="after")
    def _patch_fits(self) -> SegmentationConfig:
        check_patch(self.image, self.network)
        return self


def check_patch(image: ImageConfig, network: NetworkConfig) -> None:
    """Refuse (ValueError) patches that a network cannot halve as often as it has levels."""
    stride = 2 ** (len(network.widths) - 1)
    if image.patch % stride or image.patch < 2 * stride:
        raise ValueError(
            f"image.patch must be a multiple of {stride} and at least {2 * stride} for "
            f"{len(network.widths)} widths"
        )
