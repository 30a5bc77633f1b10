"""Configuration: TOML to pydantic; an unknown key is an error that lists the known ones."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cardiogen.base import CardiogenError
from cardiogen.base.strict_json import read_small
from cardiogen.data.sequence import Orientation

# tomllib takes time quadratic in the parts of a dotted key.
_MAX_DOTS = 100
_REPOSITORY_PRESETS = Path(__file__).resolve().parents[2] / "configs"


# Of the reference population; a model with a Gaussian given factors needs 20 of either sex.
FEWEST_HEARTS = 40


class Training(BaseModel):
    """What ``cardiogen train`` takes from a TOML file, whatever the model."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cohort: Literal["population"] = "population"
    n: int = Field(default=2000, ge=FEWEST_HEARTS, le=1_000_000, description="training hearts")
    seed: int = Field(default=0, ge=0, lt=2**63, description="same seed, same model")


class LinearTraining(Training):
    """Settings of ``models.linear``."""

    model: Literal["linear"] = "linear"
    ed_variance: float = Field(default=0.9995, gt=0.5, lt=1.0, description="kept by ED modes")
    motion_variance: float = Field(default=0.995, gt=0.5, lt=1.0, description="by motion modes")


class PcaTraining(Training):
    """Settings of ``models.pca``."""

    model: Literal["pca"] = "pca"
    ed_modes: int = Field(default=80, ge=1, le=2000, description="scores of end diastole")
    motion_modes: int = Field(default=80, ge=1, le=2000, description="scores of motion")
    fits: int = Field(default=32, ge=8, le=1000, description="label maps that tell the noise")


class FlowConfig(BaseModel):
    """Settings of ``models.flow``: of a flow between the Gaussian prior and the latents."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    steps: int = Field(default=4, ge=1, le=8, description="of a draw")
    width: int = Field(default=32, ge=1, le=1024, description="of the hidden layers")
    updates: int = Field(default=2000, ge=1, le=1_000_000, description="steps of its training")


class DeformationTraining(Training):
    """Settings of ``models.deformation``."""

    model: Literal["deformation"] = "deformation"
    cohort: str = Field(default="population", description="or a folder of label maps")
    n: int = Field(default=2000, ge=1, le=1_000_000, description="training hearts, at most")
    base: str = Field(
        default="deformation",
        description="bundle that a folder adapts, found as --model is: a folder, else a shipped "
        "model of that name",
    )
    orientation: Orientation | None = Field(
        default=None, description="overrides what a folder's headers say of left and right"
    )
    ed_modes: int = Field(default=96, ge=1, le=2000, description="scores of end diastole")
    fields: int = Field(default=64, ge=1, le=2000, description="spatial fields of motion")
    motion_modes: int = Field(default=64, ge=1, le=2000, description="scores of motion")
    fits: int = Field(default=32, ge=8, le=1000, description="label maps that tell the noise")
    flow: FlowConfig | None = Field(default=None, description="latents that are not Gaussian")
    template: str = Field(
        default="population",
        description="what is deformed: the population's mean heart, a label map of end diastole "
        "(.nii, .nii.gz), or the template of a deformation bundle",
    )
    label_map: str | None = Field(
        default=None, description="codes of that label map, such as acdc"
    )
    template_rounds: int = Field(
        default=0, ge=0, le=20, description="times that it is moved to the mean of the hearts"
    )


Config = TypeVar("Config", bound=BaseModel)


def load_config(kind: type[Config], path: str | Path) -> Config:
    """Read a TOML file into a config.

    Raises:
        CardiogenError: M07 for text that is not TOML, unknown keys and bad values, M47 unreadable.
    """
    return build_config(kind, _read_toml(Path(path)), path)


def load_training(kinds: Mapping[str, type[Training]], path: str | Path) -> Training:
    """Read the settings of the model that a TOML file names; see :func:`load_config`."""
    return build_training(kinds, _read_toml(Path(path)), path)


def build_training(
    kinds: Mapping[str, type[Training]], content: dict[str, object], where: str | Path
) -> Training:
    """Return the settings of the model that ``content`` names, the first of ``kinds`` if none.

    Raises:
        CardiogenError: M07 for an unknown model, unknown keys and bad values.
    """
    model = content.get("model", next(iter(kinds)))
    if not isinstance(model, str) or model not in kinds:
        raise CardiogenError(
            "M07", where, found=f"model: {model!r}", expected=", ".join(kinds),
            remedy="one of these models",
        )  # fmt: skip
    return build_config(kinds[model], content, where)


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return _parse_toml(read_small(path, code="M07"))
    except (ValueError, RecursionError) as error:
        # ValueError stands for TOMLDecodeError, UnicodeDecodeError and endless integers.
        raise CardiogenError(
            "M07", path, found=f"text that is not TOML ({error})", expected="a TOML file",
            remedy="see configs/ for examples; YAML is not read",
        ) from error  # fmt: skip


def _parse_toml(content: bytes) -> dict[str, object]:
    text = content.decode("utf-8")
    if max(part.count(".") for part in re.split(r"[=,{}\[\]\n]", text)) > _MAX_DOTS:
        raise ValueError(f"a key of more than {_MAX_DOTS} parts")
    return tomllib.loads(text)


def build_config(kind: type[Config], content: dict[str, object], where: str | Path) -> Config:
    """Return a config of plain values; see :func:`load_config`."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        section, known = _section_of(kind, first["loc"])
        place = f" of {section}" if section else ""
        raise CardiogenError(
            "M07", where, found=f"{field}: {first['msg'].lower()}",
            expected=f"known keys{place} {', '.join(known)} with values in their ranges",
            remedy="correcting the setting",
        ) from error  # fmt: skip


def _section_of(kind: type[BaseModel], place: Sequence[int | str]) -> tuple[str, list[str]]:
    """Return the name of the section that a key lies in, empty at the top, and its known keys."""
    names = []
    for part in place[:-1]:
        # Numbers of list items, and what pydantic adds for unions, are no keys.
        field = kind.model_fields.get(str(part))
        inner = None if field is None else _model_in(field.annotation)
        if inner is not None:
            kind = inner
            names.append(str(part))
    return ".".join(names), list(kind.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the config in an annotation such as ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(part) for part in get_args(annotation))
    return next((found for found in inner if found is not None), None)


def find_config(name: str | Path) -> Path:
    """Return the file of a config: a bare name without suffix is a preset, if there is one."""
    path = Path(name)
    bare = str(path) == path.stem and not path.is_file()
    preset = preset_path(path.stem) if bare else path
    return preset if preset.is_file() else path


def preset_path(name: str) -> Path:
    """Return the path of a preset, in the installed package or in a checkout."""
    packaged = Path(str(files("cardiogen") / "configs"))
    places = [root / folder / f"{name}.toml" for root in (packaged, _REPOSITORY_PRESETS)
              for folder in (".", "models")]  # fmt: skip
    return next((place for place in places if place.is_file()), places[-2])
