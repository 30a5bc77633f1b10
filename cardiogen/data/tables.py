"""Clinical tables as text: a strict CSV reader that changes no cell, and a writer that escapes.

pandas guesses: 0012 becomes 12, the id NA becomes missing, a trailing comma shifts all columns.
Here every cell stays the text that it is, and what cannot be one rectangle of UTF-8 text is
refused with its row; rows are counted as in an editor, the header being row 1.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, Note, atomic_write, read_bounded

if TYPE_CHECKING:
    import pandas as pd

_LIMIT = 256 << 20
ID_COLUMNS = ("subject_id", "subject", "patient", "participant_id", "id", "eid")


@dataclass(frozen=True)
class Table:
    """Cells of a CSV file.

    Attributes:
        path: where it came from.
        columns: trimmed names.
        rows: trimmed cells.
        lines: row number in the file of every row, the header being row 1.
        notes: what was trimmed.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    notes: tuple[Note, ...] = ()

    @property
    def id_column(self) -> str | None:
        """Name of the column that holds subject ids, or None."""
        plain = {name.lower(): name for name in reversed(self.columns)}
        return next((plain[name] for name in ID_COLUMNS if name in plain), None)

    def records(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield ``path:row`` and the cells by column, row by row."""
        for line, row in zip(self.lines, self.rows, strict=True):
            yield f"{self.path}:{line}", dict(zip(self.columns, row, strict=True))


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a CSV file as text.

    Returns:
        Data frame of ``str``; empty cells are ``""``, no cell is interpreted.

    Raises:
        CardiogenError: C05-C11, C16-C19, C23 for the first fault, with its row.
    """
    import pandas as pd

    table = read_cells(path)
    return pd.DataFrame(list(table.rows), columns=list(table.columns), dtype=str)


def read_cells(path: str | Path) -> Table:
    """Read a CSV file as :class:`Table`; raises the first fault."""
    table, faults = scan_table(path)
    if faults:
        raise faults[0]
    return table


def scan_table(path: str | Path) -> tuple[Table, list[CardiogenError]]:
    """Read what can be read of a CSV file, with all its faults in order of rows."""
    path = Path(path)
    try:
        text = _text(path)
        names, records = _split(text, path)
    except CardiogenError as error:
        return Table(path, (), (), ()), [error]
    columns = tuple(name.strip() for name in names)
    faults = _column_faults(columns, names, path)
    rows, lines = [], []
    padded = columns != tuple(names)
    for line, cells in records:
        fault = _row_fault(cells, len(columns), f"{path}:{line}")
        if fault:
            faults.append(fault)
            continue
        rows.append(tuple(cell.strip() for cell in cells))
        lines.append(line)
        padded |= rows[-1] != tuple(cells)
    if not records:
        faults.append(table_fault("C19", path, "a header only", "rows of data", "exporting again"))
    notes = (Note("C22", str(path), "padding around names or values was trimmed"),)
    return Table(path, columns, tuple(rows), tuple(lines), notes if padded else ()), faults


def write_table(
    path: str | Path,
    columns: Iterable[str],
    rows: Iterable[Iterable[object]],
    *,
    overwrite: bool = False,
) -> None:
    """Write a UTF-8 CSV file atomically.

    None and NaN become empty cells; text that a spreadsheet would run as a formula (it starts
    with ``= + - @``, a tab or a return, and is no number) gets a leading apostrophe.

    Raises:
        CardiogenError: O01 if the file exists, R01 if it cannot be written.
    """
    columns = list(columns)
    with (
        atomic_write(path, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([_cell(name) for name in columns])
        for row in rows:
            stream.write(row_text(list(row), width=len(columns)))


def row_text(cells: list[object], *, width: int) -> str:
    """Return one line of CSV, as ``write_table`` writes it, with its line end."""
    if len(cells) != width:
        raise ValueError(f"row must have {width} cells, got {len(cells)}")
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow([_cell(value) for value in cells])
    return stream.getvalue()


def _cell(value: object) -> str:
    # NaN alone differs from itself, in every float type.
    if value is None or value != value:
        return ""
    if isinstance(value, str) and value[:1] in tuple("=+-@\t\r"):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return str(value)


def table_fault(
    code: str, where: str | Path, found: str, expected: str, remedy: str
) -> CardiogenError:
    """Return an error in one line."""
    return CardiogenError(code, where, found=found, expected=expected, remedy=remedy)


def _text(path: Path) -> str:
    content = read_bounded(path, limit=_LIMIT, family="C")
    if not content.strip():
        raise table_fault(
            "C18", path, f"an empty file, {len(content)} bytes", "a CSV table", "exporting again"
        )
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00\x00" in (
        content[0:4:2],
        content[1:4:2],
    ):
        raise table_fault("C09", path, "UTF-16 encoding", "UTF-8", "saving as CSV UTF-8")
    if b"\x00" in content:
        row = content[: content.index(b"\x00")].count(b"\n") + 1
        raise table_fault("C16", f"{path}:{row}", "a NUL byte", "text", "exporting again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise table_fault(
            "C10",
            f"{path}:{row}",
            f"byte {content[error.start]:#04x}, perhaps Latin-1",
            "UTF-8",
            "saving as CSV UTF-8",
        ) from error


def _split(text: str, path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows with their row numbers; blank lines are skipped."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records, line = [], 1
    try:
        for cells in reader:
            if cells:
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise table_fault(
            "C17",
            f"{path}:{line}",
            f"an open or stray quote ({error})",
            "quotes in pairs",
            "closing the quote",
        ) from error
    (_, names), *rest = records
    if len(names) == 1 and re.search(r"[;\t|]", names[0]):
        raise table_fault(
            "C05",
            f"{path}:1",
            f"1 column found: {names[0]!r}",
            "commas between columns",
            "exporting with commas",
        )
    return names, rest


def _column_faults(columns: tuple[str, ...], names: list[str], path: Path) -> list[CardiogenError]:
    faults, seen = [], set()
    if names[0].lstrip().startswith("#"):
        faults.append(
            table_fault("C23", f"{path}:1", "a comment line", "the header", "removing it")
        )
    for name in columns:
        if not name:
            faults.append(
                table_fault(
                    "C06",
                    f"{path}:1",
                    "a column without a name (trailing comma?)",
                    "a name for every column",
                    "removing it",
                )
            )
        elif name.lower() in seen:
            faults.append(
                table_fault(
                    "C11",
                    f"{path}:1/{name}",
                    f"column {name!r} twice",
                    "different names",
                    "removing or renaming one",
                )
            )
        seen.add(name.lower())
    return faults


def _row_fault(cells: list[str], width: int, where: str) -> CardiogenError | None:
    if cells[0].lstrip().startswith("#"):
        return table_fault("C23", where, "a comment line", "a row of data", "removing it")
    if len(cells) == width + 1 and not cells[-1].strip():
        return table_fault("C06", where, "a trailing comma", f"{width} cells", "removing it")
    if len(cells) != width:
        return table_fault(
            "C07",
            where,
            f"{len(cells)} cells",
            f"{width} cells as in the header",
            "completing the row, or quoting cells that hold commas",
        )
    return None
