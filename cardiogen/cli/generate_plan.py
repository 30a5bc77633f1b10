"""What ``cardiogen generate`` shall make: one request a heart, made when it is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardiogen.base import CardiogenError, keyed_seed
from cardiogen.cli.requests import domain_reason, usage_error
from cardiogen.data.factors import Factors

if TYPE_CHECKING:
    from cardiogen.models.store import LoadedModel
    from cardiogen.models.target_values import Targets
    from cardiogen.models.targets import TargetedPrior

# Files beside the hearts of a cohort, whose names no heart can have.
COHORT_FILES = {"subjects.csv", "measures.csv", "latents.csv", "overview.png", "cohort.json",
                "meshes.zarr"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Request:
    """One heart to make; a pure function of these fields and the model.

    Attributes:
        subject_id: name of the heart; nothing is drawn from it.
        row_id: id of its row in a table, if there is one.
        index: number of the heart among those of the same row or of the same flags, from 0.
        latent: the heart itself, where it is not drawn.
        meshes_only: leave out the label maps.
        extrapolation_reason: why the model's training data do not cover it, if so.
    """

    subject_id: str
    row_id: str | None = None
    factors: Factors
    index: int
    seed: int
    frames: int
    phase_only: Literal["ed", "es"] | None
    spacing_mm: float
    allow_extrapolation: bool
    latent: tuple[float, ...] | None = None
    meshes_only: bool = False
    extrapolation_reason: str | None = None

    @property
    def draw_seed(self) -> int:
        """Seed that the heart is drawn with: each row of a table has its own.

        So other rows, their order and ``-n`` change nothing; flags with this seed give the same.
        """
        if self.row_id is None:
            return self.seed
        return keyed_seed(self.seed, f"generate/row/{self.row_id}")


@dataclass(frozen=True)
class Row:
    """What is asked of the hearts of one row of a table, or of the flags."""

    row_id: str
    factors: Factors
    latent: tuple[float, ...] | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All hearts of a run: each row's, in order.

    Attributes:
        rows: of a table, or the one of the flags.
        n: hearts for each row.
        from_table: whether hearts are named and drawn by their rows.
    """

    rows: tuple[Row, ...]
    n: int
    from_table: bool
    seed: int
    frames: int
    phase_only: Literal["ed", "es"] | None
    spacing_mm: float
    allow_extrapolation: bool
    meshes_only: bool

    def __len__(self) -> int:
        return len(self.rows) * self.n

    @property
    def extrapolated(self) -> bool:
        """Whether any heart is an extrapolation."""
        return any(row.reason is not None for row in self.rows)

    def request(self, number: int) -> Request:
        """Return heart ``number`` of the run, from 0."""
        row, k = self.rows[number // self.n], number % self.n
        return Request(
            subject_id=self._name(row.row_id, k),
            row_id=row.row_id if self.from_table else None,
            factors=row.factors,
            index=k,
            seed=self.seed,
            frames=self.frames,
            phase_only=self.phase_only,
            spacing_mm=self.spacing_mm,
            allow_extrapolation=self.allow_extrapolation,
            latent=row.latent,
            meshes_only=self.meshes_only,
            extrapolation_reason=row.reason,
        )

    def _name(self, row_id: str, k: int) -> str:
        """Name the folder of heart k: numbered if there are several of a kind.

        From two on, names do not depend on ``n``: the folders of ``-n 3`` are among those of
        ``-n 50``. Only a single heart does without a number; it is the same heart as number 1.
        """
        if not self.from_table:
            return f"heart_{k + 1:05d}" if self.n > 1 else "heart"
        return f"{row_id}_{k + 1:05d}" if self.n > 1 else row_id

    def chunks(self, first: int, size: int) -> Iterator[list[Request]]:
        """Yield the requests from number ``first`` on, ``size`` at a time."""
        for start in range(first, len(self), size):
            yield [self.request(k) for k in range(start, min(start + size, len(self)))]

    def facts(self) -> dict[str, object]:
        """Return what decides the hearts, for the journal of a cohort.

        Hearts of flags come in the order of their number, so that more of them can be made later;
        with a table ``n`` decides the order.
        """
        rows = [[row.row_id, row.factors.as_dict(), row.latent] for row in self.rows]
        table = hashlib.sha256(json.dumps(rows).encode()).hexdigest() if self.from_table else None
        return {
            "factors": None if self.from_table else self.rows[0].factors.as_dict(),
            "table_sha256": table,
            "hearts_a_row": self.n if self.from_table else None,
            "seed": self.seed,
            "frames": self.frames,
            "phase_only": self.phase_only,
            "spacing_mm": self.spacing_mm,
            "meshes_only": self.meshes_only,
        }


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


def guided_rows(
    rows: Listing[Row], loaded: LoadedModel, *, guidance: float, allow: bool
) -> list[Row]:
    """Return rows with the reason why guidance takes them outside the training data, if it does.

    Raises:
        CardiogenError: D09 (exit 5) for such a row, unless ``allow``; U44 for models that cannot
            be guided.
    """
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.targets import check_guidance

    found, reasons = [], {}
    for row in rows:
        if row.factors not in reasons:
            reasons[row.factors] = None
            try:
                check_guidance(loaded.model, encode_condition(row.factors), guidance)
            except CardiogenError as error:
                if error.code != "D09" or not allow:
                    where = error.where if len(rows) == 1 else f"{row.row_id}/{error.where}"
                    raise error.at(where) from error
                reasons[row.factors] = domain_reason(error)
        known = [reason for reason in (row.reason, reasons[row.factors]) if reason]
        found.append(Row(row.row_id, row.factors, row.latent, "; ".join(known) or None))
    return found


def targeted_rows(
    rows: Listing[Row],
    texts: Listing[str],
    loaded: LoadedModel,
    *,
    guidance: float,
    frames: int,
    allow: bool,
) -> tuple[list[Row], dict[Factors, TargetedPrior], dict[Factors, Targets]]:
    """Return rows with reasons, and for the factors of every row its prior given the targets.

    Raises:
        CardiogenError: U40-U44 for targets that make no sense, D07 (exit 5) for ones that hardly
            any heart of the model shows, unless ``allow``, D08 for ones that none shows.
    """
    from cardiogen.models.protocol import encode_condition
    from cardiogen.models.target_values import parse_targets
    from cardiogen.models.targets import condition_on_targets, guided_prior

    # All of them before the first one is worked on, which takes seconds.
    targets = {row.factors: parse_targets(texts, row.factors) for row in rows}
    priors, reasons, found = {}, {}, []
    for row in rows:
        factors = row.factors
        if factors not in priors:
            prior = guided_prior(loaded.model, encode_condition(factors), guidance)
            wanted = targets[factors]
            priors[factors] = condition_on_targets(loaded.model, prior, wanted, frames=frames)
            try:
                priors[factors].check_domain()
            except CardiogenError as error:
                if not allow:
                    raise error
                reasons[factors] = domain_reason(error)
        known = [reason for reason in (row.reason, reasons.get(factors)) if reason]
        found.append(Row(row.row_id, factors, row.latent, "; ".join(known) or None))
    return found, priors, targets
