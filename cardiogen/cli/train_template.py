"""What a deformation model of ``cardiogen train`` deforms: the population's mean or another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cardiogen.base import CardiogenError, Note
from cardiogen.cli.requests import usage_error
from cardiogen.engine.config import DeformationTraining

if TYPE_CHECKING:
    from cardiogen.models.deformation.template import DeformationTemplate

_MOST = 256  # hearts whose mean is taken
# Right ventricles of small hearts were mangled by a template 28 mm off, not by one 6 mm off.
_FAR_MM = 15.0
_NIFTI = (".nii", ".nii.gz")


def is_label_map(template: str) -> bool:
    """Whether a template's name is that of a label map."""
    return template.lower().endswith(_NIFTI)


def check_template(settings: DeformationTraining) -> None:
    """Refuse codes without a label map (U01), a map without codes (U11) and no file (N47)."""
    if is_label_map(settings.template):
        from cardiogen.data.heart_facts import require_label_map

        require_label_map(Path(settings.template), settings.template_label_map)
    elif settings.template_label_map is not None:
        raise usage_error(
            "template_label_map", f"{settings.template_label_map} beside template = "
            f"{settings.template}", "codes of a template that is a label map",
            "template = FILE.nii.gz, or leaving it out",
        )  # fmt: skip


def training_template(settings: DeformationTraining) -> DeformationTemplate:
    """Return the template that a training asks for; notes tell how it came out.

    Raises:
        CardiogenError: those of ``check_template``, of ``load_model`` for a bundle, M21 for one of
            another kind, of ``label_template`` for a label map.
    """
    from cardiogen.models.deformation.own_template import (
        distance,
        mean_template,
        population_meshes,
    )
    from cardiogen.models.deformation.template import population_template

    if settings.template == "population":
        template = population_template()
    elif is_label_map(settings.template):
        template = _of_labels(Path(settings.template), settings.template_label_map)
    else:
        template = _of_bundle(settings.template)
    name, rounds = template_name(settings), settings.template_rounds
    if not rounds and settings.template == "population":
        return template
    hearts = population_meshes(min(settings.n, _MOST), settings.seed)
    if rounds:
        template, away = mean_template(template, hearts, rounds=rounds)
        _tell(name, f"mean of {len(hearts)} hearts; the last round moved it {away:.2f} mm")
    elif (far := distance(template.vertices, hearts.mean(axis=0))) > _FAR_MM:
        _tell(name, f"{far:.0f} mm from the mean of the hearts: large velocities are needed, "
              "template_rounds = 3 in a config moves it there")  # fmt: skip

    return template


def template_facts(settings: DeformationTraining) -> dict[str, int | float | str]:
    """Return what a bundle tells of its template; nothing of the population's own."""
    if settings.template == "population" and not settings.template_rounds:
        return {}

    return {"template": template_name(settings), "template_rounds": settings.template_rounds}


def template_name(settings: DeformationTraining) -> str:
    """Return the name of a template: of a file or folder, without where it lies."""
    return Path(settings.template).resolve().name


def _of_labels(path: Path, label_map: str | None) -> DeformationTemplate:
    from cardiogen.cli.observed import read_observed
    from cardiogen.models.deformation.own_template import label_template

    seen = read_observed([path], None, label_map, None)
    template, overlap, mirrored = label_template(seen)
    found = ", ".join(f"{name} {value:.2f}" for name, value in overlap.items())
    side = "; its header mirrors the heart" if mirrored else ""
    _tell(path.name, f"Dice of the template with its label map: {found}{side}")

    return template


def _of_bundle(name: str) -> DeformationTemplate:
    from cardiogen.models.deformation.model import DeformationModel
    from cardiogen.models.store import load_model

    loaded = load_model(name)
    if not isinstance(loaded.model, DeformationModel):
        raise CardiogenError(
            "M21", loaded.bundle.path, found=f"a model of the kind {loaded.facts['kind']!r}",
            expected="a deformation model, which has a template",
            remedy="template = FILE.nii.gz, a label map of end diastole, or population",
        )  # fmt: skip

    return loaded.model.decoder.template


def _tell(where: str, text: str) -> None:
    typer.echo(f"cardiogen: note {Note('M52', where, text)}", err=True)
