"""Save and load transforms, bit by bit: one safetensors file, its description as JSON inside.

The header's metadata hold one text, ``cardiogen_transform``: kind, grid and settings as JSON;
parts of a composition nest. Nothing in the file is executable.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from cardiogen.base import CardiogenError, atomic_write, read_bounded
from cardiogen.base.strict_json import parse_json
from cardiogen.data.grid import Grid
from cardiogen.transforms.base import ParametricTransform, Transform
from cardiogen.transforms.composition import Composition
from cardiogen.transforms.field import FFD, SVF, SVFFD, Displacement
from cardiogen.transforms.linear import Affine, LinearTransform, Rigid
from cardiogen.transforms.temporal import TemporalSVF

SCHEMA_VERSION = 1
DEFAULT_LIMIT = 2 << 30
_KEY = "cardiogen_transform"
_KINDS = {
    "rigid": Rigid,
    "affine": Affine,
    "displacement": Displacement,
    "ffd": FFD,
    "svf": SVF,
    "svffd": SVFFD,
    "temporal_svf": TemporalSVF,
}
Kind = Literal[
    "rigid", "affine", "displacement", "ffd", "svf", "svffd", "temporal_svf", "composition"
]


class _Description(BaseModel):
    """One transform without its numbers; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Kind
    shape: list[int] = Field(min_length=3, max_length=3)
    affine: list[list[float]] = Field(min_length=4, max_length=4)
    center: list[float] | None = None
    control_spacing: list[float] | None = None
    in_plane: bool = False
    steps: int | Literal["auto"] = "auto"
    parts: list[_Description] = []


class _File(BaseModel):
    """What the metadata of a file say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: int = Field(ge=1)
    transform: _Description


def save_transform(
    path: str | Path, transform: Transform | TemporalSVF, *, overwrite: bool = False
) -> None:
    """Write a transform with its grid and settings; ``load_transform`` gives the same bits.

    Args:
        path: destination, ``.safetensors``.
        transform: any of this package; its parameters are written as they are.
        overwrite: replace an existing file.

    Raises:
        CardiogenError: O01 if the file exists, R01 if it cannot be written.
        ValueError: for another suffix or parameters that are not finite.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path must end in .safetensors, got {path.name}")
    tensors = {
        name: t.detach().cpu().contiguous().clone() for name, t in _tensors_of(transform, "")
    }
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"parameters must be finite, got NaN or infinity in {broken[0]}")
    text = _File(schema_version=SCHEMA_VERSION, transform=_describe(transform)).model_dump_json()
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(save(tensors, metadata={_KEY: text}))


def load_transform(path: str | Path, *, limit: int = DEFAULT_LIMIT) -> Transform | TemporalSVF:
    """Read a transform; its parameters are plain tensors on the CPU (see ``trainable``).

    Args:
        path: file of ``save_transform``.
        limit: most bytes to accept.

    Raises:
        CardiogenError: S70 for what is no such file, S71 for parameters that do not fit their
            description or are not finite, S72 for a newer version, S47 unreadable, R02 too large.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = Path(path)
    content = read_bounded(path, limit=limit, family="S")
    description = _read_description(content, path)
    try:
        tensors = load(content)
        transform = _build(description.transform, tensors, "")
    except (SafetensorError, KeyError, ValueError) as error:
        raise _unfit(path, str(error)) from error
    if tensors:
        raise _unfit(path, f"a surplus tensor {min(tensors)}")
    return transform


def _tensors_of(transform: Transform | TemporalSVF, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(transform, Composition):
        for index, part in enumerate(transform.transforms):
            yield from _tensors_of(part, f"{prefix}{index}.")
    elif isinstance(transform, ParametricTransform | TemporalSVF):
        yield f"{prefix}params", transform.params
    else:
        raise ValueError(f"transform must be of this package, got {type(transform).__name__}")


def _describe(transform: Transform | TemporalSVF) -> _Description:
    grid = transform.grid
    place = {"shape": list(grid.shape), "affine": grid.affine.tolist()}
    if isinstance(transform, Composition):
        parts = [_describe(part) for part in transform.transforms]
        return _Description(kind="composition", parts=parts, **place)
    kind = next(name for name, made in _KINDS.items() if type(transform) is made)
    if isinstance(transform, LinearTransform):
        return _Description(kind=kind, center=list(transform.center), **place)
    spacing = transform.control_spacing
    return _Description(
        kind=kind,
        control_spacing=None if spacing is None else list(spacing),
        in_plane=transform.in_plane,
        steps=transform.steps if isinstance(transform, SVF | SVFFD | TemporalSVF) else "auto",
        **place,
    )


def _read_description(content: bytes, path: Path) -> _File:
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or 8 + size > len(content):
        raise _no_transform(path, "no safetensors header")
    header = parse_json(content[8 : 8 + size], path, code="S70")
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise _no_transform(path, "no description of a transform")
    told = parse_json(text.encode("utf-8"), path, code="S70")
    version = told.get("schema_version") if isinstance(told, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CardiogenError(
            "S72", path, found=f"schema version {version}",
            expected=f"at most {SCHEMA_VERSION}, which this cardiogen knows",
            remedy="a newer cardiogen",
        )  # fmt: skip
    try:
        return _File.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _no_transform(path, f"{place}: {first['msg'].lower()}") from error


def _build(told: _Description, tensors: dict[str, Tensor], prefix: str) -> Transform | TemporalSVF:
    """Return the transform that was told of, taking its tensors away from ``tensors``."""
    grid = Grid(tuple(told.shape), np.array(told.affine))
    if told.kind == "composition":
        parts = [_build(part, tensors, f"{prefix}{k}.") for k, part in enumerate(told.parts)]
        return Composition(parts, grid=grid)
    params = tensors.pop(f"{prefix}params")
    if not torch.isfinite(params).all():
        raise ValueError(f"NaN or infinity in {prefix}params")
    spacing = None if told.control_spacing is None else tuple(told.control_spacing)
    match told.kind:
        case "rigid" | "affine":
            center = None if told.center is None else tuple(told.center)
            return _KINDS[told.kind](grid, params, center=center)
        case "displacement":
            return Displacement(grid, params, in_plane=told.in_plane)
        case "svf":
            return SVF(grid, params, steps=told.steps, in_plane=told.in_plane)
    if told.kind != "temporal_svf" and spacing is None:
        raise ValueError(f"{told.kind} without control_spacing")
    if told.kind == "ffd":
        return FFD(grid, params, control_spacing=spacing, in_plane=told.in_plane)
    made = SVFFD if told.kind == "svffd" else TemporalSVF
    return made(grid, params, control_spacing=spacing, steps=told.steps, in_plane=told.in_plane)


def _no_transform(path: Path, found: str) -> CardiogenError:
    return CardiogenError(
        "S70", path, found=found, expected="a transform as cardiogen saves it (.safetensors)",
        remedy="the file that cardiogen wrote, or the reader of the file's own format",
    )  # fmt: skip


def _unfit(path: Path, found: str) -> CardiogenError:
    return CardiogenError(
        "S71", path, found=found, expected="finite parameters that fit their description",
        remedy="the file as cardiogen wrote it",
    )  # fmt: skip
