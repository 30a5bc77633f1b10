"""Conditions as a table of named columns with units, NaN where one is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.models.protocol import CONDITION_COLUMNS, CONDITION_UNITS
from cardiogen.nn import drop_factors

_RARE = 1e-4


@dataclass(frozen=True, eq=False)
class ConditionTable:
    """What the columns of a condition vector are, and where the training data lies.

    Attributes:
        names: of the columns.
        units: of the columns.
        mean: ``(C,)`` in native units.
        sd: ``(C,)``.
        low: least value seen ``(C,)``.
        high: largest value seen ``(C,)``.
        correlation: of the columns ``(C, C)``.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    correlation: NDArray[np.float64]

    def check(self, condition: ArrayLike) -> None:
        """Refuse a value outside its training range (D01) or an unseen combination (D02)."""
        from scipy.special import chdtri

        values = np.asarray(condition, np.float64)
        if values.shape != self.mean.shape:
            raise ValueError(f"condition must be ({len(self.mean)},), got {values.shape}")
        for name, unit, value, low, high in zip(
            self.names, self.units, values, self.low, self.high, strict=True
        ):
            if not np.isnan(value) and not np.floor(low) <= value <= np.ceil(high):
                raise CardiogenError(
                    "D01", name, found=f"{value:g} {unit}",
                    expected=f"{np.floor(low):g} to {np.ceil(high):g} {unit}, the range of the "
                    "training data",
                    remedy="a value in that range, or --allow-extrapolation (outputs are marked)",
                )  # fmt: skip
        known = ~np.isnan(values)
        if not known.any():
            return
        offset = ((values - self.mean) / self.sd)[known]
        distance = float(offset @ np.linalg.solve(self.correlation[np.ix_(known, known)], offset))
        limit = float(chdtri(int(known.sum()), _RARE))
        # Alone, every value is in its range: only a combination can be refused here.
        if known.sum() > 1 and distance > limit:
            raise CardiogenError(
                "D02", "conditions", found="a combination that hardly any subject shows",
                expected=f"a squared distance to the training data of at most {limit:.0f}, "
                f"not {distance:.0f}",
                remedy="checking units, or --allow-extrapolation (outputs are marked)",
            )  # fmt: skip


def describe_conditions(
    conditions: ArrayLike,
    *,
    names: tuple[str, ...] = CONDITION_COLUMNS,
    units: tuple[str, ...] = CONDITION_UNITS,
) -> ConditionTable:
    """Return the table of conditions ``(N, C)``, NaN where missing.

    Raises:
        CardiogenError: C28 for a column that is missing in all but one subject.
        ValueError: for names and units that do not fit.
    """
    values = np.asarray(conditions, np.float64)
    if values.ndim != 2 or values.shape[1] != len(names) or len(names) != len(units):
        raise ValueError(
            f"conditions must be (N, {len(names)}) with as many units, got {values.shape} and "
            f"{len(units)} units"
        )
    counts = (~np.isnan(values)).sum(axis=0)
    if (counts < 2).any():
        column = names[int(counts.argmin())]
        raise CardiogenError(
            "C28", column, found=f"{counts.min()} known values", expected="2 or more",
            remedy="a larger cohort, or leaving the column out",
        )  # fmt: skip
    mean, sd = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    # Missing values at their mean only weaken a correlation: the joint check gets more tolerant.
    standard = np.nan_to_num((values - mean) / sd)
    correlation = standard.T @ standard / len(values)
    np.fill_diagonal(correlation, 1.0)
    return ConditionTable(
        tuple(names), tuple(units), mean, sd, np.nanmin(values, axis=0),
        np.nanmax(values, axis=0), (1 - 1e-6) * correlation + 1e-6 * np.eye(len(mean)),
    )  # fmt: skip


def drop_conditions(conditions: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return conditions with a share of the values missing, and all of as many hearts.

    Args:
        conditions: ``(B, C)``.
        share: chance of every value, and of every heart to lose all of them at once.
        generator: on the device of ``conditions``.
    """
    single = drop_factors(conditions, share, generator=generator)
    chance = torch.rand(len(conditions), 1, generator=generator, device=conditions.device)

    return single.masked_fill(chance < share, float("nan"))
