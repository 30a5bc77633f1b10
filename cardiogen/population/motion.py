"""Motion: when the heart empties and fills, and how its shape follows.

The emptied fraction e(phase) in [0, 1] is built from three volume flows with compact support: an
ejection, an early filling and an atrial filling, each the smooth step

    S(x) = x - sin(2 pi x) / (2 pi),    x in [0, 1],

so volume curves have continuous acceleration and close exactly (phase is taken modulo 1). Systole
takes about 36 % of the cycle. With age, filling moves from the early to the atrial wave: the
ratio of their peak flows falls from 2 in the young to 1 at about 65 years.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_ISOVOLUMIC = 0.045  # no change of volume between ejection and filling; fraction of the cycle
_EARLY_WIDTH = 0.22
_ATRIAL_WIDTH = 0.16


@dataclass(frozen=True)
class Timing:
    """When one heart empties and fills.

    Attributes:
        systole: end of ejection, fraction of the cycle; it is the ES phase.
        atrial_share: share of the stroke volume that the atrial wave fills.
        cycle_s: duration of the cycle, s.
    """

    systole: float
    atrial_share: float
    cycle_s: float

    def emptied(self, phases: ArrayLike) -> Array:
        """Return the fraction of the stroke volume that has left the ventricle."""
        phase = np.mod(np.asarray(phases, np.float64), 1.0)
        early = _step((phase - self.systole - _ISOVOLUMIC) / _EARLY_WIDTH)
        atrial = _step((phase - 1.0 + _ATRIAL_WIDTH) / _ATRIAL_WIDTH)
        filled = (1.0 - self.atrial_share) * early + self.atrial_share * atrial
        return _step(phase / self.systole) - filled


def _step(x: Array) -> Array:
    x = np.clip(x, 0.0, 1.0)
    return x - np.sin(2 * np.pi * x) / (2 * np.pi)


def sample_timing(rng: np.random.Generator, age: float) -> Timing:
    """Draw the timing of one heart at an age in years."""
    systole, atrial, rate = np.clip(rng.normal(size=3), -3.0, 3.0)
    # E/A peak flow = (share_E / width_E) / (share_A / width_A): 2 at 25 years, 1 at 65 years.
    share = 0.267 + (0.42 - 0.267) * (age - 25.0) / 40.0 + 0.03 * atrial
    return Timing(
        systole=0.36 + 0.012 * systole,
        atrial_share=float(np.clip(share, 0.12, 0.58)),
        cycle_s=60.0 / (64.0 + 7.0 * rate),
    )
