"""Tables of a cohort that grow heart by heart, and the journal that keeps them whole.

Rows are appended as hearts are made, so that memory does not depend on their number. What counts
is in ``cohort.json``, which is replaced atomically: the request, how many hearts are whole, and
the size of every table at that moment. Rows behind that size, which a crash may have torn, are cut
off when the work is taken up again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Self

from cardiogen.base import CardiogenError, write_json
from cardiogen.base.strict_json import parse_json, read_small
from cardiogen.data.tables import row_text, write_table
from cardiogen.export.tables import Cell

JOURNAL = "cohort.json"


class CohortTables:
    """CSV tables of a cohort, one row for every heart in each.

    Attributes:
        done: hearts that are in all tables, committed or not.
    """

    def __init__(self, folder: Path, columns: Mapping[str, Listing[str]], facts: dict) -> None:
        self.folder, self.columns = folder, {n: list(c) for n, c in columns.items()}
        self._facts = facts
        self._sizes: dict[str, int] = {}
        self.done = 0

    @classmethod
    def begin(
        cls, folder: str | Path, columns: Mapping[str, Listing[str]], request: dict, wanted: int
    ) -> Self:
        """Write empty tables and the journal into an existing folder.

        Args:
            folder: of the cohort.
            columns: of every table, by file name.
            request: what decides the bits of every heart; resuming asks for the same.
            wanted: number of hearts.
        """
        tables = cls(Path(folder), columns, {"request": request, "wanted": wanted})
        for name, names in tables.columns.items():
            write_table(tables.folder / name, names, [])
            tables._sizes[name] = (tables.folder / name).stat().st_size
        tables.commit()
        return tables

    @classmethod
    def resume(
        cls, folder: str | Path, columns: Mapping[str, Listing[str]], request: dict, wanted: int
    ) -> Self:
        """Take up the tables of a folder where its journal says that they are whole.

        Raises:
            CardiogenError: O05 (exit 8) for a folder of another request or one without a journal,
                C36 for a journal that is none.
        """
        tables = cls(Path(folder), columns, {"request": request, "wanted": wanted})
        journal = require_same_cohort(folder, request)
        for name in tables.columns:
            path = tables.folder / name
            size = journal["bytes"].get(name)
            if not isinstance(size, int) or not path.is_file() or path.stat().st_size < size:
                raise _other(tables.folder, f"{name} shorter than its journal says")
            tables._sizes[name] = size
        for name, size in tables._sizes.items():
            os.truncate(tables.folder / name, size)
        tables.done = journal["done"]
        tables._facts["wanted"] = max(wanted, tables.done)
        return tables

    def append(self, rows: Mapping[str, Iterable[Cell]]) -> None:
        """Add one heart: its row of every table, in the order of the columns."""
        if rows.keys() != self.columns.keys():
            raise ValueError(f"rows must be of {list(self.columns)}, got {list(rows)}")
        texts = {n: row_text(list(cells), width=len(self.columns[n])) for n, cells in rows.items()}
        for name, text in texts.items():
            with (self.folder / name).open("a", encoding="utf-8", newline="") as stream:
                stream.write(text)
        # Only now: an interruption above leaves rows that no journal counts.
        for name, text in texts.items():
            self._sizes[name] += len(text.encode("utf-8"))
        self.done += 1

    def commit(self) -> None:
        """Make everything appended so far survive a crash, the tables first, then the journal."""
        for name in self.columns:
            descriptor = os.open(self.folder / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        facts = {**self._facts, "done": self.done, "bytes": dict(self._sizes)}
        write_json(self.folder / JOURNAL, facts, overwrite=True)


def require_same_cohort(folder: str | Path, request: dict) -> dict:
    """Return the journal of a cohort that cardiogen made for a request; nothing is changed.

    Raises:
        CardiogenError: O05 for another request or another folder, C36 for a broken journal.
    """
    folder = Path(folder)
    journal = _read_journal(folder / JOURNAL)
    _require_same(journal, request, folder)
    return journal


def _read_journal(path: Path) -> dict:
    if not path.is_file():
        raise _other(path.parent, "no cohort that can be gone on with")
    journal = parse_json(read_small(path, code="C36"), path, code="C36")
    fields = {"request": dict, "wanted": int, "done": int, "bytes": dict}
    if not isinstance(journal, dict) or any(
        not isinstance(journal.get(name), kind) for name, kind in fields.items()
    ):
        raise CardiogenError(
            "C36", path, found="no journal of a cohort",
            expected=f"the fields {', '.join(fields)}", remedy="another --out",
        )  # fmt: skip
    return journal


def _require_same(journal: dict, request: dict, folder: Path) -> None:
    # As JSON, since that is what the journal holds.
    wanted = json.loads(json.dumps(request))
    for name in sorted(wanted.keys() | journal["request"].keys()):
        was, now = journal["request"].get(name), wanted.get(name)
        if was != now:
            raise _other(folder, f"a cohort made with {name} {was!r}, not {now!r}"[:300])


def _other(folder: Path, found: str) -> CardiogenError:
    return CardiogenError(
        "O05", folder, found=found, expected="the cohort of the same request, to go on with",
        remedy="another --out, or the options that it was begun with",
    )  # fmt: skip
