"""Tables of subjects: ids that stay text, factors in fixed units, every fault with its row."""

from __future__ import annotations

import re
import unicodedata
from difflib import get_close_matches
from pathlib import Path

from cardiogen.base import CardiogenError, Note
from cardiogen.data.factors import FACTORS, Factors, factor_faults, factor_of
from cardiogen.data.tables import Table, read_cells, table_fault

_SUSPICIOUS_IDS = {"na", "n/a", "nan", "none", "null", "true", "false", "inf"}
_DATE_LIKE = re.compile(
    r"(\d{1,2}-)?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)-?\d{0,4}", re.IGNORECASE
)


def read_factor_table(path: str | Path) -> list[tuple[str, Factors]]:
    """Read a table of factors, one row a subject.

    Columns are ``subject_id`` (optional; row numbers otherwise) and any of :data:`FACTORS`;
    other columns are ignored unless they look like a misspelled factor.

    Raises:
        CardiogenError: as :func:`read_table`; C12, C26 or C33 for ids, C13, C14, C24, C27 for
            values, C35 for misspelled columns or none.
    """
    table = read_cells(path)
    faults = misspelled_columns(table) + _no_factor_faults(table) + id_faults(table)
    if faults:
        raise faults[0]
    id_column = table.id_column
    subjects = []
    for number, (where, cells) in enumerate(table.records(), start=1):
        subject_id = cells[id_column] if id_column else f"row{number}"
        subjects.append((subject_id, Factors.from_mapping(cells, where=where)))
    return subjects


def misspelled_columns(table: Table) -> list[CardiogenError]:
    """Return C35 for columns that look like misspelled factors, such as ``height_m``."""
    known = [name for info in FACTORS.values() for name in (info.name, info.column)]
    faults = []
    for column in table.columns:
        near = get_close_matches(column.lower(), known, n=1, cutoff=0.8)
        if factor_of(column) is None and near:
            place, wanted = f"{table.path}:1/{column}", f"a known column such as {near[0]}"
            faults.append(table_fault("C35", place, f"column {column!r}", wanted, "renaming it"))
    return faults


def _no_factor_faults(table: Table) -> list[CardiogenError]:
    if any(factor_of(column) for column in table.columns):
        return []
    expected = f"any of {', '.join(info.column for info in FACTORS.values())}"
    found = f"columns {list(table.columns)}"
    return [table_fault("C35", f"{table.path}:1", found, expected, "renaming the columns")]


def row_faults(table: Table) -> list[CardiogenError]:
    """Return every fault of the factors of every row."""
    return [
        fault for where, cells in table.records() for fault in factor_faults(cells, where=where)
    ]


def id_faults(table: Table) -> list[CardiogenError]:
    """Return blank (C26), repeated (C12, L47) and path-like (C33) ids."""
    column, faults, seen = table.id_column, [], {}
    if column is None:
        return faults
    for where, cells in table.records():
        place, subject_id = f"{where}/{column}", cells[column]
        if not subject_id:
            faults.append(
                table_fault("C26", place, "a blank id", "an id in every row", "filling it")
            )
            continue
        if re.search(r"[/\\]|^\.\.?$|://", subject_id):
            found = f"id {subject_id!r}, which leads elsewhere"
            faults.append(table_fault("C33", place, found, "an id without slashes", "renaming it"))
        first, spelled = seen.setdefault(folded(subject_id), (where, subject_id))
        if first != where:
            code = "C12" if spelled == subject_id else "L47"
            found = f"id {subject_id!r}; {spelled!r} is in {first}"
            expected = "ids that differ in more than case"
            faults.append(table_fault(code, place, found, expected, "renaming one"))
    return faults


def id_notes(table: Table) -> list[Note]:
    """Return notes on ids that some program may have mangled (C02, C34)."""
    column, notes = table.id_column, []
    for where, cells in table.records() if column else ():
        subject_id = cells[column]
        if subject_id.lower() in _SUSPICIOUS_IDS:
            notes.append(Note("C02", f"{where}/{column}", f"id {subject_id!r} kept as text"))
        elif _DATE_LIKE.fullmatch(subject_id):
            text = f"id {subject_id!r} looks like a date that a spreadsheet made"
            notes.append(Note("C34", f"{where}/{column}", text))
    return notes


def folded(subject_id: str) -> str:
    """Return the form in which ids are compared: Unicode NFC, without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", subject_id).casefold())
