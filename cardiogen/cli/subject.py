"""The subject of ``age`` and ``score``: a heart seen on label maps, or one that we generated."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, Note
from cardiogen.cli.heart_notes import chirality_notes
from cardiogen.cli.observed import read_observed
from cardiogen.cli.requests import domain_reason, usage_error
from cardiogen.data.factors import FACTORS, Factors

_DEFAULT_SPACING_MM = 1.25  # of the label maps of ``generate``
_NO_SPACING = (
    f"generated without label maps; those made here have {_DEFAULT_SPACING_MM:g} mm voxels"
)

if TYPE_CHECKING:
    from torch import Tensor

    from cardiogen.data.grid import Grid
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation, Sequence
    from cardiogen.models.deformation.model import DeformationModel
    from cardiogen.models.protocol import AnyModel, Posterior
    from cardiogen.models.store import LoadedModel
    from cardiogen.population.pose import Pose


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A heart as a latent of a model.

    Attributes:
        name: neutral name.
        factors: what is known of it.
        latent: ``(Z,)``; of an observed heart the mean of its posterior.
        model: what decodes it: of an observed heart its own, if it has one.
        pose: from the heart's frame to the world.
        grid: lattice of its label maps; None for a generated heart.
        spacing_mm: voxel size of the label maps of a generated heart; the default of ``generate``
            for one without.
        label_map: codes of its label maps.
        facts: where it comes from, for ``parameters.json``.
        notes: what was decided on the way.
    """

    name: str
    factors: Factors
    latent: Tensor
    model: AnyModel
    pose: Pose
    grid: Grid | None
    spacing_mm: float
    label_map: str
    facts: dict[str, object]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How label maps of a subject are read and fitted; see :func:`cardiogen.complete`."""

    phases: Listing[float] | None = None
    label_map: str | None = None
    prefer: Prefer | None = None
    orientation: Orientation | None = None
    healthy: bool = False


def check_domain(loaded: LoadedModel, factors: Factors, *, allow: bool) -> str | None:
    """Return why factors lie outside the training data, None if they do not.

    Raises:
        CardiogenError: D01 or D02 (exit 5) without ``allow``.
    """
    from cardiogen.models.protocol import encode_condition

    try:
        loaded.model.check_condition(encode_condition(factors))
    except CardiogenError as error:
        if not allow:
            raise
        return domain_reason(error)
    return None


def observe(
    labels: Listing[str | Path], factors: Factors, loaded: LoadedModel, reading: Reading
) -> tuple[Sequence, Posterior, tuple[Note, ...], str]:
    """Return label maps as a sequence, the posterior, notes, and the map of their codes."""
    from cardiogen.data.heart_facts import require_label_map
    from cardiogen.models.protocol import encode_condition

    seen = read_observed(labels, reading.phases, reading.label_map, reading.prefer)
    seen = seen.with_(factors=factors, orientation=reading.orientation or seen.orientation)
    posterior = loaded.model.posterior(seen, encode_condition(factors), healthy=reading.healthy)
    notes = (*seen.notes, *chirality_notes(posterior, str(labels[0])))
    return seen, posterior, notes, require_label_map(Path(labels[0]), reading.label_map)


def observed_subject(
    labels: Listing[str | Path], factors: Factors, loaded: LoadedModel, reading: Reading
) -> Subject:
    """Return the subject of label maps of any frames."""
    seen, posterior, notes, label_map = observe(labels, factors, loaded, reading)
    return Subject(
        name=seen.subject_id,
        factors=factors,
        latent=posterior.latents.mean,
        model=posterior.own or loaded.model,
        pose=posterior.pose,
        grid=seen.grid,
        spacing_mm=_DEFAULT_SPACING_MM,
        label_map=label_map,
        facts={
            "inputs": [Path(file).name for file in labels],
            "observed_phases": [float(p) for p in seen.phases],
            "healthy": reading.healthy,
            "orientation": {"given": seen.orientation, "margin": posterior.margin},
        },
        notes=notes,
    )


def generated_subject(folder: Path, given: Factors, loaded: LoadedModel) -> Subject:
    """Return the subject that ``cardiogen generate`` wrote into a folder, drawn again.

    Raises:
        CardiogenError: C36 for another folder, M04 for a heart of another model, U01 for factors
            beside those that the folder tells.
    """
    from cardiogen.base.strict_json import parse_json, read_small
    from cardiogen.models.protocol import encode_condition
    from cardiogen.population.pose import typical_pose
    from cardiogen.synthesis import draw_latent

    path = folder / "parameters.json"
    facts = parse_json(read_small(path, code="C36"), path, code="C36")
    if not isinstance(facts, dict) or facts.get("command") != "generate":
        raise _bad_folder(path, "no heart that was generated", _instead(folder))
    if given != Factors():
        raise usage_error(
            str(folder), "factors beside a generated heart", "those it was generated with",
            "leaving out --age, --sex, --height, --weight and --sbp",
        )  # fmt: skip
    seed, index = facts.get("draw_seed"), facts.get("index")
    # Null where there are meshes only; a folder that does not tell is none of ours.
    spacing, told = facts.get("spacing_mm", 0.0), facts.get("factors")
    names, model = facts.get("label_map"), facts.get("model")
    if not (
        type(seed) is int and 0 <= seed < 2**64 and type(index) is int and index >= 0
        and (spacing is None or (type(spacing) is float and 0.5 <= spacing <= 10.0))
        and all(isinstance(part, dict) for part in (told, names, model))
    ):  # fmt: skip
        raise _bad_folder(path, "facts that are missing or wrong", "the folder as it was written")
    if model.get("weights_sha256") != loaded.facts["weights_sha256"]:
        raise CardiogenError(
            "M04", path, found=f"a heart of the model {str(model.get('name'))[:80]!r}",
            expected=f"one of {loaded.facts['name']!r}", remedy="--model with its own bundle",
        )  # fmt: skip
    if facts.get("targets") or facts.get("latents_given") or facts.get("guidance", 1.0) != 1.0:
        raise _bad_folder(path, "a heart of targets, guidance or given latents", _instead(folder))
    factors = Factors.from_mapping(_known(told), where=str(path))
    return Subject(
        name=folder.resolve().name,
        factors=factors,
        latent=draw_latent(loaded.model, encode_condition(factors), seed=seed, index=index),
        model=loaded.model,
        pose=typical_pose(),
        grid=None,
        spacing_mm=_DEFAULT_SPACING_MM if spacing is None else spacing,
        label_map=str(names.get("name")),
        facts={"inputs": [folder.resolve().name], "draw_seed": seed, "index": index},
        notes=() if spacing is not None else (Note("L67", path.parent.name, _NO_SPACING),),
    )


def _instead(folder: Path) -> str:
    if (folder / "labels.nii.gz").is_file():
        return "its labels.nii.gz instead"
    return "label maps of a heart, or another folder of cardiogen generate"


def _known(told: Mapping[str, object]) -> dict[str, object]:
    return {name: told[name] for name in FACTORS if told.get(name) is not None}


def _bad_folder(path: Path, found: str, remedy: str) -> CardiogenError:
    return CardiogenError(
        "C36", path, found=found, expected="parameters.json of cardiogen generate", remedy=remedy
    )


def require_gaussian(loaded: LoadedModel) -> None:
    """Refuse a model whose latents given the factors are not Gaussian.

    Raises:
        CardiogenError: M21 (exit 4).
    """
    from cardiogen.models.conditional import ConditionalGaussian

    if not isinstance(getattr(loaded.model, "latents", None), ConditionalGaussian):
        raise CardiogenError(
            "M21", loaded.bundle.path, found=f"a model of the kind {loaded.facts['kind']!r}",
            expected="one with Gaussian latents given the factors, such as linear or deformation",
            remedy="leaving out --model",
        )  # fmt: skip


def require_deformation(loaded: LoadedModel, remedy: str) -> DeformationModel:
    """Return a deformation model, whose template and velocities others lack.

    Raises:
        CardiogenError: M21 (exit 4) for a model of another kind.
    """
    from cardiogen.models.deformation.model import DeformationModel

    if not isinstance(loaded.model, DeformationModel):
        raise CardiogenError(
            "M21", loaded.bundle.path, found=f"a model of the kind {loaded.facts['kind']!r}",
            expected="a deformation model", remedy=remedy,
        )  # fmt: skip

    return loaded.model
