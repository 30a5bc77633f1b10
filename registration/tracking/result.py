"""What tracking returns: motion, labels, meshes, strain, and how far all of it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import Note
from cardiogen.data import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.measure import Strain, measure_sequence
from cardiogen.transforms import TemporalSVF
from registration.tracking.views import ViewReport

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackingResult:
    """The motion of one heart over its cycle.

    Fields live on ``region``, the part of the ED grid around the heart that was tracked.

    Attributes:
        sequence: images, propagated labels and propagated mesh of every frame, on the ED grid.
        region: cropped ED grid.
        start: its first voxel on the ED grid.
        forward: ``ed_to_frame`` ``(T, 3, *region)``, voxels; exactly 0 at ED.
        backward: ``frame_to_ed``, its inverse.
        in_plane: whether slices were tracked each on its own.
        stretch: longitudinal stretch of every frame if motion through the slices was inferred from
            the volume of the wall, else None; see ``longitudinal``.
        motion: what ``groupwise`` found (motion in the slices if ``in_plane``), at any phase; None
            for the other strategies.
        withheld: measures that are left empty -> why.
        strain: of the left ventricle; None where the labels do not allow it (see ``notes``).
        consistency_mm: mean over the wall of ``|frame_to_ed(ed_to_frame(x)) - x|`` ``(T,)``.
        closure_mm: mean over the wall of where ED arrives after one whole cycle.
        folds: share of folding cells of every frame ``(T,)``.
        energy_rows: records of the solver.
        timings: seconds by stage, and ``total``.
        provenance: versions, settings, hashes of the inputs.
        views: how every further view fits and what is left of the motion in it, if any were given.
        notes: what was assumed, inferred or left out.
    """

    sequence: Sequence
    region: Grid
    start: tuple[int, int, int]
    forward: Tensor
    backward: Tensor
    in_plane: bool
    stretch: Array | None
    motion: TemporalSVF | None
    strain: Strain | None
    withheld: Mapping[str, str]
    consistency_mm: Array
    closure_mm: float
    folds: Array
    energy_rows: tuple[Mapping[str, object], ...]
    timings: Mapping[str, float]
    provenance: Mapping[str, object]
    views: tuple[ViewReport, ...] = ()
    notes: tuple[Note, ...] = ()

    def __len__(self) -> int:
        return len(self.sequence)

    @cached_property
    def ed_to_frame(self) -> Tensor:
        """``(T, 3, D, H, W)`` voxels on the whole ED grid; ``region``'s border goes on beyond."""
        return self._on_grid(self.forward)

    @cached_property
    def frame_to_ed(self) -> Tensor:
        """The inverse of ``ed_to_frame``, ``(T, 3, D, H, W)``."""
        return self._on_grid(self.backward)

    @property
    def curves(self) -> pd.DataFrame:
        """Volumes of every frame, of the mesh and of the labels, mL; see ``measure_sequence``.

        What is withheld is NaN here as well: the right ventricle but at ED, and all of one slice.
        """
        return self.measures[1]

    @cached_property
    def measures(self) -> tuple[dict[str, float], pd.DataFrame]:
        """Phenotypes, from the mesh, and ``curves``."""
        row, frames = measure_sequence(self.sequence, source="mesh")
        row |= dict.fromkeys(self.withheld, float("nan"))
        for column in frames.columns:
            if not column.endswith("(mL)"):
                continue
            if "LVEDV (mL)" in self.withheld:
                frames[column] = np.nan
            elif self.withheld and column.startswith("RV"):
                frames.loc[frames.frame != self.sequence.ed, column] = np.nan

        return row, frames

    def as_dict(self) -> dict[str, object]:
        """Return all numbers for JSON."""
        return {
            "frames": len(self), "ed": self.sequence.ed, "es": self.sequence.es,
            "cycle_s": self.sequence.cycle_s,
            "measures": {k: v if np.isfinite(v) else None for k, v in self.measures[0].items()},
            "withheld": dict(self.withheld),
            "mode": "2D+t, slices on their own" if self.in_plane else "3D+t",
            "through_plane": self._through_plane(),
            "views": [view.as_dict() for view in self.views],
            "longitudinal_stretch": None if self.stretch is None else self.stretch.tolist(),
            "consistency_mm": {"mean": float(self.consistency_mm.mean()),
                               "largest_frame": float(self.consistency_mm.max())},
            "closure_mm": self.closure_mm,
            "folding_fraction": self.folds.tolist(),
            "strain": None if self.strain is None else dict(self.strain.facts),
            "region": {"start": list(self.start), "shape": list(self.region.shape)},
            "timings_s": {name: round(value, 4) for name, value in self.timings.items()},
            "provenance": dict(self.provenance),
            "notes": [str(note) for note in self.notes],
        }  # fmt: skip

    def _through_plane(self) -> str:
        if self.views:
            return "tracked, with further views that show it"
        if not self.in_plane and not self.withheld:
            return "tracked"
        if not self.in_plane:
            return "tracked, but slices this thick hardly show it: not measured"
        if self.stretch is None:
            return "not resolvable from slices this far apart; taken as none"
        return (
            "not resolvable from slices this far apart; inferred from the narrowing of the cavity "
            "and the volume of the wall with the apex at rest (a model, not a measurement)"
        )

    def _on_grid(self, field: Tensor) -> Tensor:
        if self.region.shape == self.sequence.grid.shape:
            return field
        pads = []
        for first, size, whole in zip(
            self.start, self.region.shape, self.sequence.grid.shape, strict=True
        ):
            pads = [first, whole - first - size, *pads]
        with torch.no_grad():
            return F.pad(field, pads, mode="replicate")


def withheld_words(withheld: Mapping[str, str]) -> str:
    """Return which measures are left empty and why, in one sentence; empty if none is."""
    if not withheld:
        return ""
    names = ", ".join(name.split(" (")[0] for name in withheld)
    if "LVEDV (mL)" in withheld:
        names = "volumes, mass and ejection fractions"

    return f"{names} are left empty: {next(iter(withheld.values()))}"
