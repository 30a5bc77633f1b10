"""All files of one heart in one folder: labels, meshes, beating GLB, tables, picture, parameters.

Matplotlib and scipy are imported only where the picture is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError, atomic_write, write_json
from cardiogen.data.labels import encode_labels
from cardiogen.data.sequence import Sequence
from cardiogen.export.captions import describe_factors, describe_measures
from cardiogen.export.frames import frame_time_s, frame_times, key_frames
from cardiogen.export.glb import write_glb
from cardiogen.export.label_names import code_names, write_label_names
from cardiogen.export.marks import Marks
from cardiogen.export.readme import readme_text
from cardiogen.export.space import Space, check_space
from cardiogen.export.stl import write_stl_surfaces
from cardiogen.export.tables import subject_row, write_frames, write_measures
from cardiogen.export.vtp import write_mesh_series

Format = Literal["nifti", "vtp", "stl", "glb", "png", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)


def parse_formats(text: str) -> tuple[Format, ...]:
    """Return the formats of a comma-separated list; ``"all"`` is every one.

    Raises:
        CardiogenError: U13 for an unknown format.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in (*FORMATS, "all")]
    if unknown or not names:
        raise CardiogenError(
            "U13", "--format", found=repr(text), expected=f"some of {', '.join(FORMATS)}, or all",
            remedy="names with commas between, such as nifti,glb",
        )  # fmt: skip
    return FORMATS if "all" in names else tuple(f for f in FORMATS if f in names)


def write_heart(
    folder: str | Path,
    sequence: Sequence,
    *,
    measures: Mapping[str, float],
    frames: Mapping[str, ArrayLike],
    parameters: Mapping[str, object],
    synthetic: bool = True,
    extrapolated: bool = False,
    cross_sectional: bool = False,
    space: Space = "ras",
    formats: Iterable[Format] = FORMATS,
    label_map: str = "ukbb",
    reference_bands: Mapping[str, tuple[float, float]] | None = None,
    point_data: Mapping[str, ArrayLike] | None = None,
    overlap: NDArray[np.uint8] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the files of one heart; what the sequence lacks (labels or meshes) is left out.

    Args:
        folder: an existing folder, which the caller makes atomic as a whole.
        sequence: one heart over its cycle, or one frame of it.
        measures: phenotypes of the subject by column, as ``measure_sequence`` returns them.
        frames: columns ``(T,)`` per frame; ``LV (mL)`` and ``RV (mL)`` are drawn as curves.
        parameters: whatever made this heart, for ``parameters.json``.
        synthetic: whether the heart is generated; every file says so.
        extrapolated: whether its factors lie outside the training data; every file says so too.
        cross_sectional: whether it shows a heart under factors that it was not observed with.
        space: space of the mesh files; NIfTI is RAS by definition.
        formats: which kinds of file to write; parameters.json and README.txt come always.
        label_map: codes of ``labels.nii.gz``.
        reference_bands: lower and upper limits of measures by column for the picture, as
            ``reference_bands(factors)`` finds them.
        overlap: other label maps of the same frames, for ``labels_overlap.nii.gz``.
        point_data: further vertex scalars ``(T, V)`` by name, e.g. wall thickness.
        overwrite: whether existing files may be replaced.

    Returns:
        The written paths, README.txt last.

    Raises:
        CardiogenError: O01 for a file that exists, U11, U12 for an unknown map or space.
    """
    folder = Path(folder)
    formats, space = tuple(formats), check_space(space)
    unknown = set(formats) - set(FORMATS)
    if unknown:
        raise ValueError(f"formats must be among {FORMATS}, got {sorted(unknown)}")
    marks = Marks(synthetic=synthetic, extrapolated=extrapolated, cross_sectional=cross_sectional)
    written: list[Path] = []
    if "nifti" in formats and sequence.labels is not None:
        written += _write_labels(folder, sequence, label_map, marks, overwrite)
        if overlap is not None:
            path = folder / "labels_overlap.nii.gz"
            other = sequence.with_(labels=overlap)
            written.append(_write_label_maps(path, other, label_map, marks, overwrite))
    if sequence.vertices is not None:
        written += _write_meshes(
            folder, sequence, formats, space, marks, point_data or {}, overwrite
        )
    if "csv" in formats:
        row = subject_row(sequence.subject_id, sequence.factors, measures, marks=marks)
        written.append(write_measures(folder / "measures.csv", [row], overwrite=overwrite))
        written.append(write_frames(
            folder / "frames.csv", sequence.subject_id, frames, marks=marks,
            overwrite=overwrite,
        ))  # fmt: skip
    if "png" in formats:
        written.append(
            _write_picture(folder, sequence, measures, frames, reference_bands, marks, overwrite)
        )
    facts = {
        **marks.flags,
        "subject_id": sequence.subject_id,
        "mesh_space": space,
        "label_map": {"name": label_map, "codes": code_names(label_map)},
        "factors": None if sequence.factors is None else sequence.factors.as_dict(),
        "key_frames": key_frames(sequence),
        "phases": sequence.phases.tolist(),
        "cycle_s": sequence.cycle_s,
    }
    path = folder / "parameters.json"
    write_json(path, facts | dict(parameters), overwrite=overwrite)
    return [*written, path, _write_readme(folder, written, label_map, space, marks, overwrite)]


def _write_labels(
    folder: Path, sequence: Sequence, label_map: str, marks: Marks, overwrite: bool
) -> list[Path]:
    path = _write_label_maps(folder / "labels.nii.gz", sequence, label_map, marks, overwrite)

    return [path, write_label_names(folder / "labels.txt", label_map, overwrite=overwrite)]


def _write_label_maps(
    path: Path, sequence: Sequence, label_map: str, marks: Marks, overwrite: bool
) -> Path:
    from cardiogen.data.nifti_write import write_image

    codes = encode_labels(sequence.labels, label_map)
    names = " ".join(f"{code}={name}" for code, name in code_names(label_map).items() if code)
    origin = " ".join(marks.words) or "labels"
    write_image(
        path,
        codes if len(codes) > 1 else codes[0],
        sequence.grid,
        frame_time_s=frame_time_s(sequence),
        description=f"cardiogen {origin} {label_map}: {names}",
        overwrite=overwrite,
    )

    return path


def _write_meshes(
    folder: Path,
    sequence: Sequence,
    formats: tuple[Format, ...],
    space: Space,
    marks: Marks,
    point_data: Mapping[str, ArrayLike],
    overwrite: bool,
) -> list[Path]:
    vertices, topology, written = sequence.vertices, sequence.topology, []
    if "vtp" in formats:
        written += write_mesh_series(
            folder, vertices, topology, times=frame_times(sequence), ed=sequence.ed,
            point_data=point_data, space=space, marks=marks, overwrite=overwrite,
        )  # fmt: skip
    if "stl" in formats:
        for name, frame in key_frames(sequence).items():
            written += write_stl_surfaces(
                folder, vertices[frame], topology, frame_name=name, space=space,
                marks=marks, overwrite=overwrite,
            )  # fmt: skip
    if "glb" in formats:
        written.append(write_glb(
            folder / "heart.glb", vertices, topology, phases=sequence.phases,
            cycle_s=1.0 if sequence.cycle_s is None else sequence.cycle_s, space=space,
            marks=marks, extras={"subject_id": sequence.subject_id}, overwrite=overwrite,
        ))  # fmt: skip
    return written


def _write_picture(
    folder: Path,
    sequence: Sequence,
    measures: Mapping[str, float],
    frames: Mapping[str, ArrayLike],
    bands: Mapping[str, tuple[float, float]] | None,
    marks: Marks,
    overwrite: bool,
) -> Path:
    from cardiogen.export.picture import write_preview

    volumes = {name: frames[f"{name} (mL)"] for name in ("LV", "RV") if f"{name} (mL)" in frames}
    return write_preview(
        folder / "preview.png",
        sequence,
        volumes_ml=volumes,
        reference_bands=bands,
        title=describe_factors(sequence.factors) or sequence.subject_id,
        subtitle=describe_measures(measures),
        marks=marks,
        overwrite=overwrite,
    )


def _write_readme(
    folder: Path,
    written: list[Path],
    label_map: str,
    space: Space,
    marks: Marks,
    overwrite: bool,
) -> Path:
    path = folder / "README.txt"
    names = [p.relative_to(folder).as_posix() for p in written] + ["parameters.json"]
    text = readme_text(names, code_names(label_map), label_map, space=space, marks=marks)
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
