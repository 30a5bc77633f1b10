"""``cardiogen age``: the same heart at other ages, as hearts differ between people."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, Note, atomic_folder, atomic_write, write_json
from cardiogen.cli.requests import (
    MAX_FRAMES,
    check_apart,
    check_count,
    fresh_folder,
    request_factors,
    usage_error,
)
from cardiogen.cli.subject import (
    Reading,
    Subject,
    check_domain,
    generated_subject,
    observed_subject,
    require_gaussian,
)
from cardiogen.cli.write import OutputOptions, versions, write_one
from cardiogen.data.factors import Factors, Sex

if TYPE_CHECKING:
    from torch import Tensor

    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation
    from cardiogen.export.marks import Marks
    from cardiogen.export.space import Space
    from cardiogen.models.store import LoadedModel

_MAX_AGES = 100


@dataclass(frozen=True, eq=False, kw_only=True)
class _Shown:
    """One heart of the series: the subject itself, or what it is moved to."""

    name: str
    factors: Factors
    latent: Tensor
    outside: str | None
    moved: bool


def age(
    labels: Listing[str | Path],
    *,
    to: Listing[float] = (),
    to_sex: Sex | None = None,
    to_weight: float | None = None,
    phases: Listing[float] | None = None,
    out: str | Path | None = None,
    label_map: str | None = None,
    age: float | None = None,
    sex: str | None = None,
    height: float | None = None,
    weight: float | None = None,
    sbp: float | None = None,
    frames: int = 25,
    space: Space = "ras",
    formats: str = "all",
    prefer: Prefer | None = None,
    orientation: Orientation | None = None,
    healthy: bool = False,
    model: str | Path | None = None,
    allow_extrapolation: bool = False,
    overwrite: bool = False,
) -> Path:
    """Show a heart at other ages, keeping what sets it apart (``models.counterfactual``).

    The ages are cross-sectional: what differs between people, not what one person lives through.
    Factors that are given stay; those that are not follow the population.

    Args:
        labels: label maps as for :func:`cardiogen.complete`, or one folder of a heart that
            ``cardiogen generate`` made.
        to: ages to show, years.
        to_sex: show it as a heart of this sex.
        to_weight: show it at this weight, kg; ``weight`` must be known then.
        phases: phase of every observed frame.
        out: folder to make; by default a fresh one.
        label_map: codes of the label files.
        age, sex, height, weight, sbp: of the subject. The age must be known, since its effect is
            taken out before that of another one is put in; an unknown sex is taken as the one
            under which the heart is likelier, with a note.
        frames: frames of every cycle.
        space, formats: see :func:`cardiogen.generate`.
        prefer, orientation, healthy: see :func:`cardiogen.complete`.
        model: bundle folder; by default the one inside the package.
        allow_extrapolation: accept factors outside the training data, marked in all outputs.
        overwrite: whether ``out`` may be replaced.

    Returns:
        The folder: ``own_age_50`` with the heart as the model sees it, ``age_80`` and so on with
        the heart moved, all in the same world; ``measures.csv``, ``ages.png``, ``README.txt``.

    Raises:
        CardiogenError: U01 (exit 2) for an unknown age, D01 or D02 (exit 5) for a subject or a
            target outside the training data.
    """
    from cardiogen.export.heart import parse_formats
    from cardiogen.models.store import load_model

    check_count("--frames", frames, MAX_FRAMES)
    chosen = parse_formats(formats)
    given = request_factors(age=age, sex=sex, height=height, weight=weight, sbp=sbp)
    if not to and to_sex is None and to_weight is None:
        raise usage_error("--to", "no age", "an age to show the heart at", "--to 80")
    if len(to) > _MAX_AGES or len(set(to)) < len(to):
        raise usage_error("--to", f"{len(to)} ages", f"up to {_MAX_AGES}, no two alike", "--to 80")
    loaded = load_model(model)
    require_gaussian(loaded)
    for target in to or (None,):
        _target(Factors(), loaded, target, to_sex, to_weight, allow_extrapolation)
    folder = Path(out) if out is not None else fresh_folder(given, Path.cwd())
    check_apart(folder, [*labels, *([] if model is None else [model])])
    reading = Reading(phases=phases, label_map=label_map, prefer=prefer, orientation=orientation,
                      healthy=healthy)  # fmt: skip
    # Everything that needs no fit is checked before the fit.
    if len(labels) == 1 and Path(labels[0]).is_dir():
        subject = generated_subject(Path(labels[0]), given, loaded)
    else:
        _plan(given, loaded, to, to_sex, to_weight, allow_extrapolation)
        subject = observed_subject(labels, given, loaded, reading)
    series, notes = _series(subject, loaded, to, to_sex, to_weight, allow_extrapolation)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        options = OutputOptions(
            space=space, formats=chosen, label_map=label_map or subject.label_map
        )
        _write(temporary, subject, series, notes, loaded, options, frames)
    return folder


def _plan(
    given: Factors,
    loaded: LoadedModel,
    to: Listing[float],
    to_sex: Sex | None,
    to_weight: float | None,
    allow: bool,
) -> list[tuple[str, Factors, str | None]]:
    """Return name, factors and extrapolation of the subject and of every target, in order."""
    if given.age is None:
        raise usage_error(
            "--age", "a subject of unknown age", "the age at which the heart was seen: its effect "
            "is taken out before that of another age is put in", "--age with it",
        )  # fmt: skip
    if to_weight is not None and given.weight is None:
        raise usage_error(
            "--to-weight", "a subject of unknown weight", "the weight it had", "--weight with it"
        )
    plan = [(f"own_age_{given.age:g}", given, check_domain(loaded, given, allow=allow))]
    for target in to or (given.age,):
        factors, outside = _target(given, loaded, target, to_sex, to_weight, allow)
        name = f"age_{target:g}"
        name += "" if to_sex is None else f"_{factors.sex}"
        name += "" if to_weight is None else f"_{to_weight:g}kg"
        plan.append((name, factors, outside))
    return plan


def _target(
    given: Factors,
    loaded: LoadedModel,
    age: float | None,
    sex: Sex | None,
    weight: float | None,
    allow: bool,
) -> tuple[Factors, str | None]:
    """Return given factors with those of a target, and their extrapolation.

    Raises:
        CardiogenError: U01, D01 or D02 at the option that asked for it.
    """
    try:
        changed = request_factors(age=age, weight=weight, sex=sex)
        factors = replace(
            given, age=changed.age, sex=changed.sex or given.sex,
            weight=changed.weight or given.weight,
        )  # fmt: skip
        return factors, check_domain(loaded, factors, allow=allow)
    except CardiogenError as error:
        flags = {"--weight": "--to-weight", "--sex": "--to-sex"}
        if age is not None:
            flags |= dict.fromkeys(("--age", "age"), f"--to {age:g}")
        raise error.at(flags.get(error.where, error.where)) from error


def _series(
    subject: Subject,
    loaded: LoadedModel,
    to: Listing[float],
    to_sex: Sex | None,
    to_weight: float | None,
    allow: bool,
) -> tuple[list[_Shown], tuple[Note, ...]]:
    """Return the heart at its own age and at all others."""
    from cardiogen.models.counterfactual import counterfactual, likely_sex
    from cardiogen.models.protocol import encode_condition

    plan = _plan(subject.factors, loaded, to, to_sex, to_weight, allow)
    latents, notes = loaded.model.latents, list(subject.notes)
    own = likely_sex(latents, subject.latent, encode_condition(subject.factors))
    if subject.factors.sex is None:
        found = "M" if own[1] else "F"
        text = f"unknown; taken as {found}, under which this heart is likelier"
        notes.append(Note("D05", "--sex", text))
    shown = []
    for number, (name, factors, outside) in enumerate(plan):
        moved = counterfactual(
            latents, subject.latent, given=own, wanted=encode_condition(factors)
        )
        if not subject.model.is_possible(moved):
            raise CardiogenError(
                "D03", name, found="a heart that ejects more than it holds, or whose shape folds",
                expected="a heart", remedy="a target nearer to the subject's own factors",
            )  # fmt: skip
        shown.append(_Shown(name=name, factors=factors, latent=moved, moved=number > 0,
                            outside=outside or plan[0][2]))  # fmt: skip
    return shown, tuple(notes)


def _write(
    folder: Path,
    subject: Subject,
    series: Listing[_Shown],
    notes: tuple[Note, ...],
    loaded: LoadedModel,
    options: OutputOptions,
    frames: int,
) -> None:
    from cardiogen.export.ages import CROSS_SECTIONAL, LONGITUDINAL
    from cardiogen.export.marks import Marks
    from cardiogen.export.tables import subject_row, write_measures
    from cardiogen.models.protocol import frame_phases
    from cardiogen.synthesis import decode_sequence, with_labels

    common = {
        "command": "age",
        **subject.facts,
        "own_factors": subject.factors.as_dict(),
        "cross_sectional": True,
        "caveat": CROSS_SECTIONAL,
        "longitudinal_change_per_decade": LONGITUDINAL,
        "mirrored_world": subject.pose.mirrored,
        "notes": [str(note) for note in notes],
        "model": loaded.facts,
    }
    rows, found = [], []
    for shown in series:
        sequence = with_labels(
            decode_sequence(
                subject.model, shown.latent, frame_phases(frames), pose=subject.pose,
                factors=shown.factors, subject_id=shown.name,
            ),
            subject.pose, grid=subject.grid, spacing_mm=subject.spacing_mm,
        )  # fmt: skip
        (folder / shown.name).mkdir()
        facts = {"moved": shown.moved, "extrapolated": shown.outside is not None,
                 "extrapolation_reason": shown.outside}  # fmt: skip
        measures = write_one(
            folder / shown.name, sequence, parameters=common | facts, options=options
        )
        marks = Marks(synthetic=True, extrapolated=shown.outside is not None,
                      cross_sectional=True)  # fmt: skip
        rows.append(subject_row(shown.name, shown.factors, measures, marks=marks))
        found.append(measures)
    write_measures(folder / "measures.csv", rows)
    outside = any(shown.outside is not None for shown in series)
    marks = Marks(synthetic=True, extrapolated=outside, cross_sectional=True)
    if "png" in options.formats:
        _write_figure(folder, subject, series, found, marks)
    write_json(folder / "parameters.json", common | marks.flags | {
        "hearts": [shown.name for shown in series], "versions": versions(),
    })  # fmt: skip
    _write_readme(folder, series)


def _write_figure(
    folder: Path,
    subject: Subject,
    series: Listing[_Shown],
    measures: Listing[dict[str, float]],
    marks: Marks,
) -> None:
    """Draw measures against age; healthy ranges only where all hearts have one sex."""
    from cardiogen.export.ages import MEASURES, write_ages

    sexes = {shown.factors.sex for shown in series}
    write_ages(
        folder / "ages.png",
        [shown.factors.age for shown in series],
        {name: [found[name] for found in measures] for name in MEASURES},
        sex=sexes.pop() if len(sexes) == 1 else None,
        title=f"{subject.name}, seen at {subject.factors.age:g} years",
        marks=marks,
    )


def _write_readme(folder: Path, series: Listing[_Shown]) -> None:
    from textwrap import wrap

    from cardiogen.export.ages import CROSS_SECTIONAL

    names = ", ".join(f"{shown.name}/" for shown in series[1:])
    lines = [
        "One heart under several factors, SYNTHETIC: made by a model of cardiogen.",
        *wrap(CROSS_SECTIONAL, 95),
        "",
        f"{series[0].name}/  The heart as it was seen, completed by the model.",
        f"{names}  The same heart moved: what sets it apart from people like it is kept.",
        "measures.csv      Volumes, mass and ejection fractions of all of them.",
        "ages.png          The same as a picture.",
        "parameters.json   All inputs and versions.",
    ]
    with atomic_write(folder / "README.txt") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
