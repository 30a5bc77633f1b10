"""Models to and from bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen import __version__
from cardiogen.base import CardiogenError
from cardiogen.engine.bundle import Array, Bundle, find_bundle, read_bundle, write_bundle
from cardiogen.models.deformation.tensors import (
    deformation_from_tensors,
    tensor_names,
    tensor_shapes,
)
from cardiogen.models.linear import LinearModel, LinearWeights
from cardiogen.models.protocol import (
    CONDITION_COLUMNS,
    CONDITION_UNITS,
    AnatomyModel,
    AnyModel,
    LabelModel,
    gives_labels,
)
from cardiogen.population.template import template_topology

_LARGEST_MM = 500.0
_BEATING = 0.35  # a phase at which hearts have moved


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and the facts that outputs record of it."""

    model: AnyModel
    bundle: Bundle

    @property
    def facts(self) -> dict[str, str]:
        """Name, kind and hash for ``parameters.json``."""
        description = self.bundle.description
        return {
            "name": description.name,
            "kind": description.kind,
            "weights_sha256": description.weights_sha256,
            "cardiogen_version": description.cardiogen_version,
        }


def template_sha256() -> str:
    """Return the hash of the template's topology: vertex numbers mean nothing on another one."""
    digest = hashlib.sha256()
    topology = template_topology()
    for surface, faces in sorted(topology.surfaces.items()):
        digest.update(f"{surface.name}{faces.shape}".encode())
        digest.update(np.ascontiguousarray(faces, dtype="<i8").tobytes())
    return digest.hexdigest()


class StoredModel(Protocol):
    """What a model must tell to be written."""

    kind: str

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value seen of every continuous factor."""

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """Return everything that was learned, by name."""

    def architecture(self) -> dict[str, int | float | str]:
        """Return the numbers that describe the model."""


def save_model(
    path: str | Path,
    model: StoredModel,
    *,
    name: str,
    training_data: dict[str, int | float | str],
    licence: str,
    card: str,
    overwrite: bool = False,
) -> Path:
    """Write a model as a bundle."""
    description = {
        "kind": model.kind,
        "name": name,
        "cardiogen_version": __version__,
        "architecture": model.architecture(),
        "label_map": "ukbb",
        "condition_columns": list(CONDITION_COLUMNS),
        "condition_units": list(CONDITION_UNITS),
        "condition_ranges": model.condition_ranges(),
        "template_sha256": "" if model.kind in _LABEL_KINDS else template_sha256(),
        "training_data": training_data,
        "licence": licence,
    }
    return write_bundle(path, description, model.tensors(), card, overwrite=overwrite)


def _linear(bundle: Bundle) -> AnatomyModel:
    tensors = _checked(bundle, LinearWeights.names(), _linear_shapes)

    model = LinearModel(LinearWeights.from_tensors(tensors))
    model.latents.require_positive()

    return model


def _linear_shapes(tensors: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    ed, motion = (len(np.atleast_1d(tensors[f"{n}_modes"])) for n in ("ed", "motion"))

    return LinearWeights.shapes(ed, motion)


def _deformation(bundle: Bundle) -> AnatomyModel:
    tensors = _checked(bundle, tensor_names(bundle.tensors), tensor_shapes)
    model = deformation_from_tensors(tensors, bundle.description.architecture)
    model.latents.require_positive()
    if model.strokes is not None:
        model.strokes.require_sound()
    if model.flow is not None:
        model.flow.require_sound()

    return model


def _pca(bundle: Bundle) -> AnatomyModel:
    from cardiogen.models.pca.model import PcaModel

    tensors = _checked(bundle, PcaModel.names(), PcaModel.shapes)
    model = PcaModel.from_tensors(tensors, bundle.description.architecture)
    model.latents.require_positive()

    return model


def _mesh(bundle: Bundle) -> AnatomyModel:
    from cardiogen.models.mesh.model import mesh_from_tensors

    return mesh_from_tensors(
        dict(bundle.tensors), bundle.description.architecture, topology=template_topology()
    )


def _volume(bundle: Bundle) -> LabelModel:
    from cardiogen.models.volume.model import volume_from_tensors

    return volume_from_tensors(bundle.tensors, bundle.description.architecture)


def _sequence(bundle: Bundle) -> LabelModel:
    from cardiogen.models.sequence.model import sequence_from_tensors

    return sequence_from_tensors(bundle.tensors, bundle.description.architecture)


def _checked(
    bundle: Bundle,
    names: tuple[str, ...],
    shapes_of: Callable[[Mapping[str, Array]], dict[str, tuple[int, ...]]],
) -> dict[str, NDArray[np.float64]]:
    """Return the tensors, wide, if their names and shapes are those of the model (M04)."""
    if set(bundle.tensors) != set(names):
        odd = sorted(set(names) ^ set(bundle.tensors))
        raise CardiogenError(
            "M04", bundle.path, found=f"tensors missing or unknown: {', '.join(odd)}",
            expected=f"{', '.join(sorted(names))}", remedy="the bundle as it was published",
        )  # fmt: skip
    for tensor, shape in shapes_of(bundle.tensors).items():
        if bundle.tensors[tensor].shape != shape:
            raise CardiogenError(
                "M04", bundle.path, found=f"{tensor} of shape {bundle.tensors[tensor].shape}",
                expected=f"{shape}, as this cardiogen uses", remedy="training the model again",
            )  # fmt: skip
    return {name: a.astype(np.float64) for name, a in bundle.tensors.items()}


def require_sound(model: AnyModel) -> None:
    """Refuse (ValueError) finite weights that describe no distribution or no heart."""
    if gives_labels(model):
        model.require_heart()
        return
    unknown = torch.full((len(CONDITION_COLUMNS),), float("nan"), dtype=torch.float64)
    prior = model.prior(unknown)
    np.linalg.cholesky(prior.covariance.numpy())
    with np.errstate(over="ignore", invalid="ignore"):
        heart = model.decode(prior.mean, [0.0, _BEATING])
    if not (np.abs(heart) < _LARGEST_MM).all():
        raise ValueError("a heart larger than a chest")


# Kind in model.json -> how to make the model.
_MODELS: dict[str, Callable[[Bundle], AnyModel]] = {
    "linear": _linear,
    "pca": _pca,
    "deformation": _deformation,
    "mesh": _mesh,
    "volume": _volume,
    "sequence": _sequence,
}
# Models of label maps know no vertices, so that no template binds them.
_LABEL_KINDS = ("volume", "sequence")


def load_model(path: str | Path | None = None) -> LoadedModel:
    """Load a model from a bundle, or a shipped one: ``linear``, ``deformation`` or ``default``.

    Raises:
        CardiogenError: see ``engine.read_bundle``; M04 if template or conditions differ, or if the
            weights describe no heart.
    """
    bundle = read_bundle(find_bundle(path))
    description = bundle.description
    template = "" if description.kind in _LABEL_KINDS else template_sha256()
    if description.template_sha256 != template:
        raise CardiogenError(
            "M04", bundle.path, found="a model of another template",
            expected="the template of this cardiogen" if template else "none: label maps",
            remedy="training the model again",
        )  # fmt: skip
    columns = [*zip(description.condition_columns, description.condition_units, strict=False)]
    if columns != [*zip(CONDITION_COLUMNS, CONDITION_UNITS, strict=True)]:
        raise CardiogenError(
            "M04", bundle.path, found=f"conditions {columns}",
            expected=f"{', '.join(CONDITION_COLUMNS)} in {', '.join(CONDITION_UNITS)}",
            remedy="training the model again",
        )  # fmt: skip
    try:
        with np.errstate(all="ignore"):
            model = _MODELS[description.kind](bundle)
            require_sound(model)
    except (KeyError, ValueError) as error:  # LinAlgError is a ValueError
        raise CardiogenError(
            "M04", bundle.path, found=f"weights that describe no heart ({error})",
            expected="the weights of a trained model", remedy="the bundle as it was published",
        ) from error  # fmt: skip
    return LoadedModel(model, bundle)
