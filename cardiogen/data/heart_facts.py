"""What the ``parameters.json`` of a generated or completed heart says of its label file.

Only what reading needs is looked at: ``label_map.name`` and ``key_frames``. Other programs use
this file name too, so a file without these keys says nothing; one with them must be right.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from cardiogen.base import CardiogenError
from cardiogen.base.strict_json import parse_json, read_small
from cardiogen.data.labels import LABEL_MAPS

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
    """

    label_map: str | None = None
    ed_frame: int | None = None
    es_frame: int | None = None

    @property
    def cells(self) -> dict[str, str]:
        """The same facts under the columns of ``subjects.csv``."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


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
    return HeartFacts(label_map=name, ed_frame=frames.get("ED"), es_frame=frames.get("ES"))


def facts_beside(file: Path) -> HeartFacts:
    """Return the facts of a single file, if it has the name that cardiogen gives label maps."""
    return read_heart_facts(file.parent) if file.name in _LABEL_FILES else HeartFacts()


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
