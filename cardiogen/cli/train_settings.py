"""What ``cardiogen train`` is asked for: a file or flags, checked before any work starts."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from cardiogen.base import CardiogenError
from cardiogen.cli.requests import check_apart, usage_error
from cardiogen.cli.train_networks import NetworkTraining
from cardiogen.cli.train_template import is_label_map
from cardiogen.engine.config import (
    FEWEST_HEARTS,
    DeformationTraining,
    LinearTraining,
    PcaTraining,
    Training,
    find_config,
    load_training,
)
from cardiogen.models.mesh.config import MeshTraining
from cardiogen.models.sequence.config import SequenceTraining
from cardiogen.models.volume.config import VolumeTraining

_OF_NETWORKS = {"device", "devices", "nodes", "resume"}
TRAININGS: dict[str, type[Training]] = {
    "linear": LinearTraining,
    "pca": PcaTraining,
    "deformation": DeformationTraining,
    "mesh": MeshTraining,
    "volume": VolumeTraining,
    "sequence": SequenceTraining,
}


def check_used(settings: Training, flags: set[str]) -> None:
    """Refuse (U01) settings and flags that were given and would not be used."""
    if isinstance(settings, NetworkTraining):
        return
    unused, kind, remedy = flags & _OF_NETWORKS, "a model without a network", "leaving them out"
    if isinstance(settings, DeformationTraining) and settings.cohort != "population":
        unused = flags | settings.model_fields_set & {
            "seed", "ed_modes", "fields", "motion_modes", "fits", "flow", "template",
            "label_map", "template_rounds",
        }  # fmt: skip
        kind = "a folder of label maps, that adapts a bundle"
    elif not unused and isinstance(settings, DeformationTraining):
        # A template that is a label map has an orientation of its own.
        unused = settings.model_fields_set & (
            {"base"} if is_label_map(settings.template) else {"base", "orientation"}
        )
        kind, remedy = "the population, no folder", "cohort = DIR beside them, or no such setting"
    if unused:
        raise usage_error(
            ", ".join(sorted(unused)), "set, but without a use",
            f"settings of a training on {kind}", remedy,
        )  # fmt: skip


def check_enough(settings: Training) -> None:
    """Refuse (C28) a population too small, before minutes of work."""
    if settings.cohort == "population" and settings.n < FEWEST_HEARTS:
        raise _too_few(settings.n)


def _too_few(n: int) -> CardiogenError:
    return CardiogenError(
        "C28", "-n", found=f"{n} training hearts", expected=f"at least {FEWEST_HEARTS}",
        remedy="more of them",
    )  # fmt: skip


def _from_flags(flags: dict[str, object]) -> Training:
    """Return the settings of flags; a fault of theirs is one of the request, not of a config."""
    model = flags.get("model", next(iter(TRAININGS)))
    if model not in TRAININGS:
        raise usage_error("--model", model, ", ".join(TRAININGS), "one of these models")
    try:
        return TRAININGS[model].model_validate(flags)
    except ValidationError as error:
        first = error.errors()[0]
    name, value = str(first["loc"][0]), first["input"]
    if name == "n" and first["type"] == "greater_than_equal" and value > 0:
        raise _too_few(value)
    flag = "-n" if name == "n" else f"--{name.replace('_', '-')}"
    if first["type"] == "extra_forbidden" or (name, first["type"]) == ("cohort", "literal_error"):
        raise usage_error(
            flag, f"{value} beside --model {model}", "a model that makes use of it",
            "--model deformation, or leaving it out",
        )  # fmt: skip
    raise usage_error(
        flag, value, first["msg"].removeprefix("Input should be ").lower(), "another value"
    )


def read_settings(out: Path, flags: dict[str, object], config: str | Path | None) -> Training:
    """Return the settings of a file or those of flags, never a mixture.

    Beside a file the kind of model may be named too, if it is the file's.
    """
    if config is None:
        return _from_flags(flags)
    if beside := [name for name in flags if name != "model"]:
        raise usage_error(
            "--config", f"{', '.join(beside)} beside a file", "either a file or flags",
            "all settings in the file",
        )  # fmt: skip
    path = find_config(config)
    check_apart(out, [path])
    settings = load_training(TRAININGS, path)
    if flags.get("model", settings.model) != settings.model:
        raise usage_error(
            "--model", flags["model"], f"{settings.model}, as {path.name} says",
            "a config of that model, or leaving --model out",
        )  # fmt: skip
    return settings
