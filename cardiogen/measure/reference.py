"""Published reference ranges of healthy adults, by sex and age, and z-scores against them.

Source: Healthy Hearts Consortium (Raisi-Estabragh et al., JACC CVI 2024, doi
10.1016/j.jcmg.2024.01.009), 95 % prediction intervals of White adults; the table lies beside this
file. Convention: ``smooth`` contours (papillary muscles in the blood pool) unless told otherwise.

Both bounds of every measure lie on straight lines in age: through 25, 35, ..., 75 years no rounded
bound is further than 0.48 off, less than rounding alone allows (with 24 and 77 years, the middles
of 18-29 and 70-83, it is 0.98). So these are the ages at which the authors evaluated their lines.
With one slope for both bounds, that is a standard deviation that does not depend on age, 0.66.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np

from cardiogen.base import CardiogenError

Convention = Literal["smooth", "papillary", "anatomical"]
Sex = Literal["F", "M"]

SOURCE = "HHC 2024, doi:10.1016/j.jcmg.2024.01.009"
AGE_BANDS = {"18-29": 25.0, "30-39": 35.0, "40-49": 45.0,
             "50-59": 55.0, "60-69": 65.0, "70+": 75.0}  # fmt: skip
AGE_RANGE = (18.0, 83.0)  # years of the participants
_INTERVAL_SD = 2 * 1.959964  # width of a central 95 % interval in standard deviations


@dataclass(frozen=True)
class Reference:
    """Normal distribution of a measure among healthy adults of one sex and age.

    Attributes:
        measure: ``LVEDV``, ``LVEF``, ...
        unit: ``mL``, ``g``, ``%``, ``mL/m2`` or ``g/m2``.
        mean: middle of the published interval.
        sd: its width over 3.92.
        lower: 2.5th percentile.
        upper: 97.5th percentile.
        source: citation.
    """

    measure: str
    unit: str
    mean: float
    sd: float
    lower: float
    upper: float
    source: str = SOURCE


def reference(
    measure: str,
    *,
    sex: Sex,
    age: float,
    convention: Convention = "smooth",
    by_decade: bool = False,
) -> Reference:
    """Return the reference of a measure at an age, on the straight line through the decades.

    Args:
        measure: ``LVEDV``, ``LVESV``, ``LVSV``, ``LVEF``, ``LVM``, ``RVEDV``, ``RVESV``, ``RVSV``,
            ``RVEF``, an indexed one such as ``LVEDVi``, an atrial one such as ``LAmax``, or a
            column name such as ``"LVEDV (mL)"``.
        sex: ``F`` or ``M``.
        age: years.
        convention: how contours treat papillary muscles and trabeculae.
        by_decade: return the published bounds of the age's decade instead of the line.

    Raises:
        CardiogenError: D20 for ages outside 18 to 83 years, U20 for an unknown measure.
        ValueError: for another sex or convention.
    """
    name = measure.split(" (")[0]
    if sex not in ("F", "M") or convention not in ("smooth", "papillary", "anatomical"):
        raise ValueError(f"sex must be F or M and convention known, got {sex!r}, {convention!r}")
    if not AGE_RANGE[0] <= age <= AGE_RANGE[1]:
        raise CardiogenError(
            "D20", "age", found=f"{age:g} years", expected="18 to 83 years, as in the source",
            remedy="an age for which healthy adults were measured",
        )  # fmt: skip
    if (convention, sex, name) not in _table():
        known = ", ".join(sorted({key[2] for key in _table()}))
        raise CardiogenError(
            "U20", "measure", found=repr(measure), expected=f"one of {known}",
            remedy="a measure of the reference table",
        )  # fmt: skip
    unit, bounds = _table()[convention, sex, name]
    if by_decade:
        lower, upper = bounds[_band(age)]
    else:
        (lower, lower_slope), (upper, upper_slope) = _lines(convention, sex, name)
        lower, upper = lower + lower_slope * age, upper + upper_slope * age
    return Reference(
        measure=name,
        unit=unit,
        mean=(lower + upper) / 2,
        sd=(upper - lower) / _INTERVAL_SD,
        lower=lower,
        upper=upper,
    )


def z_score(
    value: float, measure: str, *, sex: Sex, age: float, convention: Convention = "smooth"
) -> float:
    """Return how many standard deviations ``value`` lies above the mean of its sex and age."""
    expected = reference(measure, sex=sex, age=age, convention=convention)
    return (value - expected.mean) / expected.sd


def reference_measures(convention: Convention = "smooth") -> tuple[str, ...]:
    """Return the measures that the table has, in its order."""
    return tuple(dict.fromkeys(key[2] for key in _table() if key[0] == convention))


@cache
def _table() -> dict[tuple[str, str, str], tuple[str, dict[str, tuple[float, float]]]]:
    """(convention, sex, measure) -> unit and bounds by age band."""
    text = files("cardiogen.measure").joinpath("reference_ranges.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    table: dict[tuple[str, str, str], tuple[str, dict[str, tuple[float, float]]]] = {}
    for row in csv.DictReader(lines):
        key = (row["convention"], row["sex"], row["measure"])
        bounds = table.setdefault(key, (row["unit"], {}))[1]
        bounds[row["age_band"]] = (float(row["lower95"]), float(row["upper95"]))
    return table


@cache
def _lines(
    convention: str, sex: str, measure: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(Intercept, slope per year) of the lower and the upper bound, least squares.

    The published width is constant in age up to rounding; two parallel lines keep it so.
    """
    bounds = _table()[convention, sex, measure][1]
    ages = np.array([AGE_BANDS[band] for band in bounds])
    low, high = np.array(list(bounds.values())).T
    slope, middle = np.polyfit(ages, (low + high) / 2, 1)
    half = float(np.mean(high - low)) / 2
    return (float(middle) - half, float(slope)), (float(middle) + half, float(slope))


def _band(age: float) -> str:
    """Age band that holds an age in years."""
    starts = {band: float(band.rstrip("+").split("-")[0]) for band in AGE_BANDS}
    return [band for band, start in starts.items() if start <= age][-1]
