"""``cardiogen track``: a cine and the labels of its ED to motion, meshes, volumes, strain."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.base import CardiogenError, Note
from cardiogen.base.files import atomic_folder, check_replaceable, sha256_file, write_json
from cardiogen.cli.requests import check_apart, usage_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cardiogen.data import Image
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation, Sequence
    from cardiogen.export import Space
    from registration.tracking import TrackingResult

_MAX_CYCLE_MS = 5000.0
_MIN_CYCLE_MS = 200.0
# What a header says is believed only as a beat of 30 to 200 a minute: pixdim[4] is 1 by default.
_HEADER_CYCLE_S = (0.3, 2.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Inputs:
    """A cine as a sequence, the structures at ED on its grid, and what reading has assumed."""

    sequence: Sequence
    labels: NDArray[np.uint8]
    views: tuple[Sequence, ...]
    notes: tuple[Note, ...]


def track_files(
    cine: str | Path,
    *,
    ed_labels: str | Path,
    out: str | Path,
    label_map: str | None,
    views: Iterable[str | Path] = (),
    ed: int = 0,
    preset: str | None = None,
    config: str | Path | None = None,
    strategy: str | None = None,
    in_plane: bool | None = None,
    frame_time_ms: float | None = None,
    resample_labels: bool = False,
    space: Space = "ras",
    device: str = "cpu",
    prefer: Prefer | None = None,
    orientation: Orientation | None = None,
    overwrite: bool = False,
) -> dict[str, object]:
    """Track a cine and write a folder.

    Files: ``ed_to_frame/frame_000.nii.gz`` ... (displacements in RAS mm on the tracked part of the
    ED grid, which ``cardiogen warp`` and ANTs read), ``motion.safetensors`` (periodic motion,
    which ``cardiogen warp --phase`` reads at any phase, for ``groupwise``; motion in the slices
    alone where they were tracked on their own), ``labels.nii.gz`` (4D) with ``labels.txt``,
    ``mesh/frame_000.vtp`` ... and ``heart.pvd``, ``measures.csv``, ``frames.csv`` (volumes),
    ``strain.csv``, ``strain_summary.csv``, ``strain.png``, ``bullseye.png``, ``energies.csv``,
    ``result.json``. Values that the cine does not show are empty, and a note beside them or a
    column ``reason`` says why; of one slice there is no bullseye.

    Args:
        cine: 4D NIfTI.
        ed_labels: label map of the ED frame.
        out: folder to make.
        label_map: codes of ``ed_labels`` and of ``labels.nii.gz``.
        views: further cines of the same heart on other planes (long axes): one motion in 3D then
            explains all of them. Their frames cover the same cycle, whatever their number.
        ed: frame of end diastole, from 0.
        preset, config, strategy: see ``registration.tracking.track``.
        in_plane: track slices on their own, or not; None decides by their distance.
        frame_time_ms: time between frames; None takes the header's.
        resample_labels: bring labels that live on another grid of the same world onto the cine's.
        space: axes of the mesh files.
        device: ``auto``, ``cpu`` or ``cuda``.
        prefer: which geometry of a header to trust where its parts disagree.
        orientation: overrides what the header says of left and right.
        overwrite: replace a folder of ours.

    Returns:
        What ``result.json`` holds.

    Raises:
        CardiogenError: N36 for a cine of one frame, N26 for NaN, L37 for empty labels, L60 without
            LV or MYO, L41 for labels of another map, L40a for labels on another grid, N55 where
            they do not overlap, U01 for a frame or frame time that cannot be, U14, U15 and M07
            for settings, U16 for views that these cannot use, O01 if ``out`` exists. Views: N26,
            N36, N39 and N55 too.
    """
    from cardiogen.cli.register import _device
    from registration.tracking import track
    from registration.tracking.config import resolve_tracking_config

    views = [Path(p) for p in views]
    out, paths = Path(out), [*(Path(p) for p in (cine, ed_labels, config) if p), *views]
    check_apart(out, paths)
    check_replaceable(out, overwrite)
    if config is not None and preset is not None:
        raise usage_error("--config", "--preset beside it", "one of them", "one of them alone")
    settings = resolve_tracking_config(preset, config, strategy)
    inputs = _read(Path(cine), Path(ed_labels), label_map=label_map, views=views, ed=ed,
                   prefer=prefer, frame_time_ms=frame_time_ms, resample=resample_labels,
                   orientation=orientation)  # fmt: skip
    result = track(
        inputs.sequence, inputs.labels, views=inputs.views, config=settings,
        device=_device(device),
        in_plane="auto" if in_plane is None else in_plane,
    )  # fmt: skip
    facts = result.as_dict()
    facts["notes"] = [str(note) for note in (*inputs.notes, *result.notes)]
    facts["provenance"] |= {
        "preset": preset, "label_map": label_map,
        "files": {path.name: sha256_file(path) for path in paths},
    }  # fmt: skip
    with atomic_folder(out, overwrite=overwrite) as folder:
        _write(folder, result, facts, str(label_map), space)

    return facts


def _read(
    cine: Path,
    ed_labels: Path,
    *,
    label_map: str | None,
    views: list[Path],
    ed: int,
    prefer: Prefer | None,
    frame_time_ms: float | None,
    resample: bool,
    orientation: Orientation | None,
) -> _Inputs:
    from cardiogen.cli.register import _labels
    from cardiogen.data import read_image
    from cardiogen.data.sequence import Sequence

    image = read_image(cine, prefer=prefer, frames="many")
    frames = len(image.frames)
    if not 0 <= ed < frames:
        raise usage_error("--ed", ed, f"a frame from 0 to {frames - 1}", "--ed 0")
    seconds, notes = _frame_time(image, cine, frame_time_ms)
    labels = _labels(ed_labels, label_map, prefer)
    structures = _on_grid(labels, image, ed_labels, resample=resample)
    sequence = Sequence(
        phases=((np.arange(frames) - ed) % frames) / frames, ed=ed, grid=image.grid,
        images=image.frames.astype(np.float32),
        cycle_s=None if seconds is None else seconds * frames,
        subject_id=cine.name.split(".")[0], orientation=orientation or image.orientation,
    )  # fmt: skip
    seen = [_view(path, ed / frames, prefer) for path in views]
    more = [note for _, found in seen for note in found]
    said = dict.fromkeys([*image.notes, *labels.notes, *notes, *more])

    return _Inputs(sequence=sequence, labels=structures, views=tuple(view for view, _ in seen),
                   notes=tuple(said))  # fmt: skip


def _view(path: Path, ed_phase: float, prefer: Prefer | None) -> tuple[Sequence, tuple[Note, ...]]:
    """Return a further view, its ED the frame nearest to the cine's, and what was assumed."""
    from cardiogen.data import read_image
    from cardiogen.data.sequence import Sequence

    image = read_image(path, prefer=prefer, frames="many")
    frames = len(image.frames)
    ed = round(ed_phase * frames) % frames
    sequence = Sequence(
        phases=((np.arange(frames) - ed) % frames) / frames, ed=ed, grid=image.grid,
        images=image.frames.astype(np.float32), subject_id=path.name.split(".")[0],
        orientation=image.orientation,
    )  # fmt: skip
    return sequence, image.notes


def _frame_time(
    image: Image, path: Path, told_ms: float | None
) -> tuple[float | None, tuple[Note, ...]]:
    """Return the seconds between frames: what was told, what the header says, or unknown.

    A header is believed where its cycle is that of a heart, in seconds or, where only that gives
    one, in milliseconds stored as seconds.
    """
    if told_ms is not None:
        cycle = told_ms * len(image.frames)
        if not (math.isfinite(told_ms) and _MIN_CYCLE_MS <= cycle <= _MAX_CYCLE_MS):
            raise usage_error(
                "--frame-time-ms", f"{told_ms:g} (a cycle of {cycle:g} ms)",
                f"a cycle of {_MIN_CYCLE_MS:g} to {_MAX_CYCLE_MS:g} ms",
                "the time between two frames in milliseconds",
            )  # fmt: skip
        return told_ms / 1000.0, ()
    seconds, (low, high) = image.frame_time_s, _HEADER_CYCLE_S
    cycle = 0.0 if seconds is None else seconds * len(image.frames)
    if low <= cycle <= high:
        return seconds, ()
    if low <= cycle / 1000.0 <= high:
        text = f"frame time {seconds:g} s, a cycle of {cycle:g} s; taken as milliseconds"
        return seconds / 1000.0, (Note("N23", str(path), text),)
    found = "none" if seconds is None else f"{seconds:g} s, a cycle of {cycle:g} s"
    text = (
        f"frame time: {found} (believed: {low:g} to {high:g} s); strain rates and cardiac output "
        "are left out (--frame-time-ms)"
    )

    return None, (Note("S84", str(path), text),)


def _on_grid(labels: Image, image: Image, path: Path, *, resample: bool) -> NDArray[np.uint8]:
    if labels.grid.matches(image.grid, tolerance_mm=0.05):
        return labels.data
    if not resample:
        raise CardiogenError(
            "L40a", path,
            found=f"labels of shape {labels.grid.shape}, "
            f"{image.grid.distance_mm(labels.grid):.3g} mm from the cine",
            expected=f"the grid of the cine, {image.grid.shape}",
            remedy="labels of this very cine, or --resample-labels if both lie in one world",
        )  # fmt: skip
    import torch

    from registration.world import check_overlap, labels_onto_grid

    check_overlap(image.grid, labels.grid, str(path))
    values = torch.from_numpy(labels.data)[None, None]

    return labels_onto_grid(values, labels.grid, image.grid)[0, 0].numpy()


def _write(
    folder: Path,
    result: TrackingResult,
    facts: dict[str, object],
    label_map: str,
    space: Space,
) -> None:
    from cardiogen.export import (
        Marks,
        subject_row,
        write_bullseye,
        write_frames,
        write_measures,
        write_mesh_series,
        write_strain_curves,
    )
    from registration.tracking.result import withheld_words

    sequence, marks = result.sequence, Marks(synthetic=False)
    frames = len(sequence)
    step = (1.0 if sequence.cycle_s is None else sequence.cycle_s) / frames
    _write_fields(folder, result)
    _write_labels(folder, result, label_map, step if sequence.cycle_s else None)
    write_mesh_series(folder, sequence.vertices, sequence.topology, ed=sequence.ed, space=space,
                      times=np.arange(frames) * step, marks=marks)  # fmt: skip
    measures, curves = result.measures
    note = withheld_words(result.withheld)
    row = subject_row(sequence.subject_id, None, measures, marks=marks, note=note)
    write_measures(folder / "measures.csv", [row])
    write_frames(folder / "frames.csv", sequence.subject_id, curves.assign(note=note), marks=marks)
    _write_csv(folder / "energies.csv", list(result.energy_rows))
    if result.strain is not None:
        result.strain.to_table().to_csv(folder / "strain.csv", index=False)
        result.strain.summary().to_csv(folder / "strain_summary.csv", index=False)
        write_strain_curves(folder / "strain.png", result.strain, marks=marks,
                            title=f"{sequence.subject_id}: strain")  # fmt: skip
        if result.strain.es is not None and result.strain.level == "segment":
            write_bullseye(folder / "bullseye.png", result.strain, marks=marks,
                           title=f"{sequence.subject_id}: strain by AHA segment")  # fmt: skip
    write_json(folder / "result.json", facts)


def _write_fields(folder: Path, result: TrackingResult) -> None:
    from cardiogen.transforms import save_transform, write_displacement

    (folder / "ed_to_frame").mkdir()
    for frame, field in enumerate(result.forward):
        write_displacement(folder / "ed_to_frame" / f"frame_{frame:03d}.nii.gz", field[None],
                           result.region, convention="nifti")  # fmt: skip
    if result.motion is not None:
        save_transform(folder / "motion.safetensors", result.motion)


def _write_labels(
    folder: Path, result: TrackingResult, label_map: str, frame_time_s: float | None
) -> None:
    from cardiogen.data import encode_labels, write_image
    from cardiogen.export import write_label_names

    codes = encode_labels(result.sequence.labels, label_map)
    write_image(folder / "labels.nii.gz", codes, result.sequence.grid, frame_time_s=frame_time_s,
                description=f"cardiogen track, {label_map} codes")  # fmt: skip
    write_label_names(folder / "labels.txt", label_map)


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    import pandas as pd

    pd.DataFrame.from_records(rows).to_csv(path, index=False)
