"""Sequence: one heart over one cardiac cycle, as label maps, images, meshes or any of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import Note
from cardiogen.data.grid import Grid
from cardiogen.data.mesh import Topology

if TYPE_CHECKING:
    from cardiogen.data.factors import Factors

Orientation = Literal["trusted", "assumed", "mirrored"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sequence:
    """Frames of one heart.

    Attributes:
        phases: fraction of the cardiac cycle of every frame, ``(T,)`` in [0, 1), ED = 0.
        ed: index of the end-diastolic frame.
        es: index of the end-systolic frame, or None if unknown; equal to ``ed`` if the only frame
            there is shows end systole.
        grid: lattice of ``labels`` and ``images``; None if there are only meshes.
        labels: structures ``(T, D, H, W)`` uint8, or None.
        images: intensities ``(T, D, H, W)`` float32, or None.
        vertices: mesh points ``(T, V, 3)`` world RAS mm, or None.
        topology: faces of ``vertices``.
        factors: clinical factors of the subject.
        group: diagnosis or arm, if there is one.
        cycle_s: duration of the cardiac cycle in seconds, or None if unknown.
        subject_id: neutral name.
        orientation: whether the header's world can be trusted not to mirror the heart.
        notes: what was assumed or repaired on reading.
    """

    phases: NDArray[np.float64]
    ed: int = 0
    es: int | None = None
    grid: Grid | None = None
    labels: NDArray[np.uint8] | None = None
    images: NDArray[np.float32] | None = None
    vertices: NDArray[np.float64] | None = None
    topology: Topology | None = None
    factors: Factors | None = None
    group: str | None = None
    cycle_s: float | None = None
    subject_id: str = "heart"
    orientation: Orientation = "trusted"
    notes: tuple[Note, ...] = field(default=())

    def __post_init__(self) -> None:
        frames = len(self.phases)
        for name in ("labels", "images", "vertices"):
            value = getattr(self, name)
            if value is not None and len(value) != frames:
                raise ValueError(f"{name} must have {frames} frames like phases, got {len(value)}")
        for name in ("labels", "images"):
            value = getattr(self, name)
            if value is not None and (self.grid is None or value.shape[1:] != self.grid.shape):
                raise ValueError(f"{name} must live on grid, got {value.shape[1:]}")
        if not 0 <= self.ed < frames:
            raise ValueError(f"ed must be a frame index below {frames}, got {self.ed}")

    def __len__(self) -> int:
        return len(self.phases)

    def with_(self, **changes: object) -> Self:
        """Return a copy with some attributes replaced."""
        return replace(self, **changes)
