"""Strain over the cycle: curves of the whole ventricle and its segments, rates, peaks, tables.

Convention: arrays hold fractions (0.2 is 20 %), tables percent with the unit beside every value.
Strain is 0 at ED. A value that cannot be had is NaN and has a reason in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.sequence import Orientation
from cardiogen.measure.aha import SEGMENT_NAMES
from cardiogen.measure.strain_tensor import Definition
from cardiogen.measure.strain_twist import Twist

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

NORMAL_COMPONENTS = ("radial", "circumferential", "longitudinal")
# A gap at the end of the cycle up to this many median steps is the step back to the first frame.
_CLOSING_STEPS = 1.5
_NO_CYCLE = "duration of the cycle unknown"


@dataclass(frozen=True, eq=False, kw_only=True)
class Strain:
    """Strain of one left ventricle over the cardiac cycle.

    Attributes:
        components: names of what was measured, C of them.
        whole: strain of the whole ventricle, fractions ``(T, C)``.
        segments: of every AHA segment 1..S, or sector of one slice, ``(T, C, S)``.
        phases: fraction of the cycle of every frame ``(T,)``; where they count from ED, frames
            before ED are the end of the cycle.
        ed: frame of end diastole, the reference.
        es: frame of end systole, or None if unknown.
        cycle_s: duration of the cycle, s, or None if unknown.
        twist: rotation of the planes, twist and torsion.
        definition: ``engineering`` (stretch - 1) or ``green_lagrange`` ((stretch^2 - 1) / 2).
        method: how stretches were found, in words.
        mask: what was averaged over, in words.
        reference: reference frame and directions, in words.
        reasons: (component, segment) -> why NaN, or what a value leaves open; segment 0 is the
            whole ventricle.
        counts: samples (voxels, or pieces of contours) of every segment ``(S,)``.
        voxels: indices of the voxels of the mask ``(N, 3)``, or None for meshes.
        voxel_strain: their strain ``(T, N, C)``, or None.
        names: of the segments.
        level: what they are, ``segment`` of the AHA or ``sector`` of a slice of unknown height.
    """

    components: tuple[str, ...]
    whole: Array
    segments: Array
    phases: Array
    ed: int
    es: int | None
    cycle_s: float | None
    twist: Twist
    definition: Definition
    method: str
    mask: str
    reference: str
    reasons: Mapping[tuple[str, int], str] = field(default_factory=dict)
    counts: NDArray[np.int64]
    voxels: NDArray[np.int64] | None = None
    voxel_strain: NDArray[np.float32] | None = None
    names: tuple[str, ...] = SEGMENT_NAMES
    level: Literal["segment", "sector"] = "segment"

    @property
    def units(self) -> dict[str, str]:
        """Unit of every quantity in the tables."""
        return {
            "strain": "%", "strain rate": "1/s", "twist": "deg", "torsion": self.twist.torsion_unit
        }  # fmt: skip

    @property
    def facts(self) -> dict[str, str]:
        """What the numbers mean, in words, to be written beside them."""
        return {
            "definition": self.definition, "method": self.method, "mask": self.mask,
            "reference": self.reference, "twist": self.twist.definition,
        } | {f"unit of {quantity}": unit for quantity, unit in self.units.items()}  # fmt: skip

    @property
    def times_s(self) -> Array:
        """Time of every frame from phase 0, s ``(T,)``; NaN if the cycle is unknown."""
        return self.phases * (np.nan if self.cycle_s is None else self.cycle_s)

    @property
    def closes(self) -> bool:
        """Whether the frames cover the whole cycle, so that the last leads to the first."""
        return closes(self.phases)

    def curve(self, component: str, segment: int = 0) -> Array:
        """Return one strain curve, fractions ``(T,)``; segment 0 is the whole ventricle."""
        index = self._index(component)
        return self.whole[:, index] if segment == 0 else self.segments[:, index, segment - 1]

    def rate(self, component: str, segment: int = 0) -> Array:
        """Return one curve of strain rate, 1/s ``(T,)``."""
        return strain_rate(self.curve(component, segment), self.phases, cycle_s=self.cycle_s)

    def at_es(self, component: str) -> Array:
        """Return the end-systolic strain of every segment, fractions ``(S,)``."""
        if self.es is None:
            return np.full(self.segments.shape[2], np.nan)
        return self.segments[self.es, self._index(component)]

    def map(self, component: str, frame: int, shape: tuple[int, int, int]) -> Array:
        """Return the strain of every voxel of the mask, NaN elsewhere, ``(D, H, W)``.

        Raises:
            ValueError: for strain of meshes, which has no voxels.
        """
        if self.voxels is None or self.voxel_strain is None:
            raise ValueError("strain must come from a displacement to have a map, got a mesh's")
        result = np.full(shape, np.nan)
        result[tuple(self.voxels.T)] = self.voxel_strain[frame, :, self._index(component)]
        return result

    def _index(self, component: str) -> int:
        if component not in self.components:
            raise ValueError(f"component must be one of {self.components}, got {component!r}")
        return self.components.index(component)

    def to_table(self) -> pd.DataFrame:
        """Return every curve as a tidy table, ready for ``strain.csv``.

        Columns: ``frame, time_s, phase, level`` (global, segment or sector), ``segment`` (0 for
        global),
        ``name, component, value, unit, definition, reason``. Components are strains in %, strain
        rates (``radial rate``, ...) in 1/s, and globally ``twist`` and ``torsion``.
        """
        import pandas as pd

        parts = []
        for segment, component in self._places():
            curve = 100.0 * self.curve(component, segment)
            reason = self.reasons.get((component, segment), "")
            parts.append(self._rows(segment, component, curve, "%", self.definition, reason))
            slow = reason or ("" if self.cycle_s is not None else _NO_CYCLE)
            rate = self.rate(component, segment)
            parts.append(self._rows(segment, f"{component} rate", rate, "1/s", self.definition,
                                    slow))  # fmt: skip
        for name, values in (("twist", self.twist.twist), ("torsion", self.twist.torsion)):
            reason = self.reasons.get((name, 0), "")
            unit = self.units[name]
            parts.append(self._rows(0, name, values, unit, self.twist.definition, reason))
        return pd.concat(parts, ignore_index=True)

    def summary(self) -> pd.DataFrame:
        """Return one row per curve: peak, time to peak, end-systolic value, extreme rates.

        The peak is the largest value of radial curves and the least of all others (shortening);
        a segment that only moves the other way has its peak at ED, near 0. Times count from ED.
        """
        import pandas as pd

        rows = []
        for segment, component in self._places():
            curve, rate = self.curve(component, segment), self.rate(component, segment)
            peak = _peak(curve, component)
            wait = np.nan if peak is None else (self.phases[peak] - self.phases[self.ed]) % 1.0
            rows.append({
                "level": self._level(segment), "segment": segment, "name": self._name(segment),
                "component": component,
                "peak (%)": np.nan if peak is None else 100.0 * curve[peak],
                "time to peak (s)": wait * (np.nan if self.cycle_s is None else self.cycle_s),
                "time to peak (cycle)": wait,
                "end-systolic (%)": np.nan if self.es is None else 100.0 * curve[self.es],
                "least rate (1/s)": _extreme(rate, np.min),
                "largest rate (1/s)": _extreme(rate, np.max),
                "definition": self.definition,
                "reason": self.reasons.get((component, segment), ""),
            })  # fmt: skip
        return pd.DataFrame(rows)

    def _places(self) -> list[tuple[int, str]]:
        count = self.segments.shape[2]
        return [(s, c) for s in range(count + 1) for c in self.components]

    def _rows(
        self, segment: int, component: str, values: Array, unit: str, definition: str, reason: str
    ) -> pd.DataFrame:
        import pandas as pd

        # Noise of the last digits at ED is no shortening: no minus before zero.
        values = np.round(values, 9) + 0.0
        return pd.DataFrame({
            "frame": np.arange(len(self.phases)), "time_s": self.times_s, "phase": self.phases,
            "level": self._level(segment), "segment": segment, "name": self._name(segment),
            "component": component, "value": values, "unit": unit, "definition": definition,
            "reason": np.where(np.isnan(values), reason, ""),
        })  # fmt: skip

    def _level(self, segment: int) -> str:
        return self.level if segment else "global"

    def _name(self, segment: int) -> str:
        return self.names[segment - 1] if segment else "left ventricle"


def _peak(curve: Array, component: str) -> int | None:
    """Frame of the peak, or None for a curve that is not known everywhere."""
    if not np.isfinite(curve).all():
        return None
    return int(np.argmax(curve) if component.startswith("radial") else np.argmin(curve))


def _extreme(values: Array, of: np.ufunc) -> float:
    return float(of(values)) if np.isfinite(values).all() else float("nan")


def closes(phases: ArrayLike) -> bool:
    """Whether frames cover the whole cycle, so that the last is followed by the first."""
    phases = np.sort(np.asarray(phases, dtype=np.float64))
    if len(phases) < 3:
        return False
    gap = 1.0 - (phases[-1] - phases[0])
    return bool(gap <= _CLOSING_STEPS * np.median(np.diff(phases)))


def strain_rate(values: ArrayLike, phases: ArrayLike, *, cycle_s: float | None) -> Array:
    """Return the derivative of curves by time, 1/s.

    Second-order differences for unequal steps, periodic where the frames cover the whole cycle
    (``closes``), else one-sided at the ends.

    Args:
        values: ``(T, ...)``.
        phases: fractions of the cycle ``(T,)``, increasing but for the return to 0 at ED.
        cycle_s: duration of the cycle, s. None gives NaN: a guessed rate is not a measurement.

    Returns:
        Like ``values``; NaN for fewer than three frames.
    """
    values, phases = np.asarray(values, np.float64), np.asarray(phases, np.float64)
    if cycle_s is None or len(phases) < 3:
        return np.full(values.shape, np.nan)
    order = np.argsort(phases)
    return _rate(values[order], phases[order], cycle_s)[np.argsort(order)]


def _rate(values: Array, phases: Array, cycle_s: float) -> Array:
    times = phases * cycle_s
    if not closes(phases):
        return np.gradient(values, times, axis=0, edge_order=2)
    times = np.concatenate([times[-1:] - cycle_s, times, times[:1] + cycle_s])
    values = np.concatenate([values[-1:], values, values[:1]])
    return np.gradient(values, times, axis=0)[1:-1]


def orientation_words(orientation: Orientation) -> str:
    """Return what strain owes to the header's orientation, in words."""
    rests = " (segments and the sign of the twist rest on the header's word)"
    return f"orientation {orientation}{rests if orientation == 'assumed' else ''}"


def check_cycle_arguments(phases: ArrayLike, frames: int, ed: int, es: int | None) -> Array:
    """Return phases as an array after checking them against the number of frames.

    They increase; at an ED that is not the first frame they go back to the begin of the cycle.
    """
    phases = np.asarray(phases, dtype=np.float64)
    if phases.shape != (frames,):
        raise ValueError(f"phases must have shape ({frames},) like the frames, got {phases.shape}")
    # In the file they may fall at ED alone, where one cycle ends and the next begins.
    falls = np.flatnonzero(np.diff(phases) <= 0) + 1
    if len(falls) and (falls.tolist() != [ed] or phases[-1] >= phases[0]):
        raise ValueError(f"phases must increase, got {phases}")
    for name, frame in (("ed", ed), ("es", es)):
        if frame is not None and not 0 <= frame < frames:
            raise ValueError(f"{name} must be a frame below {frames}, got {frame}")
    return phases
