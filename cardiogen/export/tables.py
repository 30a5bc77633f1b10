"""Measures as CSV: one row per subject, one row per frame, every row marked with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from cardiogen.data.factors import FACTORS, Factors
from cardiogen.data.tables import write_table
from cardiogen.export.marks import Marks

Cell = str | float | int | None

# Four decimals: finer than any measure is known, and short enough to read.
_DECIMALS = 4


def subject_row(
    subject_id: str,
    factors: Factors | None,
    measures: Mapping[str, float],
    *,
    marks: Marks,
    note: str | None = None,
) -> dict[str, Cell]:
    """Return one row of ``measures.csv``: id, origin, known factors, then the measures.

    A ``note`` (which values are empty and why; may be empty) is its last column; None leaves it
    out.
    """
    row: dict[str, Cell] = {"subject_id": subject_id} | marks.cells
    for name, info in FACTORS.items():
        row[info.column] = None if factors is None else getattr(factors, name)
    row |= dict(measures)

    return row if note is None else row | {"note": note}


def write_measures(
    path: str | Path, rows: Iterable[Mapping[str, Cell]], *, overwrite: bool = False
) -> Path:
    """Write one row per subject; the columns are those of the first row.

    Raises:
        CardiogenError: O01 if the file exists.
        ValueError: without rows, or if a row has other columns.
    """
    rows = list(rows)
    if not rows:
        raise ValueError("rows must hold at least one subject, got none")
    columns = list(rows[0])
    for number, row in enumerate(rows):
        if list(row) != columns:
            raise ValueError(f"row {number} must have the columns {columns}, got {list(row)}")
    cells = (rounded_cells(row) for row in rows)
    write_table(path, columns, cells, overwrite=overwrite)
    return Path(path)


def write_frames(
    path: str | Path,
    subject_id: str,
    columns: Mapping[str, ArrayLike],
    *,
    marks: Marks,
    overwrite: bool = False,
) -> Path:
    """Write one row per frame.

    Args:
        path: file to write, atomically.
        subject_id: neutral name, repeated in every row so that tables can be joined.
        columns: arrays ``(T,)`` by column name; a data frame serves as well.
        marks: origin of the heart, repeated in every row too.
        overwrite: whether an existing file may be replaced.

    Raises:
        CardiogenError: O01 if the file exists.
        ValueError: if the columns differ in length.
    """
    table: dict[str, Sequence] = {name: np.asarray(v).tolist() for name, v in columns.items()}
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns must have one length, got {lengths}")
    rows = (
        [subject_id, *marks.cells.values(), *map(_rounded, cells)]
        for cells in zip(*table.values(), strict=True)
    )
    write_table(path, ["subject_id", *marks.cells, *table], rows, overwrite=overwrite)
    return Path(path)


def rounded_cells(row: Mapping[str, Cell]) -> list[Cell]:
    """Return the cells of a row as tables hold them: four decimals at most."""
    return [_rounded(value) for value in row.values()]


def _rounded(value: Cell) -> Cell:
    return round(value, _DECIMALS) if isinstance(value, float) else value
