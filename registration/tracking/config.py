"""What tracking does, as data: strategy, preparation, and the settings of its solver.

A config is a TOML file (``configs/tracking``) or built in code; lengths are mm. Unknown keys are
errors that list the known ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cardiogen.base import CardiogenError
from cardiogen.engine.config import load_config, preset_path
from registration.config import RegistrationConfig, load_preset

Strategy = Literal["groupwise", "direct", "sequential", "blend"]
InPlane = Literal["auto"] | bool

PRESETS = ("default", "accurate", "ukbb")
STRATEGIES: tuple[Strategy, ...] = ("groupwise", "direct", "sequential", "blend")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GroupwiseConfig(_Section):
    """One periodic motion for all frames, found by Gauss-Newton steps.

    Attributes:
        harmonics: K of the Fourier series; at most half of the frames are used.
        iterations: most steps of every level, coarse to fine; their number is that of levels.
        tolerance: a level ends when the energy falls by less than this share per step.
        cg_iterations: conjugate gradients in one step.
        max_step: longest update of a velocity, voxels.
        smoothness: weight of ``mean |grad v|^2`` (v in mm, intensities 0 to 1).
        temporal: further price of harmonic k, ``smoothness * temporal * k^2``.
        through_plane_mm: as in ``registration.StageConfig``; 3D+t only.
        slice_coupling_mm: smoothness takes slices as no farther apart than this (or than pixels):
            neighbors steady a slice from which the heart withdraws.
        reference_ed: share of the ED image in the image that frames are compared with; the rest
            is the mean of all other frames, brought to ED by the coarser level.
        finest_mm: no level is finer than this in the plane.
        view_weight: of a square millimeter of a further view against one of the cine. A long axis
            alone shows how the base descends, so it may weigh more; beyond 4 its noise shows.
    """

    harmonics: int = Field(default=7, ge=1, le=64)
    iterations: tuple[int, ...] = Field(default=(12, 10, 8, 6), min_length=1, max_length=8)
    tolerance: float = Field(default=2e-3, ge=0.0, lt=1.0)
    cg_iterations: int = Field(default=8, ge=1, le=200)
    max_step: float = Field(default=2.0, gt=0.0)
    smoothness: float = Field(default=0.007, gt=0.0)
    temporal: float = Field(default=0.2, ge=0.0)
    through_plane_mm: float = Field(default=12.0, ge=0.0, le=1000.0)
    slice_coupling_mm: float = Field(default=8.0, gt=0.0)
    reference_ed: float = Field(default=0.6, gt=0.0, le=1.0)
    finest_mm: float = Field(default=1.2, gt=0.0)
    view_weight: float = Field(default=2.0, gt=0.0, le=1000.0)


class TrackingConfig(_Section):
    """A whole tracking.

    Attributes:
        strategy: ``groupwise`` finds one periodic motion from all frames at once; ``direct``
            registers every frame to ED; ``sequential`` registers neighbors and composes them;
            ``blend`` composes both ways round the cycle and weighs them by the way they have come.
        low, high: percentiles of the whole cine that become 0 and 1.
        smooth_mm: standard deviation of a Gaussian in the plane before anything is compared.
        margin_mm: tracked around the ED labels.
        in_plane_beyond_mm: with ``in_plane="auto"``, slices farther apart than this are tracked
            each on its own: less than such a distance the heart moves through them, so that no
            neighbor shows what has left a slice.
        longitudinal: infer motion through slices that are tracked each on its own; see
            ``longitudinal``.
        groupwise: settings of ``groupwise``.
        pairs: preset of ``registration`` that the other strategies use.
    """

    strategy: Strategy = "groupwise"
    low: float = Field(default=1.0, ge=0.0, lt=50.0)
    high: float = Field(default=99.0, gt=50.0, le=100.0)
    smooth_mm: float = Field(default=0.0, ge=0.0, le=20.0)
    margin_mm: float = Field(default=25.0, gt=0.0, le=500.0)
    in_plane_beyond_mm: float = Field(default=10.0, gt=0.0)
    longitudinal: bool = True
    groupwise: GroupwiseConfig = GroupwiseConfig()
    pairs: str = "fast"

    def pair_config(self, *, in_plane: bool) -> RegistrationConfig:
        """Return how the other strategies register a pair; intensities come prepared."""
        config = load_preset(self.pairs)
        stages = tuple(stage.model_copy(update={"in_plane": in_plane}) for stage in config.stages)
        prepare = config.prepare.model_copy(update={"scale": "none"})

        return config.model_copy(update={"stages": stages, "prepare": prepare})


def load_tracking_preset(name: str) -> TrackingConfig:
    """Return a preset of ``configs/tracking``.

    Raises:
        CardiogenError: U14 for an unknown name.
    """
    if name not in PRESETS:
        raise CardiogenError(
            "U14", "--preset", found=repr(name), expected=f"one of {', '.join(PRESETS)}",
            remedy="a preset, or --config with a TOML file",
        )  # fmt: skip
    return load_config(TrackingConfig, preset_path(f"tracking/{name}"))


def resolve_tracking_config(
    preset: str | None, config: TrackingConfig | str | Path | None, strategy: Strategy | None
) -> TrackingConfig:
    """Return the config that was given, that of a file or of a preset (``default``).

    A strategy, if given, replaces that of the config.
    """
    if config is not None and preset is not None:
        raise ValueError("preset and config must not both be given")
    if config is None:
        config = load_tracking_preset("default" if preset is None else preset)
    elif not isinstance(config, TrackingConfig):
        config = load_config(TrackingConfig, config)
    if strategy is None:
        return config
    if strategy not in STRATEGIES:
        raise CardiogenError(
            "U15", "--strategy", found=repr(strategy), expected=f"one of {', '.join(STRATEGIES)}",
            remedy="groupwise, the default",
        )  # fmt: skip
    return config.model_copy(update={"strategy": strategy})
