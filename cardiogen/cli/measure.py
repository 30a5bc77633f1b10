"""``cardiogen measure``: numbers from label maps and closed meshes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardiogen.base import CardiogenError
from cardiogen.cli.requests import check_apart

if TYPE_CHECKING:
    import pandas as pd

    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation
    from cardiogen.measure.paths import Measured


def measure(
    path: str | Path,
    *,
    label_map: str | None = None,
    out: str | Path | None = None,
    frames: bool = False,
    segments: Literal[16, 17] | None = None,
    z_scores: bool = False,
    prefer: Prefer | None = None,
    orientation: Orientation | None = None,
    overwrite: bool = False,
) -> Measured:
    """Measure a NIfTI label map, a closed mesh, a subject's folder or a cohort.

    Args:
        path: file or folder; see :func:`cardiogen.measure.measure_path`.
        label_map: codes of the label files; needed where neither the layout nor a
            ``parameters.json`` of ours says it.
        out: CSV to write, one row a subject with ukbb_cardiac's column names.
        frames: also write ``<out>_frames.csv``, the volumes of every frame.
        segments: also write ``<out>_segments.csv``: wall thickness and volume of 16 or 17 AHA
            segments at end diastole.
        z_scores: add z-scores against the published ranges where sex and age are known.
        prefer: which geometry of a header to trust where its parts disagree.
        orientation: what is known better than the headers say: ``mirrored`` swaps anterior and
            inferior AHA segments.
        overwrite: whether the files may be replaced.

    Returns:
        Tables, and the failures of a folder beside them.

    Raises:
        CardiogenError: exit 3 if nothing can be measured, O01 (exit 8) if ``out`` exists.
    """
    from cardiogen.measure import measure_path

    path = Path(path)
    if not path.exists():
        raise CardiogenError(
            "N47", path, found="nothing", expected="a NIfTI or mesh file, or a cohort's folder",
            remedy="checking the path",
        )  # fmt: skip
    outputs = _outputs(out, frames=frames, segments=segments is not None)
    for file in outputs.values():
        check_apart(file, [path, path / "subjects.csv"])
    for file in outputs.values():
        if file.exists() and not overwrite:
            raise CardiogenError(
                "O01", file, found="an existing output", expected="a path that is not there yet",
                remedy="another --out, or --overwrite to replace it",
            )  # fmt: skip
    measured = measure_path(
        path, label_map=label_map, segments=segments, z_scores=z_scores, prefer=prefer,
        orientation=orientation,
    )  # fmt: skip
    tables = {"table": measured.table, "frames": measured.frames, "segments": measured.segments}
    if measured.table.empty and measured.failures:
        raise measured.failures[0]
    for name, file in outputs.items():
        _write(tables[name], file, overwrite)
    return measured


def _outputs(out: str | Path | None, *, frames: bool, segments: bool) -> dict[str, Path]:
    """Return the files to write by table."""
    if out is None:
        return {}
    out = Path(out)
    files = {"table": out}
    if frames:
        files["frames"] = out.with_name(f"{out.stem}_frames.csv")
    if segments:
        files["segments"] = out.with_name(f"{out.stem}_segments.csv")
    return files


def _write(table: pd.DataFrame, file: Path, overwrite: bool) -> None:
    from cardiogen.data.tables import write_table

    rounded = table.round(4)
    rows = rounded.astype(object).where(rounded.notna(), None).to_numpy().tolist()
    write_table(file, list(table.columns), rows, overwrite=overwrite)
