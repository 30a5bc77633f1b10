"""What users ask for: factors, counts, seeds, a device, output names; checked before any work."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, Exit
from cardiogen.data.factors import FACTORS, Factors

if TYPE_CHECKING:
    from cardiogen.models.protocol import AnyModel

MAX_HEARTS = 100_000
MAX_FRAMES = 1_000
_OLDEST = 120.0
_MESH_FORMATS = {"vtp", "stl", "glb"}


def usage_error(where: str, found: object, expected: str, remedy: str) -> CardiogenError:
    """Return a fault of the request itself (exit 2)."""
    return CardiogenError("U01", where, found=str(found), expected=expected, remedy=remedy)


def request_factors(
    *,
    age: float | None = None,
    sex: str | None = None,
    height: float | None = None,
    weight: float | None = None,
    sbp: float | None = None,
) -> Factors:
    """Return the factors of a request.

    Raises:
        CardiogenError: U01 (exit 2) for numbers that mean nothing or fit another unit, D01 (exit
        5) for an age beyond any data.
    """
    numbers = {"age": age, "height": height, "weight": weight, "sbp": sbp}
    for name, value in numbers.items():
        if value is not None and (not math.isfinite(value) or value < 0):
            info = FACTORS[name]
            raise usage_error(
                f"--{name}", value, f"{info.low:g} to {info.high:g} {info.unit}", "another value"
            )
    if age is not None and age > _OLDEST:
        raise CardiogenError(
            "D01", "--age", found=f"{age:g} years", expected="an age that the model has seen",
            remedy="an age in the range that the model's card names",
        )  # fmt: skip
    try:
        values = {k: v for k, v in (numbers | {"sex": sex}).items() if v is not None}
        return Factors.from_mapping(values, where="request")
    except CardiogenError as error:
        flag = "--" + error.where.split("/")[-1].replace(", ", "/--")
        raise CardiogenError(
            "U01", flag, found=error.found, expected=error.expected, remedy=error.remedy,
            exit_code=Exit.USAGE,
        ) from error  # fmt: skip


def domain_reason(error: CardiogenError) -> str:
    """Return what lies outside the training data, without advice: the user chose to go on."""
    return f"CG-{error.code} {error.where}: found {error.found}; expected {error.expected}"


def check_count(flag: str, value: int, limit: int) -> None:
    """Refuse counts below one (exit 2) and above what one run should make (exit 6)."""
    if value < 1:
        raise usage_error(flag, value, f"1 to {limit}", "a positive number")
    if value > limit:
        raise CardiogenError(
            "R03", flag, found=str(value), expected=f"at most {limit}", remedy="several runs"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that is not in [0, 2**64) (exit 2)."""
    if not 0 <= seed < 2**64:
        raise usage_error("--seed", seed, "a whole number from 0 to 2^64 - 1", "another seed")


def check_formats(text: str, model: AnyModel) -> None:
    """Refuse mesh files that are asked by name of a model of label maps; ``all`` has none then.

    Raises:
        CardiogenError: U12 (exit 2).
    """
    from cardiogen.models.protocol import gives_labels

    asked = sorted({name.strip().lower() for name in text.split(",")} & _MESH_FORMATS)
    if asked and gives_labels(model):
        raise CardiogenError(
            "U12", "--format", found=f"{', '.join(asked)} of a model of label maps",
            expected="nifti, png, csv", remedy="these, or a model that has meshes",
        )  # fmt: skip


def check_device(name: str) -> str:
    """Return ``cpu`` or ``cuda`` of ``auto``, ``cpu`` or ``cuda``.

    Raises:
        CardiogenError: U01 (exit 2) for another name, R05 (exit 6) for CUDA where there is none.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise usage_error("--device", name, "auto, cpu or cuda", "auto")
    if name == "cuda" and not torch.cuda.is_available():
        raise CardiogenError(
            "R05", "--device", found="no CUDA device", expected="one", remedy="--device cpu"
        )
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def check_apart(out: Path, inputs: Iterable[str | Path]) -> None:
    """Refuse an output that is, or holds, an input: replacing it would delete the input.

    Raises:
        CardiogenError: O02 (exit 8).
    """
    place = out.resolve()
    for file in map(Path, inputs):
        if place == file.resolve() or place in file.resolve().parents:
            raise CardiogenError(
                "O02", out, found=f"a place that holds the input {file}",
                expected="an output apart from the input", remedy="another --out",
            )  # fmt: skip


def fresh_folder(factors: Factors, parent: Path) -> Path:
    """Return a name that is not there yet, such as ``heart_F70_001``."""
    age = "" if factors.age is None else f"{factors.age:.0f}"
    stem = f"heart_{factors.sex or ''}{age}".rstrip("_")
    number = 1
    while (parent / f"{stem}_{number:03d}").exists():
        number += 1
    return parent / f"{stem}_{number:03d}"


def check_group(group: str | None, model: AnyModel) -> None:
    """Refuse (U01) a group of which the model was told nothing."""
    cohort = getattr(model, "cohort", None)
    known = () if cohort is None else cohort.groups
    if group is not None and group not in known:
        expected = " or ".join(known) or "no group: the model was adapted to no cohort with groups"
        raise usage_error("--group", group, expected, "leaving it out")
