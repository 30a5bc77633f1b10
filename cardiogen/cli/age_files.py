"""The files of ``cardiogen age``: a folder a heart, and what compares them."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import Note, atomic_write, write_json
from cardiogen.cli.age_series import Shown
from cardiogen.cli.heart_notes import broken_rules, stroke_notes
from cardiogen.cli.subject import Subject
from cardiogen.cli.write import OutputOptions, versions, write_one

if TYPE_CHECKING:
    from cardiogen.export.marks import Marks
    from cardiogen.models.store import LoadedModel


def write_series(
    folder: Path,
    subject: Subject,
    series: Listing[Shown],
    notes: tuple[Note, ...],
    loaded: LoadedModel,
    options: OutputOptions,
    frames: int,
) -> None:
    """Write the hearts, their measures and what they mean into an existing folder."""
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
        "model": loaded.facts,
    }
    rows, found, told = [], [], list(notes)
    for shown in series:
        sequence = with_labels(
            decode_sequence(
                subject.model, shown.latent, frame_phases(frames), pose=subject.pose,
                factors=shown.factors, subject_id=shown.name,
            ),
            subject.pose, grid=subject.grid, spacing_mm=subject.spacing_mm,
        )  # fmt: skip
        (folder / shown.name).mkdir()
        broken = [*broken_rules(sequence, shown.name), *stroke_notes(sequence, shown.name)]
        told += broken
        facts = {"moved": shown.moved, "extrapolated": shown.outside is not None,
                 "extrapolation_reason": shown.outside,
                 "notes": [str(note) for note in (*notes, *broken)]}  # fmt: skip
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
        "notes": [str(note) for note in told], "hearts": [shown.name for shown in series],
        "versions": versions(),
    })  # fmt: skip
    _write_readme(folder, series)


def _write_figure(
    folder: Path,
    subject: Subject,
    series: Listing[Shown],
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


def _write_readme(folder: Path, series: Listing[Shown]) -> None:
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
