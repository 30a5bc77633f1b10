"""Trained networks to and from a folder: weights (safetensors) and description (JSON).

Nothing in it is executable and nothing is unpickled. The description holds the SHA-256 of the
weights; the bytes that are hashed are the bytes that are used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from augment.segmentation.config import (
    ImageConfig,
    NetworkConfig,
    PredictionConfig,
    check_patch,
)
from augment.segmentation.prepare import CLASSES
from augment.segmentation.unet import UNet
from cardiogen import __version__
from cardiogen.base import CardiogenError, atomic_folder, read_bounded, write_json
from cardiogen.base.strict_json import parse_json, read_small
from cardiogen.data import Structure

SCHEMA_VERSION = 1
_WEIGHTS, _DESCRIPTION = "network.safetensors", "network.json"
_MAX_WEIGHTS = 1 << 30


class Description(BaseModel):
    """What ``network.json`` says; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = Field(ge=1, le=SCHEMA_VERSION)
    cardiogen_version: str
    structures: list[str]
    image: ImageConfig
    network: NetworkConfig
    prediction: PredictionConfig
    training: dict[str, int | float | str]
    weights_sha256: str


@dataclass(frozen=True, eq=False)
class StoredNetwork:
    """A network in evaluation mode, and what its folder says of it."""

    network: UNet
    description: Description


def build_network(config: NetworkConfig) -> UNet:
    """Return an untrained network of one channel and the four classes."""
    return UNet(
        1, CLASSES, widths=config.widths, deep_supervision=config.deep_supervision
    )  # fmt: skip


def save_network(
    path: str | Path,
    network: UNet,
    *,
    image: ImageConfig,
    config: NetworkConfig,
    prediction: PredictionConfig,
    training: dict[str, int | float | str],
    overwrite: bool = False,
) -> Path:
    """Write a network as one whole folder.

    Args:
        path: folder to make.
        network: its weights are stored as they are.
        image: lattice and normalization that it was trained with.
        config: its size.
        prediction: how whole images are segmented with it.
        training: facts of the training, for the record.
        overwrite: whether an existing network may be replaced.
    """
    from safetensors.torch import save

    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    weights = save(tensors, metadata={"format": "cardiogen"})
    description = Description(
        schema_version=SCHEMA_VERSION,
        cardiogen_version=__version__,
        structures=[s.name for s in Structure],
        image=image,
        network=config,
        prediction=prediction,
        training=training,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    with atomic_folder(path, overwrite=overwrite) as folder:
        (folder / _WEIGHTS).write_bytes(weights)
        write_json(folder / _DESCRIPTION, description.model_dump(mode="json"))
    return Path(path)


def load_network(path: str | Path) -> StoredNetwork:
    """Read and verify a network.

    Raises:
        CardiogenError: M03 for weights that were changed, M04 for tensors that do not fit, M05 for
            weights that are not finite, M07 for a description that is none, M47 unreadable.
    """
    path = Path(path)
    _check_folder(path)
    description = _describe(path / _DESCRIPTION)
    weights = read_bounded(path / _WEIGHTS, limit=_MAX_WEIGHTS, family="M")
    found = hashlib.sha256(weights).hexdigest()
    if found != description.weights_sha256:
        raise CardiogenError(
            "M03", path / _WEIGHTS, found=f"SHA-256 {found[:16]}...",
            expected=f"{description.weights_sha256[:16]}... as {_DESCRIPTION} says",
            remedy="the folder as it was written: this one was damaged or changed",
        )  # fmt: skip
    # Without memory, until the weights prove to be as large as the description says.
    with torch.device("meta"):
        network = build_network(description.network)
    network.load_state_dict(_tensors(weights, network, path / _WEIGHTS), assign=True)
    return StoredNetwork(network.eval().requires_grad_(False), description)


def _check_folder(path: Path) -> None:
    """Refuse (M47) what is no folder of a network, such as the folder of the whole training."""
    if (path / _DESCRIPTION).is_file():
        return
    inner = path / "network"
    raise CardiogenError(
        "M47", path, found=f"no {_DESCRIPTION}",
        expected="the folder network that cardiogen train-segmentation wrote",
        remedy=str(inner) if (inner / _DESCRIPTION).is_file() else "checking the path",
    )  # fmt: skip


def _describe(file: Path) -> Description:
    content = parse_json(read_small(file, code="M07"), file, code="M07")
    try:
        described = Description.model_validate(content)
        if described.structures != [s.name for s in Structure]:
            raise ValueError(f"structures: {described.structures}")
        check_patch(described.image, described.network)
    except ValueError as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        place = ".".join(map(str, first["loc"])) or "content" if first else ""
        found = f"{place}: {first['msg']}" if first else str(error)
        raise CardiogenError(
            "M07", file, found=found, expected="a network's description as cardiogen wrote it",
            remedy="the folder that cardiogen train-segmentation wrote",
        ) from error  # fmt: skip
    return described


def _tensors(weights: bytes, network: UNet, where: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(weights)
    except SafetensorError as error:
        raise CardiogenError(
            "M04", where, found=str(error), expected="a safetensors file", remedy="training again"
        ) from error
    wanted = {name: (t.shape, t.dtype) for name, t in network.state_dict().items()}
    found = {name: (t.shape, t.dtype) for name, t in tensors.items()}
    wrong = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
    if wrong:
        raise CardiogenError(
            "M04", where, found=f"tensor {wrong[0]!r} as {found.get(wrong[0])}",
            expected=f"{wanted.get(wrong[0])}", remedy="the folder as it was written",
        )  # fmt: skip
    broken = sorted(name for name, t in tensors.items() if not torch.isfinite(t).all())
    if broken:
        raise CardiogenError(
            "M05", where, found=f"NaN or infinity in {broken[0]!r}", expected="finite weights",
            remedy="training again, with a smaller learning rate",
        )  # fmt: skip
    return tensors
