"""Models to and from bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cardiogen import __version__
from cardiogen.base import CardiogenError
from cardiogen.engine.bundle import Bundle, default_bundle_path, read_bundle, write_bundle
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.cycle import ED_BLOCK, HARMONICS, VECTOR_SIZE
from cardiogen.models.linear import LinearModel, LinearWeights
from cardiogen.models.protocol import CONDITION_COLUMNS, CONDITION_UNITS, AnatomyModel
from cardiogen.population.template import template_topology


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and the facts that outputs record of it."""

    model: AnatomyModel
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


def save_linear(
    path: str | Path,
    weights: LinearWeights,
    *,
    name: str,
    training_data: dict[str, int | float | str],
    licence: str,
    card: str,
    overwrite: bool = False,
) -> Path:
    """Write a linear model as a bundle."""
    names = [column for column in CONDITION_COLUMNS if column != "sex"]
    ranges = dict(zip(names, weights.latents.factor_range.tolist(), strict=True))
    description = {
        "kind": "linear",
        "name": name,
        "cardiogen_version": __version__,
        "architecture": {
            "ed_modes": len(weights.ed_modes),
            "motion_modes": len(weights.motion_modes),
            "harmonics": HARMONICS,
            "cycle_vector": VECTOR_SIZE,
        },
        "label_map": "ukbb",
        "condition_columns": list(CONDITION_COLUMNS),
        "condition_units": list(CONDITION_UNITS),
        "condition_ranges": ranges,
        "template_sha256": template_sha256(),
        "training_data": training_data,
        "licence": licence,
    }
    return write_bundle(path, description, weights.tensors(), card, overwrite=overwrite)


def _linear(bundle: Bundle) -> LinearModel:
    names = set(LinearWeights.names())
    if set(bundle.tensors) != names:
        odd = sorted(names ^ set(bundle.tensors))
        raise CardiogenError(
            "M04", bundle.path, found=f"tensors missing or unknown: {', '.join(odd)}",
            expected=f"{', '.join(sorted(names))}", remedy="the bundle as it was published",
        )  # fmt: skip
    for tensor, shape in _linear_shapes(bundle).items():
        if bundle.tensors[tensor].shape != shape:
            raise CardiogenError(
                "M04", bundle.path, found=f"{tensor} of shape {bundle.tensors[tensor].shape}",
                expected=f"{shape}, as this cardiogen uses", remedy="training the model again",
            )  # fmt: skip
    model = LinearModel(
        LinearWeights.from_tensors({n: a.astype(np.float64) for n, a in bundle.tensors.items()})
    )
    _require_heart(model, bundle)
    return model


def _linear_shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """Return the shape that every tensor must have, given the numbers of modes."""
    ed, motion = (len(np.atleast_1d(bundle.tensors[f"{n}_modes"])) for n in ("ed", "motion"))
    z, ed_size = ed + motion, ED_BLOCK.stop - ED_BLOCK.start
    return {
        "mean": (VECTOR_SIZE,),
        "scale": (VECTOR_SIZE,),
        "ed_modes": (ed, ed_size),
        "motion_modes": (motion, VECTOR_SIZE - ed_size),
    } | ConditionalGaussian.shapes(z)


def _require_heart(model: LinearModel, bundle: Bundle) -> None:
    """Refuse finite weights that describe no distribution or no heart (M04)."""
    unknown = torch.full((len(CONDITION_COLUMNS),), float("nan"), dtype=torch.float64)
    try:
        with np.errstate(all="ignore"):
            prior = model.prior(unknown)
            model.decode(prior.mean, [0.0])
            np.linalg.cholesky(model.weights.latents.factor_covariance)
            np.linalg.cholesky(prior.covariance.numpy())
    except ValueError as error:  # LinAlgError is one
        raise CardiogenError(
            "M04", bundle.path, found=f"weights that describe no heart ({error})",
            expected="the weights of a trained model", remedy="the bundle as it was published",
        ) from error  # fmt: skip


# Kind in model.json -> how to make the model.
_MODELS: dict[str, Callable[[Bundle], AnatomyModel]] = {"linear": _linear}


def load_model(path: str | Path | None = None) -> LoadedModel:
    """Load a model from a bundle; without ``path``, the one inside the package.

    Raises:
        CardiogenError: see ``engine.read_bundle``; M04 if template or conditions differ, or if the
            weights describe no heart.
    """
    bundle = read_bundle(default_bundle_path() if path is None else path)
    description = bundle.description
    if description.template_sha256 != template_sha256():
        raise CardiogenError(
            "M04", bundle.path, found="a model of another template",
            expected="the template of this cardiogen", remedy="training the model again",
        )  # fmt: skip
    columns = [*zip(description.condition_columns, description.condition_units, strict=False)]
    if columns != [*zip(CONDITION_COLUMNS, CONDITION_UNITS, strict=True)]:
        raise CardiogenError(
            "M04", bundle.path, found=f"conditions {columns}",
            expected=f"{', '.join(CONDITION_COLUMNS)} in {', '.join(CONDITION_UNITS)}",
            remedy="training the model again",
        )  # fmt: skip
    return LoadedModel(_MODELS[description.kind](bundle), bundle)
