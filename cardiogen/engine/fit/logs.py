"""Tables of a run: rows of ``log.csv`` and ``validation.csv``.

A row averages the steps since the last one. Sums of the unfinished row are kept in checkpoints, so
the rows of a resumed run are those of an uninterrupted one, but for the column ``seconds``.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cardiogen.base import CardiogenError, atomic_write
from cardiogen.engine.fit.latents import active_units
from cardiogen.engine.fit.task import KL_PER_LATENT

Row = dict[str, float]


@dataclass
class Window:
    """Sums over the steps of the row that is not yet written.

    Attributes:
        names: of what is summed, with ``kl_per_latent`` repeated for every latent.
        sums: one for every name.
        count: steps in the sums.
        skipped: steps that were not, since they were not finite.
    """

    names: tuple[str, ...] = ()
    sums: list[float] = field(default_factory=list)
    count: int = 0
    skipped: int = 0

    def add(self, names: tuple[str, ...], values: Sequence[float]) -> None:
        """Add the values of a step, whose names are the same in every step."""
        if self.count and names != self.names:
            raise ValueError(
                f"loss must return the same names in every step, got {names} after {self.names}"
            )
        self.sums = list(values) if not self.count else [
            total + value for total, value in zip(self.sums, values, strict=True)
        ]  # fmt: skip
        self.names, self.count = names, self.count + 1

    def skip(self, names: tuple[str, ...]) -> None:
        """Count a step whose values are not to be used."""
        self.names = self.names or names
        self.skipped += 1

    def means(self) -> Row:
        """Return the mean of every name; NaN where every step was skipped."""
        mean = np.array(self.sums) / self.count if self.count else np.full(len(self.names), np.nan)
        row = {n: float(m) for n, m in zip(self.names, mean, strict=True) if n != KL_PER_LATENT}
        kl = [m for n, m in zip(self.names, mean, strict=True) if n == KL_PER_LATENT]
        if kl:
            row |= {"kl": float(np.sum(kl)), "active_units": active_units(torch.tensor(kl))}
        return row

    def restart(self) -> None:
        """Begin the next row."""
        self.sums, self.count, self.skipped = [0.0] * len(self.names), 0, 0


class Table:
    """A CSV file that grows row by row and is cut back to the step of a resumed checkpoint.

    Args:
        path: of the file; None keeps the rows in memory alone.
        last_step: rows after it are dropped, as are rows that a power cut left half-written.
    """

    def __init__(self, path: Path | None, last_step: int) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path is not None and path.is_file():
            self.rows = [row for row in _read_rows(path) if row["step"] <= last_step]
            with atomic_write(path, overwrite=True) as temporary:
                temporary.write_text(_csv_text(self.rows, header=True), encoding="utf-8")

    def append(self, row: Row) -> None:
        """Add a row, with the same columns as all others."""
        if self.rows and list(row) != list(self.rows[0]):
            raise ValueError(f"columns must be {list(self.rows[0])}, got {list(row)}")
        first = not self.rows
        self.rows.append(row)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(_csv_text([row], header=first))

    def flush(self) -> None:
        """Bring the rows to the disk, before a checkpoint that stands on them."""
        if self.path is not None and self.path.is_file():
            with self.path.open("a", encoding="utf-8") as stream:
                os.fsync(stream.fileno())


def _csv_text(rows: Sequence[Row], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header and rows:
        writer.writerow(rows[0])
    writer.writerows([repr(value) for value in row.values()] for row in rows)
    return text.getvalue()


def _read_rows(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8")
        # What follows the last line break was being written when the power went.
        lines = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
        if lines and lines[0][:1] != ["step"]:
            raise ValueError(f"columns {lines[0]}")
        return [
            {name: _number(value) for name, value in zip(lines[0], line, strict=True)}
            for line in lines[1:]
        ]
    except (ValueError, csv.Error) as error:
        raise CardiogenError(
            "M08", path, found=str(error), expected="the table that this run wrote",
            remedy="moving the file away: the run goes on without its earlier rows",
        ) from error  # fmt: skip


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
