"""Violation: one written rule of anatomy that a heart breaks, and the hard bounds of the rules.

Bounds are limits of the possible, not normal ranges: healthy and diseased hearts (25 patients of
ACDC, five groups) lie inside all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Violation:
    """A broken rule.

    Attributes:
        rule: short name of the rule, for example ``one-component``.
        frame: index of the frame, or None if the whole cycle is at fault.
        detail: what was found, with structure and numbers.
    """

    rule: str
    frame: int | None
    detail: str

    def __str__(self) -> str:
        where = "cycle" if self.frame is None else f"frame {self.frame}"
        return f"{self.rule} ({where}): {self.detail}"


# Phenotype -> least and greatest possible value.
BOUNDS: dict[str, tuple[float, float]] = {
    "LVEDV (mL)": (40.0, 400.0),
    "LVESV (mL)": (8.0, 350.0),
    "LVEF (%)": (5.0, 85.0),
    "LVM (g)": (25.0, 400.0),
    "RVEDV (mL)": (30.0, 500.0),
    "RVESV (mL)": (8.0, 400.0),
    "RVEF (%)": (5.0, 90.0),
}


def check_bounds(row: dict[str, float]) -> list[Violation]:
    """Return the phenotypes outside ``BOUNDS``; missing ones (NaN) are no violation here."""
    found = []
    for name, (low, high) in BOUNDS.items():
        value = row.get(name, np.nan)
        if value < low or value > high:
            detail = f"{name} is {value:.1f}, possible is {low:g} to {high:g}"
            found.append(Violation("bounds", None, detail))
    return found
