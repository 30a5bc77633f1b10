"""Measure files and folders: a label map, a closed mesh, a subject's folder or a whole cohort."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cardiogen.base import CardiogenError, Note, progress
from cardiogen.data.factors import Factors
from cardiogen.data.heart_facts import facts_beside, require_label_map
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Orientation, Sequence
from cardiogen.measure.mesh_file import closed_volume, is_mesh
from cardiogen.measure.reference import AGE_RANGE, reference_measures, z_score
from cardiogen.measure.segments import segment_table
from cardiogen.measure.volumes import measure_sequence

if TYPE_CHECKING:
    import pandas as pd

    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.subject import Layout, Subject

MESH_COLUMN = "Volume (mL)"


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured.

    Attributes:
        table: one row per subject: ``subject``, ukbb_cardiac's columns, ``LVM/LVEDV (g/mL)``; for
            meshes ``subject`` and ``Volume (mL)``.
        frames: one row per subject and frame: volumes over the cycle.
        segments: one row per subject and AHA segment at ED, if asked for, else empty.
        failures: what could not be measured, or is wrong with the cohort.
        notes: what was assumed.
    """

    table: pd.DataFrame
    frames: pd.DataFrame
    segments: pd.DataFrame
    failures: tuple[CardiogenError, ...] = ()
    notes: tuple[Note, ...] = ()


def measure_path(
    path: str | Path,
    *,
    label_map: str | None = None,
    layout: Layout | None = None,
    segments: Literal[16, 17] | None = None,
    orientation: Orientation | None = None,
    z_scores: bool = False,
    prefer: Prefer | None = None,
) -> Measured:
    """Measure a file or a folder.

    - a 4D NIfTI label map: ED and ES are its frames of most and least LV volume;
    - a 3D one: ES if its name has the word ``ES``, else ED; what needs the other frame is NaN;
    - ``labels.nii.gz`` beside a ``parameters.json`` of ours: as that says;
    - a binary ``.stl`` or ``.ply`` file: the volume inside its closed surface;
    - a subject's folder or a cohort in one of the known layouts;
    - any other folder: its NIfTI files, one subject each.

    A bad case of a folder does not stop the others: its error is among the ``failures``.

    Args:
        path: file or folder.
        label_map: map of file codes; needed where neither the layout nor ``parameters.json`` says
            it.
        layout: layout of a folder; found if None.
        segments: also measure 16 or 17 AHA segments at ED.
        orientation: overrides what is known of the header's orientation, for the AHA segments.
            Files of others are not known to show the heart unmirrored: a note (L63) says so.
        prefer: which geometry of a single file to trust where its header contradicts itself; the
            files of a cohort are read as its layout says.
        z_scores: add ``LVEDV z``, ... for subjects with known sex and age (HHC, smooth contours).

    Raises:
        CardiogenError: if ``path`` is a single file that cannot be measured, or a folder without
            a subject.
    """
    import pandas as pd

    path = Path(path)
    rows, frames, regions = [], [], []
    failures: list[CardiogenError] = []
    notes: list[Note] = []
    untrusted = 0
    if is_mesh(path):
        row = {"subject": path.stem, MESH_COLUMN: closed_volume(path)}
        return Measured(pd.DataFrame([row]), pd.DataFrame(), pd.DataFrame())
    subjects = _subjects(path, layout, label_map, failures)
    for subject in progress(subjects, "measuring") if path.is_dir() else subjects:
        try:
            sequence = _load(subject, label_map, prefer)
            row, table = measure_sequence(sequence)
            scores = z_score_row(row, sequence.factors) if z_scores else {}
            if segments is not None:
                sequence = sequence.with_(orientation=orientation or sequence.orientation)
                regions.append(_named(sequence.subject_id, _segments(sequence, segments)))
                untrusted += sequence.orientation == "assumed"
        except CardiogenError as error:
            if not path.is_dir():
                raise
            failures.append(_placed(error, subject))
            continue
        notes += sequence.notes
        rows.append({"subject": sequence.subject_id, **row, **scores})
        frames.append(_named(sequence.subject_id, table))
    if untrusted:
        notes.append(_untrusted(path, untrusted))
    return Measured(
        table=pd.DataFrame(rows),
        frames=pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(),
        segments=pd.concat(regions, ignore_index=True) if regions else pd.DataFrame(),
        failures=tuple(failures),
        notes=tuple(notes),
    )


def z_score_row(row: dict[str, float], factors: Factors | None) -> dict[str, float]:
    """Return ``{"LVEDV z": ...}`` for the measures of the reference table, NaN where unknown.

    Unknown are all of them without sex or age, or for an age outside the reference.
    """
    known = factors is not None and factors.sex is not None and factors.age is not None
    known = known and AGE_RANGE[0] <= factors.age <= AGE_RANGE[1]
    names = {column.split(" (")[0]: value for column, value in row.items()}
    return {
        f"{name} z": z_score(names[name], name, sex=factors.sex, age=factors.age)
        if known else float("nan")
        for name in reference_measures()
        if name in names
    }  # fmt: skip


def _subjects(
    path: Path, layout: Layout | None, label_map: str | None, failures: list[CardiogenError]
) -> list[Subject | Path]:
    """Subjects of a folder, or NIfTI files; faults of the cohort go to ``failures``."""
    from cardiogen.data.scan import scan_cohort

    if not path.is_dir():
        return [path]
    try:
        scan = scan_cohort(path, layout, label_map)
    except CardiogenError as error:
        files = sorted(p for p in path.iterdir() if p.name.endswith((".nii", ".nii.gz")))
        if error.code == "L50" and layout is None and files:
            return list(files)
        raise
    if not scan.subjects:
        raise scan.faults[0]
    failures += scan.faults
    return list(scan.subjects)


def _load(subject: Subject | Path, label_map: str | None, prefer: Prefer | None) -> Sequence:
    from cardiogen.data.cohort import load_sequence

    if not isinstance(subject, Path):
        return load_sequence(subject)
    return _load_file(subject, label_map, prefer)


def _load_file(path: Path, label_map: str | None, prefer: Prefer | None) -> Sequence:
    from cardiogen.data.cohort import only_end_systole, require_frames, usual_es_phase
    from cardiogen.data.nifti import read_labels

    facts = facts_beside(path)
    image = read_labels(path, label_map=require_label_map(path, label_map), prefer=prefer)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    notes, frame_time = image.notes, None if facts.nominal_rate else image.frame_time_s
    volumes = (image.frames == Structure.LV).sum(axis=(1, 2, 3))
    total = len(volumes)
    require_frames(path, total, ed_frame=facts.ed_frame, es_frame=facts.es_frame)
    ed = int(np.argmax(volumes)) if facts.ed_frame is None else facts.ed_frame
    phases, es = ((np.arange(total) - ed) % total) / total, facts.es_frame
    named_es = total == 1 and "ES" in stem.replace("-", "_").split("_")
    if named_es or only_end_systole(total, facts.ed_frame, facts.es_frame):
        phase, es_notes = usual_es_phase(path)
        phases, es, notes = np.array([phase]), ed, notes + es_notes
    elif total == 1 and facts.ed_frame is None:
        notes += (Note("N37", str(path), "a single frame, taken as ED"),)
    return Sequence(
        phases=phases,
        ed=ed,
        es=es,
        grid=image.grid,
        labels=image.frames,
        cycle_s=None if frame_time is None else frame_time * total,
        subject_id=stem,
        orientation=facts.orientation or "assumed",
        notes=notes,
    )


def _untrusted(path: Path, subjects: int) -> Note:
    text = (
        f"anterior and inferior of the AHA segments 1-6, 7-12 and 13-16 of {subjects} subject(s) "
        "rest on headers that may mirror the heart; --orientation mirrored or trusted settles it"
    )
    return Note("L63", str(path), text)


def _segments(sequence: Sequence, segments: Literal[16, 17]) -> pd.DataFrame:
    if sequence.es == sequence.ed:
        raise CardiogenError(
            "N37", "labels", found="end systole alone", expected="a frame of end diastole",
            remedy="measuring without --segments",
        )  # fmt: skip
    return segment_table(
        sequence.labels[sequence.ed],
        sequence.grid,
        orientation=sequence.orientation,
        segments=segments,
    )


def _named(subject_id: str, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "subject", subject_id)
    return table


def _placed(error: CardiogenError, subject: Subject | Path) -> CardiogenError:
    """The error with the subject's folder where it only says ``labels``."""
    where = subject if isinstance(subject, Path) else subject.folder
    return error.at(where) if error.where == "labels" else error
