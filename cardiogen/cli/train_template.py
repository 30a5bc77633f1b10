"""What a deformation model of ``cardiogen train`` deforms: the population's mean or another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cardiogen.base import CardiogenError, Note
from cardiogen.cli.requests import usage_error
from cardiogen.cli.subject import require_deformation
from cardiogen.engine.config import DeformationTraining

if TYPE_CHECKING:
    from cardiogen.models.deformation.model import DeformationModel
    from cardiogen.models.deformation.template import DeformationTemplate

_MOST = 256  # hearts whose mean is taken
_TOO_FAR_MM = 30.0  # ACDC patients reach 27, one of them at half its size 34, three slices 52
_LOOKED_AT, _FRAMES = 12, 10  # draws of a trained model, and their frames
_NIFTI = (".nii", ".nii.gz")


def is_label_map(template: str) -> bool:
    """Whether a template's name is that of a label map."""
    return template.lower().endswith(_NIFTI)


def check_template(settings: DeformationTraining) -> None:
    """Refuse codes without a label map (U01), a map without codes (U11) and no file (N47)."""
    if not settings.template.strip() or settings.template == ".":
        raise usage_error(
            "--template", settings.template or "nothing", "population, a label map or a bundle",
            "leaving it out",
        )  # fmt: skip
    if is_label_map(settings.template):
        from cardiogen.data.heart_facts import require_label_map

        require_label_map(Path(settings.template), settings.label_map)
    elif settings.label_map is not None:
        raise usage_error(
            "--label-map", f"{settings.label_map} beside the template {settings.template}",
            "codes of a template that is a label map", "--template FILE.nii.gz, or leaving it out",
        )  # fmt: skip


def training_template(settings: DeformationTraining) -> DeformationTemplate:
    """Return the template that a training asks for; notes tell how it came out.

    Raises:
        CardiogenError: those of ``check_template``, of ``load_model`` for a bundle, M21 for one of
            another kind, of ``label_template`` for a label map.
    """
    from cardiogen.measure.vertex_distance import vertex_rmse
    from cardiogen.models.deformation.own_template import mean_template, population_meshes
    from cardiogen.models.deformation.template import population_template

    if settings.template == "population":
        template = population_template()
    elif is_label_map(settings.template):
        template = _of_labels(Path(settings.template), settings)
    else:
        template = _of_bundle(settings.template)
    name, rounds = template_name(settings), settings.template_rounds
    if not rounds and settings.template == "population":
        return template
    hearts = population_meshes(min(settings.n, _MOST), settings.seed)
    if rounds:
        template, away = mean_template(template, hearts, rounds=rounds)
        _tell(name, f"mean of {len(hearts)} hearts; the last round moved it {away:.2f} mm")
    elif (far := vertex_rmse(template.vertices, hearts.mean(axis=0))) > _TOO_FAR_MM:
        raise CardiogenError(
            "M51", name, found=f"a heart {far:.0f} mm from the mean of the hearts",
            expected=f"one within {_TOO_FAR_MM:g} mm, in mm and whole",
            remedy="another heart, or --template-rounds 3, which moves it there",
        )  # fmt: skip

    return template


def tell_broken_draws(model: DeformationModel, settings: DeformationTraining) -> None:
    """Tell (M53) how many draws of a model on a template of its own break a rule."""
    import torch

    from cardiogen.base import keyed_seed
    from cardiogen.measure.mesh_validity import check_mesh
    from cardiogen.models.protocol import CONDITION_COLUMNS, frame_phases

    prior = model.prior(torch.full((len(CONDITION_COLUMNS),), torch.nan, dtype=torch.float64))
    rules = []
    for number in range(_LOOKED_AT):
        key = keyed_seed(settings.seed, "train/look", number)
        latent = prior.sample(torch.Generator().manual_seed(key))
        found = check_mesh(model.decode(latent, frame_phases(_FRAMES)), model.topology)
        rules += [found[0].rule] if found else []
    if rules:
        text = (
            f"{len(rules)} of {_LOOKED_AT} draws break a rule ({', '.join(sorted(set(rules)))}): "
            "a template nearer to the hearts breaks fewer; --template-rounds 3 moves it there"
        )
        typer.echo(f"cardiogen: note {Note('M53', template_name(settings), text)}", err=True)


def template_licence(settings: DeformationTraining, usual: str) -> str:
    """Return the licence of a model: that of its template, if it is not the population's.

    A heart that others may not have is told by the vertices of a template.
    """
    if settings.template == "population":
        return usual
    if is_label_map(settings.template):
        return f"that of its template, {template_name(settings)}"
    from cardiogen.models.store import load_model

    return load_model(settings.template).bundle.description.licence


def template_facts(settings: DeformationTraining) -> dict[str, int | float | str]:
    """Return what a bundle tells of its template; nothing of the population's own."""
    if settings.template == "population" and not settings.template_rounds:
        return {}

    return {"template": template_name(settings), "template_rounds": settings.template_rounds}


def template_name(settings: DeformationTraining) -> str:
    """Return the name of a template: of a file or folder, without where it lies."""
    return Path(settings.template).resolve().name


def _of_labels(path: Path, settings: DeformationTraining) -> DeformationTemplate:
    from cardiogen.cli.observed import read_observed
    from cardiogen.models.deformation.own_template import label_template

    seen = read_observed([path], None, settings.label_map, None)
    seen = seen.with_(orientation=settings.orientation or seen.orientation)
    made = label_template(seen)
    for note in made.notes:
        typer.echo(f"cardiogen: note {note}", err=True)
    if len(seen) > 1:
        _tell(path.name, f"frame {seen.ed + 1} of {len(seen)} is taken for end diastole")
    found = ", ".join(f"{name} {value:.2f}" for name, value in made.overlap.items())
    side = "mirrors" if made.mirrored else "does not mirror"
    _tell(path.name, f"Dice of the template with its label map: {found}; its header {side} the "
          "heart (--orientation tells it instead)")  # fmt: skip

    return made.template


def _of_bundle(name: str) -> DeformationTemplate:
    from cardiogen.models.store import load_model

    loaded = load_model(name)
    remedy = "template = FILE.nii.gz, a label map of end diastole, or population"

    return require_deformation(loaded, remedy).decoder.template


def _tell(where: str, text: str) -> None:
    typer.echo(f"cardiogen: note {Note('M52', where, text)}", err=True)
