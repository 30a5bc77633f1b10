"""Numbers with their uncertainty, and the rows that are refused instead of imputed.

Every function of this package refuses values that are not finite. A subject whose measure failed
is a failure to be counted: ``complete_rows`` takes such rows out and says how many there were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Estimate:
    """A number and its confidence interval at ``level``."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def contains(self, number: float) -> bool:
        """Whether ``number`` lies in the interval, bounds included."""
        return self.low <= number <= self.high

    def overlaps(self, other: Estimate) -> bool:
        """Whether the two intervals have a point in common."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True, eq=False)
class Draws:
    """One number per repeated draw of subjects, ``values (K,)``."""

    values: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Mean over the draws."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Error of the mean by the number of draws; NaN for one draw.

        Draws share subjects, so the error by the size of the cohort is not in it: compare with as
        many draws of real against real.
        """
        if len(self.values) < 2:
            return float("nan")
        return float(self.values.std(ddof=1) / np.sqrt(len(self.values)))

    def __str__(self) -> str:
        return f"{self.mean:.4g} (SE {self.standard_error:.2g}, {len(self.values)} draws)"


@dataclass(frozen=True, eq=False)
class Complete:
    """Rows that every table has, and how many failed.

    Attributes:
        tables: the given tables without the failed rows.
        kept: mask ``(N,)`` of the rows that stayed.
        failures: number of rows with a value that is not finite in any table.
    """

    tables: tuple[NDArray[np.float64], ...]
    kept: NDArray[np.bool_]
    failures: int

    @property
    def failure_rate(self) -> float:
        """Failures as a share of all rows; NaN of no rows."""
        return self.failures / len(self.kept) if len(self.kept) else float("nan")


def complete_rows(*tables: ArrayLike) -> Complete:
    """Take the rows out that hold a NaN or infinity in any of the tables ``(N, ...)``.

    Raises:
        ValueError: if there is no table or they differ in their number of rows.
    """
    arrays = [np.asarray(table, dtype=np.float64) for table in tables]
    if not arrays or len({a.shape[:1] for a in arrays}) != 1 or arrays[0].ndim == 0:
        shapes = [a.shape for a in arrays]
        raise ValueError(f"tables must be given and share their first axis, got {shapes}")
    kept = np.ones(len(arrays[0]), dtype=bool)
    for array in arrays:
        kept &= np.isfinite(array).reshape(len(array), -1).all(axis=1)
    return Complete(tuple(a[kept] for a in arrays), kept, int((~kept).sum()))


def finite(values: ArrayLike, name: str, *, ndim: int, least: int = 1) -> NDArray[np.float64]:
    """Return ``values`` as float64, or refuse other shapes, too few rows and what is not finite.

    Args:
        values: array whose first axis is subjects.
        name: what the message calls it.
        ndim: wanted number of axes.
        least: least number of rows.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or len(array) < least:
        raise ValueError(
            f"{name} must have {ndim} axes and at least {least} rows, got shape {array.shape}"
        )
    failed = int((~np.isfinite(array)).reshape(len(array), -1).any(axis=1).sum())
    if failed:
        raise ValueError(
            f"{name} must be finite, got {failed} failed rows of {len(array)}; take them out with "
            "complete_rows and report their number"
        )
    return array


def same_rows(**tables: NDArray[np.float64]) -> None:
    """Refuse tables of different numbers of subjects."""
    counts = {name: len(table) for name, table in tables.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"tables must have one row per subject, got rows {counts}")
