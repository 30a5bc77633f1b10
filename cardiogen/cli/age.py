"""``cardiogen age``: the same heart at other ages, as hearts differ between people."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import atomic_folder
from cardiogen.cli.age_files import write_series
from cardiogen.cli.age_series import asked_changes, moved_hearts, plan_series
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
    generated_subject,
    observed_subject,
    require_gaussian,
)
from cardiogen.cli.write import OutputOptions

if TYPE_CHECKING:
    from cardiogen.data.factors import Sex
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation
    from cardiogen.export.space import Space

_MAX_AGES = 100


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
    changes = asked_changes(to, to_sex, to_weight, loaded, allow_extrapolation)
    folder = Path(out) if out is not None else fresh_folder(given, Path.cwd())
    check_apart(folder, [*labels, *([] if model is None else [model])])
    reading = Reading(phases=phases, label_map=label_map, prefer=prefer, orientation=orientation,
                      healthy=healthy)  # fmt: skip
    # Everything that needs no fit is checked before the fit.
    if len(labels) == 1 and Path(labels[0]).is_dir():
        subject = generated_subject(Path(labels[0]), given, loaded)
        plan = plan_series(subject.factors, changes, loaded, allow_extrapolation)
    else:
        plan = plan_series(given, changes, loaded, allow_extrapolation)
        subject = observed_subject(labels, given, loaded, reading)
    series, notes = moved_hearts(subject, plan, loaded)
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        options = OutputOptions(
            space=space, formats=chosen, label_map=label_map or subject.label_map
        )
        write_series(temporary, subject, series, notes, loaded, options, frames)
    return folder
