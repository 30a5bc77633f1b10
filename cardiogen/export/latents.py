"""Latents as CSV: one row a heart, with what is needed to decode it again and nothing rounded.

Columns are ``subject_id``, the marks, the known factors, ``model_sha256`` (of the weights, since
latents mean nothing to another model) and ``z001`` to ``zNNN``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path

from cardiogen.base import CardiogenError
from cardiogen.data.factor_table import id_faults
from cardiogen.data.factors import Factors
from cardiogen.data.tables import Table, read_cells, write_table
from cardiogen.export.marks import Marks
from cardiogen.export.tables import Cell, subject_row

HASH_COLUMN = "model_sha256"


@dataclass(frozen=True)
class LatentRow:
    """One heart of a table of latents."""

    subject_id: str
    factors: Factors
    latent: tuple[float, ...]
    extrapolated: bool


def latent_columns(size: int) -> list[str]:
    """Return ``z001``, ``z002``, ... of ``size`` latents."""
    return [f"z{k + 1:03d}" for k in range(size)]


def latent_row(
    subject_id: str, factors: Factors | None, latent: Listing[float], *, sha256: str, marks: Marks
) -> dict[str, Cell]:
    """Return the row of one heart by column."""
    values = dict(zip(latent_columns(len(latent)), map(float, latent), strict=True))
    return subject_row(subject_id, factors, {}, marks=marks) | {HASH_COLUMN: sha256} | values


def write_latents(
    path: str | Path, rows: Listing[dict[str, Cell]], *, overwrite: bool = False
) -> Path:
    """Write rows of :func:`latent_row`, every number to its last bit.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    write_table(path, list(rows[0]), [row.values() for row in rows], overwrite=overwrite)
    return Path(path)


def read_latents(path: str | Path, *, size: int, sha256: str) -> list[LatentRow]:
    """Read a table of latents for a model.

    Args:
        path: CSV file as :func:`write_latents` writes it; a first row without ``subject_id``
            names its rows by number.
        size: number of latents of the model.
        sha256: of the model's weights.

    Raises:
        CardiogenError: exit 3: C60 for missing or unknown latents, C61 for a cell that is no
            finite number, C62 for latents of another model; ids and factors as in tables of
            factors.
    """
    table = read_cells(path)
    faults = id_faults(table)
    if faults:
        raise faults[0]
    names = latent_columns(size)
    _check_columns(table, names)
    rows = []
    for number, (where, cells) in enumerate(table.records(), start=1):
        if cells[HASH_COLUMN] != sha256:
            raise CardiogenError(
                "C62", f"{where}/{HASH_COLUMN}", found=f"{cells[HASH_COLUMN][:16] or 'nothing'}",
                expected=f"{sha256[:16]}..., the model's own",
                remedy="--model with the bundle that the latents are of",
            )  # fmt: skip
        column = table.id_column
        rows.append(
            LatentRow(
                subject_id=cells[column] if column else f"row{number}",
                factors=Factors.from_mapping(cells, where=where),
                latent=tuple(_number(cells[name], f"{where}/{name}") for name in names),
                extrapolated=cells.get("extrapolated") == "1",
            )
        )
    return rows


def _check_columns(table: Table, names: list[str]) -> None:
    shown = [c for c in table.columns if c[:1] == "z" and c[1:].isdigit()]
    wrong = sorted(set(names) ^ set(shown)) + [HASH_COLUMN] * (HASH_COLUMN not in table.columns)
    if wrong:
        raise CardiogenError(
            "C60", f"{table.path}:1", found=f"columns missing or unknown: {', '.join(wrong[:5])}",
            expected=f"{HASH_COLUMN} and {names[0]} to {names[-1]}, the latents of the model",
            remedy="a table that --latents-out wrote with the same model",
        )  # fmt: skip


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CardiogenError(
            "C61", where, found=repr(text), expected="a finite number", remedy="mending the cell"
        )
    return value
