"""Phenotypes that a user asks a heart to have: names, units, and what contradicts itself.

Volumes are mL, masses g, ejection fractions %, and indices mL or g per m2 of body surface
(Mosteller), all measured on the meshes over the cycle. A unit may be written behind the number;
without one the number is taken in the unit above, and refused where it fits another one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Exit
from cardiogen.data.factors import Factors
from cardiogen.measure.violation import BOUNDS

Array = NDArray[np.float64]

# What is measured of a heart, in the order of every array of measures here.
MEASURED = ("lvedv", "lvesv", "lvm", "rvedv", "rvesv")
# Relative distance from its target at which a measure counts as hit.
TOLERANCE = 0.005
_VOLUMES = {"mL": 1.0, "cm3": 1.0, "L": 1000.0}
_MASSES = {"g": 1.0, "kg": 1000.0}
_FLAG = "--target"
_PATTERN = re.compile(r"\s*([A-Za-z]+)\s*=\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([^\s].*)?")


def _units() -> dict[str, tuple[str, dict[str, float]]]:
    """Return target -> its unit, and what one of every accepted unit is in it."""
    found = {"lvm": ("g", _MASSES), "lvmi": ("g/m2", {"g/m2": 1.0})}
    for side in ("lv", "rv"):
        found[f"{side}ef"] = ("%", {"%": 1.0})
        for volume in ("edv", "esv", "sv"):
            found[f"{side}{volume}"] = ("mL", _VOLUMES)
            found[f"{side}{volume}i"] = ("mL/m2", {"mL/m2": 1.0})
    return found


UNITS = _units()


@dataclass(frozen=True)
class Targets:
    """Phenotypes to hit, none of which follows from the others.

    Attributes:
        wanted: (name, value in mL, g or %) without indices, such as ``("lvef", 35.0)``.
        asked: the same as they were asked for, with units.
    """

    wanted: tuple[tuple[str, float], ...]
    asked: tuple[str, ...]

    @property
    def needs_systole(self) -> bool:
        """Whether any target needs a frame but end diastole."""
        return any(name not in ("lvedv", "lvm", "rvedv") for name, _ in self.wanted)

    @property
    def goal(self) -> Array:
        """What :meth:`transform` is of a heart that hits all targets, ``(P,)``."""
        return np.array([_scaled(name, value) for name, value in self.wanted])

    def values(self, measures: Array) -> Array:
        """Return the targeted phenotypes ``(P,)`` of ``MEASURED`` ``(5,)``, in mL, g and %."""
        row = dict(zip(MEASURED, measures.tolist(), strict=True))
        return np.array([_derived(name, row) for name, _ in self.wanted])

    def transform(self, measures: Array) -> Array:
        """Return logarithms, and logits of ejection fractions: nearly linear in latents."""
        values = self.values(measures)
        return np.array([_scaled(n, v) for (n, _), v in zip(self.wanted, values, strict=True)])

    def miss(self, measures: Array) -> float:
        """Return the largest relative distance of a measure from its target."""
        wanted = np.array([value for _, value in self.wanted])
        return float(np.abs(self.values(measures) / wanted - 1.0).max())


def _derived(name: str, row: Mapping[str, float]) -> float:
    if name in row:
        return row[name]
    full = row[f"{name[:2]}edv"]
    stroke = full - row[f"{name[:2]}esv"]
    return stroke if name.endswith("sv") else 100.0 * stroke / full


def _scaled(name: str, value: float) -> float:
    share = value / (100.0 - value) if name.endswith("ef") else value
    # No logarithm: a stroke of the wrong sign, as far from any target as can be.
    return math.log(share) if share > 0 else -math.inf


def parse_targets(texts: Listing[str], factors: Factors) -> Targets | None:
    """Return targets such as ``lvedv=220``, ``lvef=35%`` or ``lvmi=70 g/m2``; None for none.

    Args:
        texts: one target each.
        factors: of the heart; indices need its height and weight.

    Raises:
        CardiogenError: all exit 2: U40 for what is no target, U41 for a unit that is unknown or
            missing where the number fits another one, U42 for targets that contradict each other
            or themselves, U43 for an index without height and weight.
    """
    if not texts:
        return None
    given: dict[str, float] = {}
    asked = []
    for text in texts:
        name, value = _parse_one(text)
        if name in given:
            raise _fault("U42", f"{name} twice", "one target of a name", "leaving one out")
        given[name] = value
        asked.append(f"{name}={value:g} {UNITS[name][0]}")
    absolute = _without_indices(given, factors)
    wanted: list[tuple[str, float]] = []
    for side in ("lv", "rv"):
        wanted += _independent(side, absolute)
    if "lvm" in absolute:
        wanted.append(("lvm", absolute["lvm"]))
    return Targets(tuple(wanted), tuple(asked))


def _parse_one(text: str) -> tuple[str, float]:
    match = _PATTERN.fullmatch(text)
    name = match[1].lower() if match else ""
    if name not in UNITS:
        raise _fault(
            "U40", repr(text), f"NAME=VALUE with a name among {', '.join(UNITS)}",
            "such as lvedv=220 or lvef=35",
        )  # fmt: skip
    unit, factors = UNITS[name]
    shown = (match[3] or "").strip()
    try:
        value = float(match[2])
    except ValueError:
        raise _fault("U40", repr(text), f"a number of {unit}", f"{name}=100") from None
    plain = shown.lower().replace("²", "2").replace("³", "3")
    factor = {known.lower(): size for known, size in factors.items()}.get(plain)
    if shown and factor is None:
        listed = ", ".join(factors)
        raise _fault(
            "U41", f"{text!r} in an unknown unit", f"one of {listed}", f"{name} in {unit}"
        )
    value *= factor or 1.0
    if not value > 0 or not math.isfinite(value) or (name.endswith("ef") and value >= 100):
        limits = "between 0 and 100 %" if name.endswith("ef") else f"a positive number of {unit}"
        raise _fault("U42", repr(text), limits, "another value")
    if not shown:
        _check_scale(name, value, text)
    return name, value


def _check_scale(name: str, value: float, text: str) -> None:
    """Refuse a number without a unit that fits another unit than the one it is taken in."""
    unit, factors = UNITS[name]
    key = f"{name[:2].upper()}{name[2:].upper()} ({unit})"
    low, high = BOUNDS.get(key, (1.0, math.inf))
    others = [other for other, size in factors.items() if low <= value * size <= high]
    if name.endswith("ef") and value < 1.0:
        others = ["a fraction of 1"]
    if low <= value <= high or not others:
        return
    raise _fault(
        "U41", f"{text!r} without a unit, which fits {others[-1]}", f"{name} in {unit}",
        f"writing the unit behind the number, such as {name}={'35%' if unit == '%' else '120mL'}",
    )  # fmt: skip


def _without_indices(given: Mapping[str, float], factors: Factors) -> dict[str, float]:
    """Return targets with those per body surface turned into absolute ones."""
    absolute = {name: value for name, value in given.items() if not name.endswith("i")}
    for name, value in given.items():
        if not name.endswith("i"):
            continue
        if factors.bsa is None:
            raise _fault(
                "U43", f"{name} without height and weight",
                "both: an index is per m2 of body surface", "--height and --weight",
            )  # fmt: skip
        plain = name[:-1]
        _require_same(name, absolute.get(plain, value * factors.bsa), value * factors.bsa)
        absolute[plain] = value * factors.bsa
    return absolute


def _independent(side: str, given: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return at most two targets of one ventricle, which say all that is asked of it."""
    found = {n: given[side + n] for n in ("edv", "esv", "sv", "ef") if side + n in given}
    if len(found) > 1:
        edv, esv = _ends(found)
        if not 0 < esv < edv:
            listed = ", ".join(f"{side}{name} {value:g}" for name, value in found.items())
            raise _fault(
                "U42", listed, "an end-systolic volume above 0 and below the end-diastolic one",
                "checking the values and their units",
            )  # fmt: skip
        whole = {"edv": edv, "esv": esv, "sv": edv - esv, "ef": 100.0 * (1.0 - esv / edv)}
        for name, value in found.items():
            _require_same(side + name, whole[name], value)
    return [(side + name, value) for name, value in list(found.items())[:2]]


def _ends(found: Mapping[str, float]) -> tuple[float, float]:
    """Return EDV and ESV from the first two of EDV, ESV, stroke volume and EF that are given."""
    (a, x), (b, y) = list(found.items())[:2]
    if a == "edv":
        return x, {"esv": y, "sv": x - y, "ef": x * (1.0 - y / 100.0)}[b]
    if a == "esv":
        return (x + y if b == "sv" else x / (1.0 - y / 100.0)), x
    return 100.0 * x / y, 100.0 * x / y - x


def _require_same(name: str, one: float, other: float) -> None:
    if abs(one / other - 1.0) > TOLERANCE:
        raise _fault(
            "U42", f"{name} {other:g}, where the other targets make it {one:g}",
            f"targets that agree within {100 * TOLERANCE:g} %", "leaving one of them out",
        )  # fmt: skip


def _fault(code: str, found: str, expected: str, remedy: str) -> CardiogenError:
    return CardiogenError(
        code, _FLAG, found=found, expected=expected, remedy=remedy, exit_code=Exit.USAGE
    )
