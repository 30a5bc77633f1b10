"""Slots: the frames of the cycle that a model of label maps knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.sequence import Sequence

Named = Literal["ed", "es", "ed+es"]


@dataclass(frozen=True)
class Slots:
    """Frames that are named (``ed``, ``es``, both) or equally spaced, the first at ED.

    Attributes:
        frames: a name, or how many frames a cycle has.
    """

    frames: Named | int

    def __len__(self) -> int:
        return self.frames if isinstance(self.frames, int) else len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the slots; none if they are equally spaced."""
        return () if isinstance(self.frames, int) else tuple(self.frames.split("+"))

    def phases(self, es_phase: float) -> NDArray[np.float64]:
        """Return the phase of every slot, given that of end systole."""
        if isinstance(self.frames, int):
            return np.arange(self.frames) / self.frames
        return np.array([es_phase if name == "es" else 0.0 for name in self.names])

    def place(self, sequence: Sequence) -> list[int | None]:
        """Return which frame of a sequence fills every slot, None where there is none.

        Of equally spaced slots each takes the frame nearest to it, at most half a slot away; the
        frame called ED fills the first. A sequence whose ``ed`` equals its ``es`` shows end
        systole alone.
        """
        if not isinstance(self.frames, int):
            only_es = sequence.ed == sequence.es
            found = {"ed": None if only_es else sequence.ed, "es": sequence.es}
            return [found[name] for name in self.names]
        filled: list[int | None] = [None] * self.frames
        away = np.full(self.frames, np.inf)
        for frame, phase in enumerate(np.mod(sequence.phases, 1.0) * self.frames):
            slot = round(float(phase)) % self.frames
            distance = abs(float(phase) - round(float(phase)))
            if distance < away[slot]:
                filled[slot], away[slot] = frame, distance
        return filled
