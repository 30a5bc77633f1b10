"""Clinical factors of a subject: age, sex, height, weight, systolic pressure; any may be missing.

Units are fixed and named: years, cm, kg, mmHg. A value that fits another unit better is refused
with that unit named, since 1.75 read as centimeters poisons every index computed from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Literal

from cardiogen.base import CardiogenError

Sex = Literal["F", "M"]


@dataclass(frozen=True)
class FactorInfo:
    """One row of the table of factors.

    Attributes:
        name: attribute of :class:`Factors`.
        column: column that we write; ``aliases`` are read as well.
        unit: unit, empty for categories.
        low: smallest value that a living person can have.
        high: largest such value.
        description: for ``--help`` and reports.
        aliases: other column names that mean the same in the same unit.
    """

    name: str
    column: str
    unit: str
    low: float
    high: float
    description: str
    aliases: tuple[str, ...] = ()


FACTORS: dict[str, FactorInfo] = {
    info.name: info
    for info in (
        FactorInfo("age", "age", "years", 0, 120, "age at the scan", ("age_years",)),
        FactorInfo("sex", "sex", "", 0, 1, "F or M"),
        FactorInfo("height", "height_cm", "cm", 40, 250, "standing height", ("height",)),
        FactorInfo("weight", "weight_kg", "kg", 1, 350, "body weight", ("weight",)),
        FactorInfo("sbp", "sbp_mmhg", "mmHg", 40, 300, "systolic blood pressure", ("sbp",)),
    )
}

# Digits, a point, an exponent; no spaces, underscores, hexadecimals, nan or inf, all of which
# float() would take.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_BMI, _MIN_BMI = 100.0, 8.0


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What is known of a subject; None is unknown.

    Attributes:
        age: years.
        sex: ``"F"`` or ``"M"``.
        height: cm.
        weight: kg.
        sbp: systolic blood pressure, mmHg.

    Raises:
        CardiogenError: C13 outside the range of living persons, C24 for another sex, C27 for
            values that fit another unit.
    """

    age: float | None = None
    sex: Sex | None = None
    height: float | None = None
    weight: float | None = None
    sbp: float | None = None

    def __post_init__(self) -> None:
        if self.sex not in (None, "F", "M"):
            raise _bad_sex(str(self.sex))
        for name in ("age", "height", "weight", "sbp"):
            value = getattr(self, name)
            if value is not None:
                _check_range(FACTORS[name], float(value))
                object.__setattr__(self, name, float(value))
        _check_build(self)

    @property
    def bsa(self) -> float | None:
        """Body surface area, m2: ``sqrt(height * weight / 3600)`` (Mosteller, NEJM 1987)."""
        if self.height is None or self.weight is None:
            return None
        return math.sqrt(self.height * self.weight / 3600.0)

    @property
    def bmi(self) -> float | None:
        """Body mass index, kg/m2."""
        if self.height is None or self.weight is None:
            return None
        return self.weight / (self.height / 100.0) ** 2

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the unknown factors."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is None)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], *, where: str = "factors") -> Factors:
        """Return the factors found in a mapping of names or columns to values or text.

        Keys are names, columns or aliases of :data:`FACTORS` (any case); other keys are ignored.
        Empty text and None are unknown.

        Raises:
            CardiogenError: C11 for one factor given twice, C13, C14, C24, C27.
        """
        found: dict[str, object] = {}
        for key, value in values.items():
            name = factor_of(key)
            if name is None:
                continue
            if name in found:
                raise CardiogenError(
                    "C11", where, found=f"{name} twice", expected="one column for each factor",
                    remedy=f"keeping only {FACTORS[name].column}",
                )  # fmt: skip
            found[name] = value
        try:
            return cls(**{name: _parsed(name, value) for name, value in found.items()})
        except CardiogenError as error:
            raise error.at(f"{where}/{error.where}") from error

    def as_dict(self) -> dict[str, float | str | None]:
        """Return the factors by name, unknown ones as None."""
        return asdict(self)


def factor_faults(values: Mapping[str, object], *, where: str) -> list[CardiogenError]:
    """Return every fault of the factors in a mapping, where ``from_mapping`` stops at one."""
    try:
        Factors.from_mapping(values, where=where)
    except CardiogenError as error:
        first = error
    else:
        return []
    faults = []
    for key, value in values.items():
        try:
            Factors.from_mapping({key: value}, where=where)
        except CardiogenError as error:
            faults.append(error)
    # Where each value is sound alone, only together they are not.
    return faults or [first]


def factor_of(column: str) -> str | None:
    """Return the factor that a column name stands for, or None."""
    plain = column.strip().lower()
    for info in FACTORS.values():
        if plain in (info.name, info.column, *info.aliases):
            return info.name
    return None


def parse_number(text: str, where: str) -> float:
    """Return the number that ``text`` spells in plain decimal notation.

    Raises:
        CardiogenError: C04 for a decimal comma, C21 for grouped digits, C13 for nan, inf and
            overflow, C14 for other text.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    code, expected = "C14", "a number such as 70 or 70.5"
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+", text):
        code, expected = "C21", "a number without grouped digits"
    elif re.fullmatch(r"[+-]?\d+,\d+", text):
        code, expected = "C04", "a decimal point"
    elif re.fullmatch(r"\d+\+", text):
        code, expected = "C15", "an exact value; a censored one carries no age"
    elif re.fullmatch(r"[+-]?(nan|inf(inity)?)", text, re.IGNORECASE) or _NUMBER.fullmatch(text):
        code, expected = "C13", "a finite number"
    raise CardiogenError(
        code, where, found=repr(text), expected=expected, remedy="correcting the value",
    )  # fmt: skip


def _parsed(name: str, value: object) -> float | str | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if name == "sex":
        return _parse_sex(value)
    if isinstance(value, str):
        return parse_number(value, name)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise CardiogenError(
            "C14", name, found=repr(value), expected="a number", remedy="correcting the value"
        )
    return float(value)


def _parse_sex(value: object) -> Sex:
    plain = str(value).strip().lower()
    if plain in ("f", "female"):
        return "F"
    if plain in ("m", "male"):
        return "M"
    raise _bad_sex(str(value))


def _bad_sex(found: str) -> CardiogenError:
    return CardiogenError(
        "C24", "sex", found=repr(found), expected="F or M (female, male), or empty if unknown",
        remedy="translating other codes; 0 and 1 mean different things in different tables",
    )  # fmt: skip


def _check_range(info: FactorInfo, value: float) -> None:
    if math.isfinite(value) and info.low <= value <= info.high:
        return
    code, hint = "C13", "correcting the value"
    if info.name == "height" and 0.4 <= value <= 2.5:
        code, hint = "C27", f"centimeters: this looks like meters ({value * 100:g} cm)"
    elif info.name == "height" and 400 <= value <= 2500:
        code, hint = "C27", f"centimeters: this looks like millimeters ({value / 10:g} cm)"
    elif info.name == "weight" and 1000 <= value <= 350_000:
        code, hint = "C27", f"kilograms: this looks like grams ({value / 1000:g} kg)"
    elif info.name == "sbp" and 5 <= value <= 35:
        code, hint = "C27", f"mmHg: this looks like kPa ({value * 7.50062:.0f} mmHg)"
    raise CardiogenError(
        code, info.name, found=f"{value:g}",
        expected=f"{info.low:g} to {info.high:g} {info.unit}", remedy=hint,
    )  # fmt: skip


def _check_build(factors: Factors) -> None:
    """Refuse a build that nobody has, with the unit that would explain it."""
    bmi = factors.bmi
    if bmi is None or _MIN_BMI <= bmi <= _MAX_BMI:
        return
    hint = "checking both values"
    if bmi > _MAX_BMI and factors.height < 110:
        hint = f"centimeters: {factors.height:g} looks like inches ({factors.height * 2.54:.0f})"
    elif bmi > _MAX_BMI:
        hint = f"kilograms: {factors.weight:g} looks like lb ({factors.weight * 0.4536:.0f} kg)"
    raise CardiogenError(
        "C27", "height, weight",
        found=f"height {factors.height:g} cm and weight {factors.weight:g} kg (BMI {bmi:.0f})",
        expected=f"a BMI from {_MIN_BMI:g} to {_MAX_BMI:g}", remedy=hint,
    )  # fmt: skip
