"""Entries of Learn2Reg's JSON files: checked as they are taken out, so that faults name them.

Convention: image names are ``./imagesTr/TASK_0001_0000.nii.gz`` (subject, modality); labels,
masks and landmarks lie in folders beside, named by substitution (``labelsTr``, ``masksTr``,
``landmarksTr``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from cardiogen.base import CardiogenError
from cardiogen.base.strict_json import parse_json, read_small

_NAME = re.compile(r"_(?P<subject>\d{4})_(?P<modality>\d{4})\.nii\.gz$")
_CODE = "C40"
_MISSING = object()


@dataclass(frozen=True)
class Pair:
    """Fixed and moving image, as paths inside the dataset."""

    fixed: str
    moving: str

    def __post_init__(self) -> None:
        for path in (self.fixed, self.moving):
            _check_path(path)

    @property
    def case(self) -> str:
        """Name of the case in results, e.g. ``0001_0000<--0001_0001``."""
        (fixed, fixed_mod), (moving, moving_mod) = name_parts(self.fixed), name_parts(self.moving)
        return f"{fixed}_{fixed_mod}<--{moving}_{moving_mod}"


def name_parts(path: str) -> tuple[str, str]:
    """Return subject and modality of an image name, four digits each."""
    match = _NAME.search(path)
    if match is None:
        refuse(path, f"image {path!r}", "a name that ends in _0001_0000.nii.gz")

    return match["subject"], match["modality"]


def beside(image: str, kind: str, *, suffix: str = ".nii.gz") -> str:
    """Return the path of what belongs to an image: ``imagesTr`` becomes ``<kind>Tr``."""
    return image.replace("images", kind).removesuffix(".nii.gz") + suffix


def read_object(path: str | Path) -> dict[str, object]:
    """Return the named entries of a JSON file.

    Raises:
        CardiogenError: C40 for anything else, C47 if it cannot be read.
    """
    content = parse_json(read_small(Path(path), code=_CODE), path, code=_CODE)
    if not isinstance(content, dict):
        refuse(path, f"a {type(content).__name__}", "an object with named entries")

    return content


def entry_of(
    content: dict[str, object],
    key: str,
    kind: type,
    path: str | Path,
    *,
    default: object = _MISSING,
) -> object:
    """Return an entry of the wanted type; one without a default must be there."""
    value = content.get(key, default)
    if value is _MISSING or not isinstance(value, kind):
        found = "nothing" if value is _MISSING else f"{str(value)[:60]!r}"
        refuse(path, f"{key}: {found}", f"{key} as {kind.__name__}")

    return value


def whole_numbers(
    values: object, count: int | None, name: str, path: str | Path
) -> tuple[int, ...]:
    """Return a list of positive whole numbers, ``count`` of them or any number but none."""
    good = isinstance(values, list) and all(type(v) is int and v > 0 for v in values)
    if not good or not values or (count is not None and len(values) != count):
        refuse(path, f"{name} {str(values)[:60]}", f"{count or 'some'} positive whole numbers")

    return tuple(values)


def pairs_of(content: dict[str, object], key: str, path: str | Path) -> tuple[Pair, ...]:
    """Return a list of pairs, empty if there is none."""
    pairs = []
    for entry in entry_of(content, key, list, path, default=[]):
        if not isinstance(entry, dict):
            refuse(path, f"{key}: {str(entry)[:60]}", '{"fixed": ..., "moving": ...}')
        names = (entry_of(entry, side, str, path) for side in ("fixed", "moving"))
        try:
            pairs.append(Pair(*names))
        except CardiogenError as error:
            raise error.at(f"{path}/{key}") from error

    return tuple(pairs)


def pair_list(pairs: tuple[Pair, ...]) -> list[dict[str, str]]:
    """Return pairs as JSON holds them."""
    return [{"fixed": pair.fixed, "moving": pair.moving} for pair in pairs]


def refuse(where: str | Path, found: str, expected: str) -> NoReturn:
    """Raise C40."""
    raise CardiogenError(
        _CODE, where, found=found, expected=expected, remedy="the file that Learn2Reg ships"
    )


def _check_path(path: str) -> None:
    name_parts(path)
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
        refuse(path, f"image {path!r} outside of the dataset", "a path inside of it")
