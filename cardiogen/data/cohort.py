"""Cohorts of heart sequences in several folder layouts, read as one kind of record.

:func:`read_cohort` lists subjects without opening an image; :func:`load_sequence` reads one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Note
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.nifti import Image, read_image, read_labels
from cardiogen.data.scan import scan_cohort
from cardiogen.data.sequence import Orientation, Sequence
from cardiogen.data.subject import Layout, Phase, Subject

# End systole of a heart whose frame count is not known: 35 % of the cycle.
_USUAL_ES_PHASE = 0.35


def read_cohort(
    folder: str | Path, layout: Layout | None = None, label_map: str | None = None
) -> list[Subject]:
    """List the subjects of a cohort in the order of their ids.

    Args:
        folder: cohort, or the folder of one subject.
        layout: one of ``cardiogen``, ``acdc``, ``acdc_dev25``, ``ukbb``; found if not given.
        label_map: map of file codes; by default that of the layout, or the table's ``label_map``.

    Raises:
        CardiogenError: for the first fault; ``check_cohort`` lists them all.
    """
    scan = scan_cohort(Path(folder), layout, label_map)
    if scan.faults:
        raise scan.faults[0]
    return scan.subjects


def load_sequence(
    subject: Subject, *, images: bool = False, repair_shear: bool = False
) -> Sequence:
    """Read the frames of a subject.

    A 4D file gives all frames that carry labels (a 3D one in its place is taken as ED, unless only
    ES is named: then ``ed == es``); single files give ED and, if present, ES. What the cohort does
    not name of end diastole and systole is taken from the LV volume, with a note.

    Args:
        subject: record from :func:`read_cohort`.
        images: read the images too; they must lie on the grid of the labels.
        repair_shear: see :func:`read_image`.

    Raises:
        CardiogenError: as :func:`read_labels`; N37 for a missing frame, L40a and L40b if grids
            differ.
    """
    if "all" in subject.labels:
        return _load_4d(subject, images, repair_shear)
    return _load_phases(subject, images, repair_shear)


def structure_volume_ml(labels: NDArray[np.uint8], structure: Structure, grid: Grid) -> float:
    """Return voxel count times voxel volume of one frame, mL."""
    return float(np.count_nonzero(labels == structure) * grid.voxel_volume_ml)


def only_end_systole(total: int, ed_frame: int | None, es_frame: int | None) -> bool:
    """Return whether a file of ``total`` frames is known to hold end systole alone."""
    return total == 1 and ed_frame is None and es_frame == 0


def usual_es_phase(where: str | Path) -> tuple[float, tuple[Note, ...]]:
    """Return the phase to assume for an end systole of unknown time, and a note that says so."""
    text = f"the time of ES is unknown; taken as {_USUAL_ES_PHASE:.0%} of the cycle"
    return _USUAL_ES_PHASE, (Note("N37", str(where), text),)


def require_frames(path: Path, total: int, *, ed_frame: int | None, es_frame: int | None) -> None:
    """Refuse frame numbers that a file of ``total`` frames does not have (N37)."""
    for name, frame in (("ed_frame", ed_frame), ("es_frame", es_frame)):
        if frame is not None and not 0 <= frame < total:
            raise _missing_frame(path, f"{name}={frame} of {total} frames", f"0 to {total - 1}")


def require_same_grid(one: Image, other: Image, where: str | Path, other_path: str | Path) -> None:
    """Refuse two images that lie on different grids (L40a shape, L40b position)."""
    if one.grid.shape != other.grid.shape:
        raise CardiogenError(
            "L40a", where, found=f"{one.grid.shape} against {other.grid.shape} in {other_path}",
            expected="one shape (D, H, W)", remedy="resampling one onto the other",
        )  # fmt: skip
    distance = one.grid.distance_mm(other.grid)
    if distance > 1e-3:
        raise CardiogenError(
            "L40b", where,
            found=f"corners up to {distance:.4g} mm away from those of {other_path}",
            expected="corners within 0.001 mm", remedy="resampling one onto the other",
        )  # fmt: skip


def _load_4d(subject: Subject, with_images: bool, repair_shear: bool) -> Sequence:
    path = subject.labels["all"]
    labels = read_labels(path, label_map=subject.label_map, prefer=subject.prefer,
                         repair_shear=repair_shear)  # fmt: skip
    total = len(labels.frames)
    notes = labels.notes
    require_frames(path, total, ed_frame=subject.ed_frame, es_frame=subject.es_frame)
    kept = np.flatnonzero(labels.frames.any(axis=(1, 2, 3)))
    if len(kept) < total:
        text = f"{len(kept)} of {total} frames carry labels; the others are left out"
        notes += (Note("N37", str(path), text),)
    ed, es = _cardinal_frames(subject, labels, kept)
    phases = ((kept - ed) % total) / total
    if only_end_systole(total, subject.ed_frame, subject.es_frame):
        phase, es_notes = usual_es_phase(path)
        phases, es, notes = np.array([phase]), ed, notes + es_notes
    elif total == 1 and subject.ed_frame is None:
        notes += (Note("N37", str(path), "a single frame, taken as ED"),)
    elif total > 1 and None in (subject.ed_frame, subject.es_frame):
        notes += (Note("N37", str(path), f"ED {ed} and ES {es} found from the LV volume"),)
    frame_time = None if subject.nominal_rate else labels.frame_time_s
    return Sequence(
        phases=phases,
        ed=int(np.searchsorted(kept, ed)),
        es=None if es is None else int(np.searchsorted(kept, es)),
        grid=labels.grid,
        labels=labels.frames[kept],
        images=_images_4d(subject, labels, kept, repair_shear) if with_images else None,
        factors=subject.factors,
        group=subject.group,
        cycle_s=None if frame_time is None else frame_time * total,
        subject_id=subject.subject_id,
        orientation=_least_trusted(subject, labels),
        notes=notes,
    )


def _cardinal_frames(
    subject: Subject, labels: Image, kept: NDArray[np.intp]
) -> tuple[int, int | None]:
    volumes = np.array([np.count_nonzero(labels.frames[i] == Structure.LV) for i in kept])
    ed = int(kept[volumes.argmax()]) if subject.ed_frame is None else subject.ed_frame
    es = int(kept[volumes.argmin()]) if subject.es_frame is None else subject.es_frame
    for name, frame in (("ED", ed), ("ES", es)):
        if frame not in kept:
            raise _missing_frame(subject.labels["all"], f"no labels in {name} frame {frame}",
                                 "labels in the ED and ES frames")  # fmt: skip
    return ed, None if es == ed else es


def _images_4d(
    subject: Subject, labels: Image, kept: NDArray[np.intp], repair_shear: bool
) -> NDArray[np.float32]:
    if "all" not in subject.images:
        raise _missing_frame(subject.folder, "no 4D image", "the image of the 4D labels")
    path = subject.images["all"]
    image = read_image(path, prefer=subject.prefer, repair_shear=repair_shear)
    require_same_grid(image, labels, path, subject.labels["all"])
    if len(image.frames) != len(labels.frames):
        raise _missing_frame(path, f"{len(image.frames)} frames", f"{len(labels.frames)} frames")
    return image.frames[kept].astype(np.float32)


def _load_phases(subject: Subject, with_images: bool, repair_shear: bool) -> Sequence:
    names = [name for name in ("ed", "es") if name in subject.labels]
    if "ed" not in names:
        raise _missing_frame(subject.folder, "no ED label file", "labels at ED")
    frames = [
        read_labels(subject.labels[name], label_map=subject.label_map, prefer=subject.prefer,
                    repair_shear=repair_shear, frames="one")
        for name in names
    ]  # fmt: skip
    for frame, name in zip(frames, names, strict=True):
        require_same_grid(frame, frames[0], subject.labels[name], subject.labels["ed"])
    phases, notes = [0.0], frames[0].notes
    if len(frames) == 2:
        phase, phase_notes = _es_phase(subject)
        phases, notes = [0.0, phase], notes + frames[1].notes + phase_notes
    else:
        notes += (Note("N37", str(subject.folder), "no ES label file; ED only"),)
    return Sequence(
        phases=np.array(phases),
        ed=0,
        es=1 if len(frames) == 2 else None,
        grid=frames[0].grid,
        labels=np.stack([frame.data for frame in frames]),
        images=_phase_images(subject, frames, names, repair_shear) if with_images else None,
        factors=subject.factors,
        group=subject.group,
        subject_id=subject.subject_id,
        orientation=_least_trusted(subject, frames[0]),
        notes=notes,
    )


def _es_phase(subject: Subject) -> tuple[float, tuple[Note, ...]]:
    if subject.es_frame is None or subject.n_frames is None or subject.n_frames < 2:
        return usual_es_phase(subject.folder)
    start = subject.ed_frame or 0
    return ((subject.es_frame - start) % subject.n_frames) / subject.n_frames, ()


def _phase_images(
    subject: Subject, frames: list[Image], names: list[Phase], repair_shear: bool
) -> NDArray[np.float32]:
    stack = []
    for name, labels in zip(names, frames, strict=True):
        if name not in subject.images:
            raise _missing_frame(subject.folder, f"no {name.upper()} image", "one for each label")
        path = subject.images[name]
        image = read_image(path, prefer=subject.prefer, repair_shear=repair_shear, frames="one")
        require_same_grid(image, labels, path, subject.labels[name])
        stack.append(image.data.astype(np.float32))
    return np.stack(stack)


def _least_trusted(subject: Subject, image: Image) -> Orientation:
    return subject.orientation if subject.orientation != "trusted" else image.orientation


def _missing_frame(where: str | Path, found: str, expected: str) -> CardiogenError:
    return CardiogenError(
        "N37", where, found=found, expected=expected, remedy="adding the file or frame"
    )
