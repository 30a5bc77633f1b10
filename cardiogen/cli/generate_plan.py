"""What ``cardiogen generate`` shall make: one request a heart, made when it is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cardiogen.base import keyed_seed
from cardiogen.cli.generate_rows import Row
from cardiogen.data.factors import Factors


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
