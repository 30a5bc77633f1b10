"""Of whom hearts are generated: the flags, or the rows of a table of factors or latents."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError
from cardiogen.cli.requests import domain_reason, usage_error
from cardiogen.data.factors import Factors

if TYPE_CHECKING:
    from cardiogen.models.store import LoadedModel

# Files beside the hearts of a cohort, whose names no heart can have.
COHORT_FILES = {"subjects.csv", "measures.csv", "latents.csv", "overview.png", "cohort.json",
                "meshes.zarr"}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What is asked of the hearts of one row of a table, or of the flags."""

    row_id: str
    factors: Factors
    latent: tuple[float, ...] | None = None
    reason: str | None = None


def read_rows(given: Factors, cohort: str | Path | None) -> list[Row]:
    """Return the rows of a table of factors, or that of the flags.

    Raises:
        CardiogenError: U01 for both, C33 for an id that cannot name a folder, and what
            ``read_factor_table`` refuses.
    """
    from cardiogen.data.factor_table import read_factor_table

    if cohort is None:
        return [Row("heart", given)]
    if given != Factors():
        raise usage_error(
            "--cohort", "factors beside a table", "either a table or flags", "columns in the table"
        )
    return named([Row(*row) for row in read_factor_table(cohort)], cohort)


def read_latent_rows(path: str | Path, loaded: LoadedModel, allow: bool) -> list[Row]:
    """Return the rows of a table of latents.

    Raises:
        CardiogenError: see ``export.latents.read_latents``; C33; D03 (exit 5) for latents that
            are no heart, D09 (exit 5) for ones far from those of all hearts, unless ``allow``.
    """
    from cardiogen.cli.generate_latents import latent_count, outside
    from cardiogen.export.latents import read_latents

    size = latent_count(loaded.model)
    sha256 = loaded.bundle.description.weights_sha256
    found = read_latents(path, size=size, sha256=sha256)
    rows = []
    for row in found:
        error = outside(loaded.model, row.latent, f"{path}/{row.subject_id}")
        if error is not None and not allow:
            raise error
        reason = domain_reason(error) if error else None
        if row.extrapolated and reason is None:
            reason = "extrapolated where the latents come from"
        rows.append(Row(row.subject_id, row.factors, row.latent, reason))
    return named(rows, path)


def named(rows: list[Row], path: str | Path) -> list[Row]:
    """Return rows of a file if their ids can name folders (C33)."""
    for row in rows:
        name = row.row_id
        if name.lower() in COHORT_FILES or name.startswith(".") or len(name.encode()) > 200:
            raise CardiogenError(
                "C33", f"{path}/subject_id", found=f"id {name[:80]!r}",
                expected="a name for a folder: no dot in front, at most 200 bytes, none of "
                + ", ".join(sorted(COHORT_FILES)), remedy="renaming it",
            )  # fmt: skip
    return rows


def checked_rows(rows: Listing[Row], loaded: LoadedModel, allow: bool) -> list[Row]:
    """Return rows with the reason of each extrapolation; without ``allow`` the first is an error.

    Raises:
        CardiogenError: D01 or D02 (exit 5).
    """
    from cardiogen.models.protocol import encode_condition

    found = []
    for row in rows:
        reason = row.reason
        try:
            loaded.model.check_condition(encode_condition(row.factors))
        except CardiogenError as error:
            if not allow:
                raise (
                    error if len(rows) == 1 else error.at(f"{row.row_id}/{error.where}")
                ) from error
            reason = domain_reason(error)
        found.append(Row(row.row_id, row.factors, row.latent, reason))
    return found
