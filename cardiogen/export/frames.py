"""Which frames of a sequence are ED and ES, and when every frame happens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.sequence import Sequence


def key_frames(sequence: Sequence) -> dict[str, int]:
    """Return the frame of ``"ED"`` and, if the sequence names one, of ``"ES"``.

    A sequence of one frame has one of them: ES if it says so (``es == 0``), otherwise ED.
    """
    if len(sequence) == 1:
        return {"ED" if sequence.es is None else "ES": 0}
    found = {"ED": sequence.ed}
    return found if sequence.es is None else found | {"ES": sequence.es}


def frame_times(sequence: Sequence) -> NDArray[np.float64]:
    """Return the times of the frames in seconds, or their phases if the cycle is unknown."""
    return sequence.phases * (1.0 if sequence.cycle_s is None else sequence.cycle_s)


def frame_time_s(sequence: Sequence) -> float | None:
    """Return the time from frame to frame in seconds, or None if it is unknown or uneven."""
    if sequence.cycle_s is None or len(sequence) < 2:
        return None
    steps = np.diff(sequence.phases)
    if not np.allclose(steps, steps[0], rtol=0, atol=1e-6):
        return None
    return float(steps[0] * sequence.cycle_s)
