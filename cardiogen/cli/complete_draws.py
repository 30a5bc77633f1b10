"""Draws from the posterior of a completed heart: what they need, and what they tell."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.base import Note
from cardiogen.cli.requests import usage_error

if TYPE_CHECKING:
    from cardiogen.data.sequence import Sequence

LEAST_DRAWS = 20  # fewer have nothing beyond the 5th and 95th percentile
_MAX_SAMPLES = 1000
_INTERVAL = (5.0, 95.0)


def check_samples(samples: int) -> None:
    """Refuse (U01) a number of draws that no run should make."""
    if not 0 <= samples <= _MAX_SAMPLES:
        raise usage_error("--samples", samples, f"0 to {_MAX_SAMPLES}", "fewer samples")


def few_draws(samples: int) -> list[Note]:
    """Return what too few samples leave out."""
    if not 0 < samples < LEAST_DRAWS:
        return []
    text = f"{samples} draws give no 90 % intervals in frames.csv; {LEAST_DRAWS} or more do"
    return [Note("U01", "--samples", text)]


def check_overlap(samples: int, formats: Listing[str], *, has_meshes: bool) -> None:
    """Refuse (U01) ``--overlap`` of what gives no such label maps."""
    if not has_meshes:
        raise usage_error("--overlap", "a model of label maps", "a model of meshes",
                          "--model deformation, or no --overlap")  # fmt: skip
    if samples < LEAST_DRAWS:
        raise usage_error("--overlap", f"{samples} draws", f"{LEAST_DRAWS} at least",
                          f"--samples {LEAST_DRAWS}")  # fmt: skip
    if "nifti" not in formats:
        raise usage_error("--overlap", f"--format {','.join(formats)}", "nifti among the formats",
                          "--format all")  # fmt: skip


def _volumes(draws: Listing[Sequence]) -> dict[str, np.ndarray]:
    """Return left and right cavity volumes of all draws, ``(S, T)`` mL each."""
    from cardiogen.data.labels import Structure
    from cardiogen.measure.volumes import sequence_volumes

    found = [sequence_volumes(draw) for draw in draws]
    return {s.name: np.stack([v[s] for v in found]) for s in (Structure.LV, Structure.RV)}


def intervals(draws: Listing[Sequence]) -> dict[str, list[float]]:
    """Return 90 % intervals of the draws' volumes by frame, as columns of ``frames.csv``."""
    if len(draws) < LEAST_DRAWS:
        return {}
    columns = {}
    source = "labels" if draws[0].vertices is None else "mesh"
    for name, values in _volumes(draws).items():
        low, high = np.percentile(values, _INTERVAL, axis=0)
        columns[f"{name} {source} lower 90 % (mL)"] = low.tolist()
        columns[f"{name} {source} upper 90 % (mL)"] = high.tolist()
    return columns


def write_samples(folder: Path, draws: Listing[Sequence], *, extrapolated: bool) -> None:
    """Write the phenotypes of every draw to ``samples.csv``."""
    from cardiogen.export.marks import Marks
    from cardiogen.export.tables import subject_row, write_measures
    from cardiogen.measure.volumes import measure_sequence

    marks = Marks(synthetic=True, extrapolated=extrapolated)
    rows = [
        subject_row(f"sample_{k + 1:03d}", draw.factors, measure_sequence(draw)[0], marks=marks)
        for k, draw in enumerate(draws)
    ]
    write_measures(folder / "samples.csv", rows)
