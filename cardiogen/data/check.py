"""Check a cohort in one pass: every fault by code, file and field, and nothing is changed.

What single readers refuse is collected here instead, and the rest that only shows across files or
subjects is looked for: anatomy that contradicts the label map, doubles, missing counterparts.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Exit, Note, progress
from cardiogen.data.anatomy_hints import anatomy_faults
from cardiogen.data.cohort import only_end_systole, require_same_grid
from cardiogen.data.factors import FACTORS
from cardiogen.data.labels import Structure
from cardiogen.data.nifti import Image, read_image, read_labels
from cardiogen.data.scan import scan_cohort
from cardiogen.data.subject import Layout, Phase, Subject

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Fault:
    """One finding.

    Attributes:
        code: ``CG-...`` as everywhere.
        file: file or folder.
        field: row and column, or argument; empty if the whole file is meant.
        found: what was there.
        expected: what should have been there.
        remedy: what to try.
        severity: ``error`` makes the cohort unfit, ``warning`` does not.
    """

    code: str
    file: str
    field: str
    found: str
    expected: str
    remedy: str
    severity: Severity


@dataclass(frozen=True)
class CheckReport:
    """What ``check_cohort`` found.

    Attributes:
        folder: the cohort.
        layout: its layout, or None if none fits.
        subjects: number of subjects whose files were looked at.
        faults: errors and warnings in the order of subjects.
    """

    folder: Path
    layout: Layout | None
    subjects: int
    faults: tuple[Fault, ...]

    @property
    def errors(self) -> tuple[Fault, ...]:
        """The faults that make the cohort unfit."""
        return tuple(fault for fault in self.faults if fault.severity == "error")

    @property
    def warnings(self) -> tuple[Fault, ...]:
        """The findings that one should know of."""
        return tuple(fault for fault in self.faults if fault.severity == "warning")

    @property
    def exit_code(self) -> Exit:
        """Exit status of ``cardiogen check``."""
        return Exit.DATA if self.errors else Exit.OK

    def as_dict(self) -> dict[str, object]:
        """Return the report for ``--json``."""
        return {
            "folder": str(self.folder),
            "layout": self.layout,
            "subjects": self.subjects,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "faults": [asdict(fault) for fault in self.faults],
        }


def check_cohort(
    folder: str | Path, *, layout: Layout | None = None, label_map: str | None = None
) -> CheckReport:
    """Look at every file of a cohort and report every fault.

    Args:
        folder: cohort, or the folder of one subject.
        layout: see :func:`read_cohort`, as for ``label_map``.
        label_map: map of file codes.

    Raises:
        CardiogenError: U11 or U12 for an unknown label map or layout; faults of the data are in
            the report.
    """
    folder = Path(folder)
    try:
        scan = scan_cohort(folder, layout, label_map)
    except CardiogenError as error:
        if error.exit_code == Exit.USAGE:
            raise
        return CheckReport(folder, layout, 0, (_from_error(error),))
    faults = [_from_error(error) for error in scan.faults]
    faults += [_from_note(note) for note in scan.notes]
    seen: dict[str, tuple[str, Path]] = {}
    lengths: dict[Path, int] = {}
    for subject in progress(scan.subjects, "checking"):
        faults += _subject_faults(subject, seen, lengths)
    faults += _length_warnings(lengths)
    faults += _factor_warnings(folder, scan.subjects)
    return CheckReport(folder, scan.layout, len(scan.subjects), tuple(faults))


def _from_error(error: CardiogenError, severity: Severity = "error") -> Fault:
    # Table readers name places as path:row or path:row/column.
    place = re.fullmatch(r"(.+?\.\w+):(\d+)(?:/([^/]+))?", error.where)
    file, field = error.where, ""
    if place:
        file, row, column = place.groups()
        field = f"row {row}" + (f", {column}" if column else "")
    return Fault(f"CG-{error.code}", file, field, error.found, error.expected, error.remedy,
                 severity)  # fmt: skip


def _from_note(note: Note) -> Fault:
    error = CardiogenError(
        note.code, note.where, found=note.text, expected="nothing to assume or repair",
        remedy="checking that this holds",
    )  # fmt: skip
    return _from_error(error, "warning")


def _length_warnings(lengths: dict[Path, int]) -> Iterator[Fault]:
    """Yield N37 for sequences that are not as long as most; models in phase do not mind."""
    if not lengths:
        return
    ((usual, _),) = Counter(lengths.values()).most_common(1)
    for path, length in lengths.items():
        if length != usual:
            other = CardiogenError(
                "N37", path, found=f"{length} frames",
                expected=f"{usual} frames, as most of the cohort has",
                remedy="checking that no frame is lost",
            )  # fmt: skip
            yield _from_error(other, "warning")


def _subject_faults(
    subject: Subject, seen: dict[str, tuple[str, Path]], lengths: dict[Path, int]
) -> list[Fault]:
    """Return the faults of one subject; contents and lengths are remembered across subjects."""
    faults: list[Fault] = []
    labels: dict[Phase, Image] = {}
    for phase, path in subject.labels.items():
        try:
            labels[phase] = read_labels(
                path,
                label_map=subject.label_map,
                prefer=subject.prefer,
                frames=_frames(phase),
                anatomy=False,
            )
            faults += [_from_note(note) for note in labels[phase].notes]
            if labels[phase].data.ndim == 4:
                lengths[path] = len(labels[phase].data)
            faults += [_from_error(e) for e in _double_faults(subject, path, labels[phase], seen)]
        except CardiogenError as error:
            faults.append(_from_error(error))
    for phase, path in subject.images.items():
        try:
            image = read_image(path, prefer=subject.prefer, frames=_frames(phase))
            partner = labels.get(phase) or next(iter(labels.values()), None)
            if partner is not None:
                require_same_grid(image, partner, path, subject.labels.get(phase, subject.folder))
                if phase in labels and image.frames.shape != partner.frames.shape:
                    raise CardiogenError(
                        "N37", path, found=f"{len(image.frames)} frames",
                        expected=f"{len(partner.frames)} frames as in the labels",
                        remedy="adding the missing frames",
                    )  # fmt: skip
        except CardiogenError as error:
            faults.append(_from_error(error))
    faults += [_from_error(error) for error in _frame_faults(subject, labels)]
    faults += _repeat_warnings(subject, labels.get("all"))
    return faults


def _factor_warnings(folder: Path, subjects: Listing[Subject]) -> Iterator[Fault]:
    """Yield C28 once for a factor that all subjects lack, and once a subject for other gaps."""
    counts = Counter(name for subject in subjects for name in subject.factors.missing)
    everywhere = {name for name, count in counts.items() if count == len(subjects)}
    table = folder / "subjects.csv"
    for name in sorted(everywhere):
        yield Fault(
            "CG-C28", str(table if table.is_file() else folder), FACTORS[name].column,
            found=f"missing for all subjects ({len(subjects)})",
            expected="all factors (any may be missing)", remedy="a column in subjects.csv",
            severity="warning",
        )  # fmt: skip
    for subject in subjects:
        gaps = [name for name in subject.factors.missing if name not in everywhere]
        if gaps:
            missing = CardiogenError(
                "C28", subject.folder, found=f"missing factors: {', '.join(gaps)}",
                expected="all factors (any may be missing)", remedy="filling its row",
            )  # fmt: skip
            yield _from_error(missing, "warning")


def _frames(phase: Phase) -> Literal["any", "one"]:
    return "any" if phase == "all" else "one"


def _frame_faults(subject: Subject, labels: dict[Phase, Image]) -> Iterator[CardiogenError]:
    """Yield what is wrong between frames and with the anatomy of ED and ES."""
    if "ed" in labels and "es" in labels:
        try:
            require_same_grid(labels["es"], labels["ed"], subject.labels["es"],
                              subject.labels["ed"])  # fmt: skip
        except CardiogenError as error:
            yield error
    frames: dict[str, NDArray[np.uint8]] = {}
    if "all" in labels:
        data, path = labels["all"].frames, subject.labels["all"]
        volumes = np.count_nonzero(data == Structure.LV, axis=(1, 2, 3))
        only_es = only_end_systole(len(data), subject.ed_frame, subject.es_frame)
        guesses = {} if only_es else {"ed": int(volumes.argmax())}
        if len(data) > 1:
            guesses["es"] = int(
                np.where(data.any(axis=(1, 2, 3)), volumes, volumes.max()).argmin()
            )
        for name, index in (("ed", subject.ed_frame), ("es", subject.es_frame)):
            if index is not None and index >= len(data):
                yield CardiogenError(
                    "N37", path, found=f"{name}_frame {index} of {len(data)} frames",
                    expected=f"0 to {len(data) - 1}", remedy="correcting the table",
                )  # fmt: skip
            elif index is not None or name in guesses:
                frames[name] = data[guesses[name] if index is None else index]
    for name in ("ed", "es"):
        if name in labels:
            frames[name] = labels[name].data
    grid = next((image.grid for image in labels.values()), None)
    if grid is not None:
        paths = {name: subject.labels.get(name, subject.labels.get("all")) for name in frames}
        yield from anatomy_faults(frames, paths, grid, subject.label_map)


def _repeat_warnings(subject: Subject, image: Image | None) -> Iterator[Fault]:
    """Yield N38 for labeled frames of a sequence that hold the same voxels."""
    first: dict[bytes, int] = {}
    for index, frame in enumerate(image.frames if image is not None else ()):
        earlier = first.setdefault(hashlib.sha256(frame.tobytes()).digest(), index)
        if earlier != index and frame.any():
            repeat = CardiogenError(
                "N38", subject.labels["all"], found=f"frames {earlier}={index} are identical",
                expected="different frames", remedy="checking the export",
            )  # fmt: skip
            yield _from_error(repeat, "warning")


def _double_faults(
    subject: Subject, path: Path, image: Image, seen: dict[str, tuple[str, Path]]
) -> Iterator[CardiogenError]:
    """Yield L46 if the same voxels came under another id or as another phase."""
    content = hashlib.sha256(repr(image.data.shape).encode() + image.data.tobytes()).hexdigest()
    owner, first = seen.setdefault(content, (subject.subject_id, path))
    if first != path:
        whose = "the same subject" if owner == subject.subject_id else f"subject {owner!r}"
        yield CardiogenError(
            "L46", path, found=f"the same labels as {first} of {whose}",
            expected="different scans", remedy="removing one of them",
        )  # fmt: skip
