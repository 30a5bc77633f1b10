"""What the ``parameters.json`` of a generated or completed heart says of its label file.

Only what reading needs is looked at: ``label_map.name``, ``key_frames``, ``mirrored_world`` and
``heart_rate_is_nominal``. Other programs use this file name too, so a file without these keys says
nothing; one with them must be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cardiogen.base import CardiogenError
from cardiogen.base.strict_json import parse_json, read_small
from cardiogen.data.labels import LABEL_MAPS
from cardiogen.data.sequence import Orientation

_NAME = "parameters.json"
_LABEL_FILES = ("labels.nii.gz", "labels.nii")
_MOST_FRAMES = 10_000


@dataclass(frozen=True, kw_only=True)
class HeartFacts:
    """Facts of a label file, None where nothing is said.

    Attributes:
        label_map: name of the map of its codes.
        ed_frame: frame of end diastole in the file, from 0.
        es_frame: frame of end systole; alone, the file holds end systole only.
        orientation: ``mirrored`` for a heart completed in a world that mirrors it, ``trusted``
            for any other file of ours.
        nominal_rate: whether the time axis stands for no measured heart rate.
    """

    label_map: str | None = None
    ed_frame: int | None = None
    es_frame: int | None = None
    orientation: Orientation | None = None
    nominal_rate: bool = False

    @property
    def cells(self) -> dict[str, str]:
        """The facts that ``subjects.csv`` has columns for, under their names."""
        facts = {"label_map": self.label_map, "ed_frame": self.ed_frame, "es_frame": self.es_frame}
        return {name: str(value) for name, value in facts.items() if value is not None}


def read_heart_facts(folder: str | Path) -> HeartFacts:
    """Read ``parameters.json`` of a heart's folder; without one nothing is known.

    Raises:
        CardiogenError: C36 for a file that is not strict JSON or has wrong facts, C47 for one that
            cannot be read.
    """
    path = Path(folder) / _NAME
    if not path.exists() and not path.is_symlink():
        return HeartFacts()
    content = parse_json(read_small(path, code="C36"), path, code="C36")
    name = _part(content, "label_map", path).get("name")
    if name is not None and (not isinstance(name, str) or name not in LABEL_MAPS):
        raise _fault(f"{path}/label_map/name", name, f"one of {', '.join(LABEL_MAPS)}")
    frames = _part(content, "key_frames", path)
    for phase, frame in frames.items():
        if phase not in ("ED", "ES"):
            raise _fault(f"{path}/key_frames", phase, "ED and ES")
        if type(frame) is not int or not 0 <= frame < _MOST_FRAMES:
            raise _fault(f"{path}/key_frames/{phase}", frame, "a whole number from 0")
    if frames.get("ED") is not None and frames.get("ED") == frames.get("ES"):
        raise _fault(f"{path}/key_frames", frames, "two frames, or one alone")
    mirrored = _flag(content, "mirrored_world", path)
    return HeartFacts(
        label_map=name,
        ed_frame=frames.get("ED"),
        es_frame=frames.get("ES"),
        orientation="mirrored" if mirrored else None if name is None else "trusted",
        nominal_rate=_flag(content, "heart_rate_is_nominal", path),
    )


def facts_beside(file: Path) -> HeartFacts:
    """Return the facts of a single file, if it has the name that cardiogen gives label maps."""
    return read_heart_facts(file.parent) if file.name in _LABEL_FILES else HeartFacts()


def require_label_map(file: Path, given: str | None) -> str:
    """Return the map of a file's codes: the given one, else that of the facts beside it.

    Raises:
        CardiogenError: U11 if neither says it, N47 for a file that is not there.
    """
    if not file.exists():
        raise CardiogenError(
            "N47", file, found="nothing", expected="a NIfTI file", remedy="checking the path"
        )
    name = given or facts_beside(file).label_map
    if name is None:
        raise CardiogenError(
            "U11", "--label-map", found="none", expected="the map that the codes of a file follow",
            remedy="--label-map acdc, ukbb or mnms",
        )  # fmt: skip
    return name


def _flag(content: dict[str, object], key: str, path: Path) -> bool:
    """Return the truth under ``key``, False if nothing is said."""
    value = content.get(key, False)
    if not isinstance(value, bool):
        raise _fault(f"{path}/{key}", value, "true or false")
    return value


def _part(content: object, key: str, path: Path) -> dict[str, object]:
    """Return the object under ``key``, empty if there is none."""
    if not isinstance(content, dict):
        raise _fault(str(path), content, "an object with names")
    part = content.get(key, {})
    if not isinstance(part, dict):
        raise _fault(f"{path}/{key}", part, "an object with names")
    return part


def _fault(where: str, found: object, expected: str) -> CardiogenError:
    return CardiogenError(
        "C36", where, found=repr(found)[:80], expected=expected,
        remedy="the file as cardiogen wrote it, or moving it away",
    )  # fmt: skip
