"""Training on a cohort of label maps: a deformation model adapted to its hearts."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path

import typer

from cardiogen.base import CardiogenError, Note, progress
from cardiogen.base.errors import printable
from cardiogen.cli.requests import check_apart
from cardiogen.cli.subject import require_deformation
from cardiogen.data.cohort import load_sequence, read_cohort
from cardiogen.data.sequence import Orientation, Sequence
from cardiogen.engine.config import DeformationTraining
from cardiogen.models.deformation.cohort import encode_cohort, observed_codes, require_enough
from cardiogen.models.deformation.cohort_model import adapt
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.store import LoadedModel, load_model, save_model

_REASONS = 3  # that the refusal of a cohort tells; the rest are alike or told by the check
_LICENCE = "that of the cohort it was trained on"

_CARD = """# Model card: {name}

| | |
| --- | --- |
| kind | deformation: a template moved by exponentials of smooth velocities |
| prior | {base}, weights {sha:.12} |
| adapted to | {used} subjects of the cohort {cohort}; {left} could not be used |
| motion | a Gaussian process of the shape at end diastole (length {length:g}, noise {noise:g}) |
| left and right | {sides} |
| conditions | as the prior; what factors do was not learned again |
| size | {scores} scores |
| licence | {licence} |

{few}Features and motion scores of the subjects are part of the weights: treat the bundle as you
treat the cohort. Subjects that could not be used:

{faults}

Not for diagnosis.
"""
_FEW = """Fewer subjects ({used}) than twice the scores ({scores}): where the cohort says nothing
the spread is the population's, and intervals are rough.

"""


def train_on_cohort(settings: DeformationTraining, out: Path, *, overwrite: bool) -> Path:
    """Adapt a deformation model to a cohort folder and write its bundle.

    Args:
        settings: with a folder as ``cohort``, at most ``n`` subjects of which are used.
        out: bundle folder to make.
        overwrite: whether ``out`` may be replaced.

    Raises:
        CardiogenError: M21 if ``base`` is no deformation model, those of ``read_cohort``, C28 for
            fewer than five subjects with ED and another frame.
    """
    base = load_model(settings.base)
    require_deformation(
        base, "base = BUNDLE in the config, from cardiogen train --config deformation"
    )
    folder = Path(settings.cohort)
    check_apart(out, [folder, base.bundle.path])
    hearts, faults = _read(folder, settings.n, settings.orientation)
    # Before minutes of encoding, not after them.
    _require_enough(len(hearts), faults, folder)
    encoded, more = encode_cohort(base.model, hearts)
    faults += [_left_out(heart.subject_id, error) for heart, error in more]
    _require_enough(len(encoded), faults, folder)
    for fault in faults:
        typer.echo(f"cardiogen: note {fault}", err=True)
    sides = _sides([heart for heart, _ in encoded], settings.orientation)
    model = adapt(base.model, observed_codes(base.model, encoded))
    if len(encoded) < 2 * model.latent_size:
        text = _FEW.format(used=len(encoded), scores=model.latent_size)
        typer.echo("cardiogen: note C28 " + " ".join(text.split()), err=True)
    name = f"deformation-{folder.resolve().name}-{len(encoded)}"
    licence = f"{_LICENCE}; of its prior: {base.bundle.description.licence}"
    return save_model(
        out, model, name=name, licence=licence, overwrite=overwrite,
        card=_card(name, model, base, folder, sides, faults, licence),
        training_data={
            "cohort": folder.resolve().name, "n": len(encoded), "left_out": len(faults),
            "base": base.facts["weights_sha256"],
        },
    )  # fmt: skip


def _read(
    folder: Path, most: int, orientation: Orientation | None
) -> tuple[list[Sequence], list[Note]]:
    """Return the subjects with label maps of ED and another frame, and why others have none."""
    hearts, faults = [], []
    for subject in progress(read_cohort(folder)[:most], "reading"):
        try:
            heart = load_sequence(subject)
        except CardiogenError as error:
            faults.append(_left_out(subject.subject_id, error))
            continue
        if heart.labels is None or len(heart) < 2:
            faults.append(Note("C28", subject.subject_id, "left out: label maps of one frame"))
            continue
        hearts.append(heart.with_(orientation=orientation or heart.orientation))
    return hearts, faults


def _left_out(subject_id: str, error: CardiogenError) -> Note:
    text = f"left out: found {error.found}; expected {error.expected}; try {error.remedy}"
    return Note(error.code, subject_id, text)


def _require_enough(count: int, faults: Listing[Note], folder: Path) -> None:
    """Refuse (C28) fewer than five subjects, with the first reasons why others were left out."""
    try:
        require_enough(count)
    except CardiogenError as error:
        if not faults:
            raise
        told = [str(fault).partition("; expected")[0] for fault in faults[:_REASONS]]
        rest = len(faults) - len(told)
        told += [f"{rest} more left out"] if rest else []
        raise CardiogenError(
            error.code, folder, found=f"{error.found} ({'; '.join(told)})",
            expected=error.expected, remedy=f"cardiogen check {folder}, or {error.remedy}",
        ) from error  # fmt: skip


def _sides(hearts: list[Sequence], orientation: Orientation | None) -> str:
    """Return who decided whether headers mirror hearts; what fits decided is told at once."""
    # The same note in every heart that took part.
    decided = dict.fromkeys(n.text for heart in hearts for n in heart.notes if n.code == "L63")
    for text in decided:
        typer.echo(f"cardiogen: note L63 {printable(text)}", err=True)

    return printable("; ".join(decided) or orientation or "as the headers say")


def _card(
    name: str,
    model: DeformationModel,
    base: LoadedModel,
    folder: Path,
    sides: str,
    faults: Listing[Note],
    licence: str,
) -> str:
    used, scores = len(model.cohort.cohort_features), model.latent_size
    length, noise = model.cohort.cohort_kernel
    few = _FEW.format(used=used, scores=scores) if used < 2 * scores else ""

    return _CARD.format(
        name=name, base=base.facts["name"], sha=base.facts["weights_sha256"], used=used,
        cohort=folder.resolve().name, left=len(faults), length=length, noise=noise, scores=scores,
        sides=sides, licence=licence, few=few,
        faults="\n".join(f"- {f}" for f in faults) or "None.",
    )  # fmt: skip
