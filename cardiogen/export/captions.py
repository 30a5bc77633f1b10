"""What a picture says of a heart: the subject, its measures, and what is normal for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cardiogen.data.factors import Factors


def describe_factors(factors: Factors | None) -> str:
    """Return what is known of a subject in a few words: ``"Woman, 70 years · 162 cm"``."""
    if factors is None:
        return ""
    who = {"F": "Woman", "M": "Man", None: "Heart"}[factors.sex]
    known = [f"{who}, {factors.age:.0f} years" if factors.age is not None else who]
    for value, unit in ((factors.height, "cm"), (factors.weight, "kg"), (factors.sbp, "mmHg")):
        if value is not None:
            known.append(f"{value:.0f} {unit}")
    return " · ".join(known)


def describe_measures(measures: Mapping[str, float]) -> str:
    """Return volumes, ejection fractions and mass in one line; unknown ones are left out."""
    parts = []
    for column in ("LVEDV (mL)", "LVESV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)", "RVEF (%)"):
        value = measures.get(column, np.nan)
        if np.isfinite(value):
            name, unit = column.rstrip(")").split(" (")
            parts.append(f"{name} {value:.0f} {unit}")
    return "   ".join(parts)


def reference_bands(factors: Factors | None) -> dict[str, tuple[float, float]]:
    """Return the 95 % ranges of ventricular volumes for a subject's sex and age, by column.

    Empty if sex or age is unknown, or where nobody of that age was measured.
    """
    from cardiogen.measure.reference import AGE_RANGE, reference

    if factors is None or factors.sex is None or factors.age is None:
        return {}
    if not AGE_RANGE[0] <= factors.age <= AGE_RANGE[1]:
        return {}
    found = {}
    for column in ("LVEDV (mL)", "LVESV (mL)", "RVEDV (mL)", "RVESV (mL)"):
        entry = reference(column, sex=factors.sex, age=factors.age)
        found[column] = (entry.lower, entry.upper)
    return found
