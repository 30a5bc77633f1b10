"""What a registration does, as data: preparation, then stages, each a transform and its solver.

A config is a TOML file (``configs/registration``) or built in code; lengths are mm, orders of
levels coarse to fine. Unknown keys are errors that list the known ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cardiogen.base import CardiogenError
from cardiogen.engine.config import load_config, preset_path
from cardiogen.losses import TERMS, Weighted, make_term

TransformKind = Literal["rigid", "affine", "displacement", "svf", "ffd", "svffd"]
SolverKind = Literal["gauss_newton", "adam", "lbfgs"]

PRESETS = (
    "fast", "accurate", "multimodal", "affine_mi", "affine_nmi", "affine_ngf", "affine_mind",
    "labels", "ukbb_ffd", "deepreg_affine", "deepreg_nonrigid",
)  # fmt: skip
DEFAULT_PRESET = "fast"
_PER_VOXEL = ("displacement", "svf")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TermConfig(_Section):
    """One term of the energy: a key of ``losses.TERMS``, its weight and its options."""

    term: str
    weight: float = Field(default=1.0, ge=0.0)
    options: dict[str, float | int | bool | str | tuple[float, ...]] = {}

    @field_validator("term")
    @classmethod
    def _known(cls, term: str) -> str:
        if term not in TERMS:
            raise ValueError(f"unknown energy term {term!r}, known are {', '.join(TERMS)}")
        return term

    def weighted(self) -> Weighted:
        """Return the term with its weight."""
        return Weighted(term=make_term(self.term, self.options), weight=self.weight)


class PrepareConfig(_Section):
    """What happens to intensities before any comparison.

    Attributes:
        scale: ``joint`` brings both images together to [0, 1] (one scanner, one sequence),
            ``each`` apart (different scales), ``none`` leaves them.
        low: percentile that becomes 0.
        high: percentile that becomes 1.
        clip: intensities above ``high`` are cut there.
        match: give the moving image the quantiles of the fixed one.
        smooth_mm: standard deviation of a Gaussian, in the plane of the finest two axes.
    """

    scale: Literal["joint", "each", "none"] = "each"
    low: float = Field(default=1.0, ge=0.0, lt=50.0)
    high: float = Field(default=99.0, gt=50.0, le=100.0)
    clip: bool = True
    match: bool = False
    smooth_mm: float = Field(default=0.0, ge=0.0, le=50.0)


class StageConfig(_Section):
    """One transform and how it is found; later stages refine what earlier ones have left.

    Attributes:
        transform: kind of transform.
        solver: ``gauss_newton`` for ``svf`` and ``displacement``; ``adam`` and ``lbfgs`` for all.
        terms: the energy, by names of your own.
        iterations: most iterations of every level, coarse to fine; their number is that of levels.
        tolerance: a level ends when the energy falls by less than this share per iteration.
        in_plane: nothing moves through the slices.
        control_spacing: mm between control points of ``ffd`` and ``svffd`` at the finest level;
            twice that at each coarser one.
        learning_rate: step of Adam, voxels (linear transforms: mm at the border of the image).
        max_step: longest Gauss-Newton update, voxels.
        cg_iterations: conjugate gradients in one Gauss-Newton step.
        symmetric: Gauss-Newton compares both images halfway (``svf``), so that swapping them
            inverts the result.
        through_plane_mm: length l for Gauss-Newton: motion through the slices pays ``l^2 w`` times
            the price of smoothness for a wave of squared number w. Slices far apart say little
            of it, and only of what varies slowly: waves longer than ``2 pi l`` become cheaper,
            shorter ones dearer. 0 treats all directions alike.
    """

    transform: TransformKind = "svf"
    solver: SolverKind = "gauss_newton"
    terms: dict[str, TermConfig] = Field(min_length=1)
    iterations: tuple[int, ...] = Field(default=(10, 10, 6), min_length=1, max_length=8)
    tolerance: float = Field(default=1e-3, ge=0.0, lt=1.0)
    in_plane: bool = False
    control_spacing: float = Field(default=10.0, gt=0.0)
    learning_rate: float = Field(default=0.1, gt=0.0)
    max_step: float = Field(default=2.0, gt=0.0)
    cg_iterations: int = Field(default=8, ge=1, le=200)
    symmetric: bool = True
    through_plane_mm: float = Field(default=0.0, ge=0.0, le=1000.0)

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.iterations)

    @model_validator(mode="after")
    def _consistent(self) -> StageConfig:
        if min(self.iterations) < 0:
            raise ValueError(f"iterations must not be negative, got {self.iterations}")
        if self.solver == "gauss_newton" and self.transform not in _PER_VOXEL:
            raise ValueError(
                f"gauss_newton solves {' and '.join(_PER_VOXEL)}; {self.transform} takes adam or "
                "lbfgs"
            )
        kinds = {name: TERMS[entry.term].kind for name, entry in self.terms.items()}
        if "sequence" in kinds.values() or not {"image", "label"} & set(kinds.values()):
            raise ValueError("terms must compare images or labels, and may regularize the field")
        return self

    def weighted_terms(self) -> dict[str, Weighted]:
        """Return the terms of the energy with their weights."""
        return {name: entry.weighted() for name, entry in self.terms.items()}

    def wants(self, kind: str) -> bool:
        """Whether a term takes inputs of a kind (``image``, ``label``, ``field``)."""
        return any(TERMS[entry.term].kind == kind for entry in self.terms.values())


class RegistrationConfig(_Section):
    """A whole registration.

    Attributes:
        prepare: see ``PrepareConfig``.
        stages: in order; each starts from what the one before has found.
        unfold: smooth a velocity or displacement where it folds until nothing folds any more.
    """

    prepare: PrepareConfig = PrepareConfig()
    stages: tuple[StageConfig, ...] = Field(min_length=1, max_length=8)
    unfold: bool = True

    def wants(self, kind: str) -> bool:
        """Whether any stage has a term of a kind."""
        return any(stage.wants(kind) for stage in self.stages)


def load_preset(name: str) -> RegistrationConfig:
    """Return a preset of ``configs/registration``.

    Raises:
        CardiogenError: U14 for an unknown name.
    """
    if name not in PRESETS:
        raise CardiogenError(
            "U14", "--preset", found=repr(name), expected=f"one of {', '.join(PRESETS)}",
            remedy="a preset, or --config with a TOML file",
        )  # fmt: skip
    return load_config(RegistrationConfig, preset_path(f"registration/{name}"))


def resolve_config(
    preset: str | None, config: RegistrationConfig | str | Path | None
) -> RegistrationConfig:
    """Return the config that was given, that of a file, or that of a preset (``fast``)."""
    if config is not None and preset is not None:
        raise ValueError("preset and config must not both be given")
    if isinstance(config, RegistrationConfig):
        return config
    if config is not None:
        return load_config(RegistrationConfig, config)

    return load_preset(DEFAULT_PRESET if preset is None else preset)
