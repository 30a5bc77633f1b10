"""``cardiogen track``: a cine and the labels of its ED to motion, meshes, volumes, strain."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.base.files import atomic_folder, check_replaceable, sha256_file, write_json
from cardiogen.cli.requests import check_apart, check_device, usage_error
from cardiogen.cli.track_inputs import read_inputs

if TYPE_CHECKING:
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation
    from cardiogen.export import Space
    from registration.tracking import TrackingResult


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
    from registration.tracking import track
    from registration.tracking.config import resolve_tracking_config

    views = [Path(p) for p in views]
    out, paths = Path(out), [*(Path(p) for p in (cine, ed_labels, config) if p), *views]
    check_apart(out, paths)
    check_replaceable(out, overwrite)
    if config is not None and preset is not None:
        raise usage_error("--config", "--preset beside it", "one of them", "one of them alone")
    settings = resolve_tracking_config(preset, config, strategy)
    inputs = read_inputs(Path(cine), Path(ed_labels), label_map=label_map, views=views, ed=ed,
                         prefer=prefer, frame_time_ms=frame_time_ms, resample=resample_labels,
                         orientation=orientation)  # fmt: skip
    result = track(
        inputs.sequence, inputs.labels, views=inputs.views, config=settings,
        device=check_device(device),
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
