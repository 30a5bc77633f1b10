"""How much an evaluation does: numbers of hearts, draws and resamples."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

LEAST_HEARTS = 12
# 40 places between and beside 39 draws: intervals of 50, 80, 90 and 95 % fall on whole ranks.
DRAWS = 39


@dataclass(frozen=True)
class Size:
    """Numbers of hearts of every task.

    Attributes:
        hearts: held-out hearts of generation, slopes and plausibility, and as many of each method.
        calibration: hearts whose intervals are judged, once for every set of known factors.
        completed: hearts that are completed and reconstructed, or patients of a cohort folder.
        cycled: hearts whose cycles are completed from five subsets of their frames.
        beating: hearts whose whole cycle is checked.
        aged: hearts that are moved to another age.
        scored: healthy hearts whose normative score is judged, and half as many of each disease.
        frames: frames of those cycles; motion is judged from 17 on.
        label_mm: voxel size of the label maps that are checked too, mm; None checks meshes alone.
        resamples: of every bootstrap interval.
    """

    hearts: int
    calibration: int
    completed: int
    cycled: int
    beating: int
    aged: int
    scored: int
    frames: int
    label_mm: float | None
    resamples: int

    def with_hearts(self, hearts: int) -> Size:
        """Return the size with ``hearts`` held-out hearts, and no task with more than that."""
        return replace(
            self,
            hearts=hearts,
            calibration=min(self.calibration, hearts),
            completed=min(self.completed, hearts),
            cycled=min(self.cycled, hearts),
            beating=min(self.beating, hearts),
            aged=min(self.aged, hearts),
            scored=min(self.scored, hearts),
        )

    def with_patients(self, patients: int) -> Size:
        """Return the size with at most ``patients`` of a cohort folder."""
        return replace(self, completed=patients)

    def as_dict(self) -> dict[str, int | float | None]:
        """Return the numbers for the report."""
        return asdict(self) | {"draws": DRAWS}


SIZES = {
    "small": Size(
        hearts=60, calibration=10, completed=6, cycled=2, beating=4, aged=16, scored=4, frames=25,
        label_mm=None, resamples=300,
    ),
    "full": Size(
        hearts=1000, calibration=300, completed=100, cycled=20, beating=200, aged=200, scored=100,
        frames=25, label_mm=1.25, resamples=1000,
    ),
}  # fmt: skip
