"""Model bundles: a folder of weights (safetensors), description (JSON) and card (Markdown).

Nothing in a bundle is executable and nothing is ever unpickled. The bytes that are hashed are the
bytes that are used: each file is read once. ``model.json`` holds the SHA-256 of the weights, of
the card and of itself (with 64 zeros in place of that last hash): no byte can change unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cardiogen.base import CardiogenError, atomic_folder, read_bounded
from cardiogen.base.strict_json import parse_json, read_small

SCHEMA_VERSION = 1
_WEIGHTS, _DESCRIPTION, _CARD = "model.safetensors", "model.json", "card.md"
_MAX_WEIGHTS = 2 << 30
_BLANK_SHA256 = "0" * 64
_PICKLED = {".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".hdf5",
            ".onnx", ".pt2", ".bin"}  # fmt: skip
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"}

Array = NDArray[np.float32]


class Description(BaseModel):
    """What ``model.json`` says; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: int = Field(ge=1)
    kind: Literal["linear", "pca", "deformation", "mesh", "volume", "sequence"]
    name: str
    cardiogen_version: str
    architecture: dict[str, int | float | str]
    label_map: str
    condition_columns: list[str]
    condition_units: list[str]
    condition_ranges: dict[str, list[float]]
    template_sha256: str
    training_data: dict[str, int | float | str]
    licence: str
    weights_sha256: str
    card_sha256: str
    description_sha256: str
    tensors: dict[str, list[int]]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle in memory: where it came from, its description and its tensors."""

    path: Path
    description: Description
    tensors: Mapping[str, Array]


SHIPPED = ("linear", "deformation")
_DEFAULT = "deformation"


def default_bundle_path() -> Path:
    """Return the folder of the bundle that is used if none is named."""
    return _shipped(_DEFAULT)


def find_bundle(path: str | Path | None) -> Path:
    """Return the folder of a bundle: a bare name that is no file here is a shipped one's.

    ``default`` is the one that is used if none is named.
    """
    if path is None:
        return default_bundle_path()
    name = _DEFAULT if str(path) == "default" else str(path)

    return Path(path) if name not in SHIPPED or Path(path).exists() else _shipped(name)


def _shipped(name: str) -> Path:
    return Path(str(files("cardiogen.models") / "bundles" / name))


def write_bundle(
    path: str | Path,
    description: Mapping[str, object],
    tensors: Mapping[str, NDArray[np.float64]],
    card: str,
    *,
    overwrite: bool = False,
) -> Path:
    """Write a bundle as one whole folder; weights are stored as float32.

    Args:
        path: folder to make.
        description: fields of :class:`Description` but ``schema_version``, the hashes and
            ``tensors``, which are filled in here.
        tensors: name -> array.
        card: model card, Markdown.
        overwrite: whether an existing bundle may be replaced.
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in tensors.items()}
    weights = save(arrays, metadata={"format": "cardiogen"})
    full = Description(
        **dict(description),
        schema_version=SCHEMA_VERSION,
        weights_sha256=_sha256(weights),
        card_sha256=_sha256(card.encode("utf-8")),
        description_sha256=_BLANK_SHA256,
        tensors={name: list(a.shape) for name, a in sorted(arrays.items())},
    )
    text = json.dumps(full.model_dump(), indent=2, allow_nan=False) + "\n"
    text = text.replace(_BLANK_SHA256, _sha256(text.encode("utf-8")))
    with atomic_folder(path, overwrite=overwrite) as folder:
        (folder / _WEIGHTS).write_bytes(weights)
        (folder / _DESCRIPTION).write_bytes(text.encode("utf-8"))
        (folder / _CARD).write_bytes(card.encode("utf-8"))
    return Path(path)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_bundle(path: str | Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        CardiogenError: M01 unsafe format, M02 archive, M03 hash, M04 tensors that differ from the
            description, M05 non-finite weights, M06 newer schema, M07 description, M47 unreadable.
    """
    path = Path(path)
    _check_kind(path)
    weights_file, description_file, card_file = (
        _inside(path, name) for name in (_WEIGHTS, _DESCRIPTION, _CARD)
    )
    text = read_small(description_file, code="M07")
    description = _describe(parse_json(text, description_file, code="M07"), description_file)
    own = description.description_sha256
    _check_hash(text.replace(own.encode("utf-8"), _BLANK_SHA256.encode()), own, description_file)
    _check_hash(read_small(card_file, code="M07"), description.card_sha256, card_file)
    weights = read_bounded(weights_file, limit=_MAX_WEIGHTS, family="M")
    _check_hash(weights, description.weights_sha256, weights_file)
    return Bundle(path, description, _tensors(weights, description, weights_file))


def _check_hash(content: bytes, expected: str, where: Path) -> None:
    found = _sha256(content)
    if found != expected:
        raise CardiogenError(
            "M03", where, found=f"SHA-256 {found[:16]}...",
            expected=f"{expected[:16]}... as model.json says",
            remedy="the bundle as it was published: this one was damaged or changed",
        )  # fmt: skip


def _check_kind(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in _PICKLED:
        raise CardiogenError(
            "M01", path, found=f"an unsafe model format ({suffix})",
            expected="a bundle folder with model.safetensors and model.json",
            remedy="cardiogen never unpickles; convert the weights in a sandbox to safetensors",
        )  # fmt: skip
    if suffix in _ARCHIVES:
        raise CardiogenError(
            "M02", path, found="an archive", expected="a bundle folder",
            remedy="unpacking it yourself and naming the folder",
        )  # fmt: skip
    if not os.path.isdir(path):  # Path.is_dir lets a name that is too long escape as OSError
        raise CardiogenError(
            "M47", path, found="a file" if os.path.exists(path) else "nothing",
            expected="a bundle folder with model.safetensors and model.json",
            remedy="the folder that cardiogen train wrote",
        )  # fmt: skip


def _inside(folder: Path, name: str) -> Path:
    """Return a file of the bundle; a link is refused, since it may leave the folder."""
    file = folder / name
    if os.path.realpath(file) != os.path.join(os.path.realpath(folder), name):
        raise CardiogenError(
            "M04", file, found="a link to another place", expected="a plain file",
            remedy="the bundle as it was published",
        )  # fmt: skip
    return file


def _describe(content: object, where: Path) -> Description:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CardiogenError(
            "M06", where, found=f"schema version {version}",
            expected=f"at most {SCHEMA_VERSION}, which this cardiogen knows",
            remedy="a newer cardiogen",
        )  # fmt: skip
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "model.json"
        known = ", ".join(Description.model_fields)
        raise CardiogenError(
            "M07", where, found=f"{field}: {first['msg'].lower()}",
            expected=f"the fields {known}", remedy="the file as cardiogen wrote it",
        ) from error  # fmt: skip


def _tensors(weights: bytes, description: Description, where: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    # The reference parser lets a duplicate key win silently; ours does not.
    header_size = int.from_bytes(weights[:8], "little")
    if 8 + header_size <= len(weights):
        parse_json(weights[8 : 8 + header_size], where, code="M07")
    try:
        tensors = load(weights)
    except (SafetensorError, KeyError) as error:  # KeyError: a dtype that numpy lacks
        raise CardiogenError(
            "M04", where, found=str(error), expected="a safetensors file of float32 tensors",
            remedy="the bundle as it was published",
        ) from error  # fmt: skip
    found = {name: list(a.shape) for name, a in tensors.items()}
    wrong = sorted(
        name for name in found.keys() | description.tensors.keys()
        if found.get(name) != description.tensors.get(name)
        or (name in tensors and tensors[name].dtype != np.float32)
    )  # fmt: skip
    if wrong:
        raise CardiogenError(
            "M04", where, found=f"tensor {wrong[0]!r} as {found.get(wrong[0])}",
            expected=f"float32 {description.tensors.get(wrong[0])} as model.json says",
            remedy="the bundle as it was published",
        )  # fmt: skip
    broken = sorted(name for name, a in tensors.items() if not np.isfinite(a).all())
    if broken:
        raise CardiogenError(
            "M05", where, found=f"NaN or infinity in {broken[0]!r}", expected="finite weights",
            remedy="training again, with a smaller learning rate",
        )  # fmt: skip
    return tensors
