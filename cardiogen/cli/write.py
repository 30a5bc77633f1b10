"""One generated or completed heart to its folder: labels, measures, reference bands, files."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen import __version__
from cardiogen.base import Note
from cardiogen.data.factors import Factors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cardiogen.data.sequence import Sequence
    from cardiogen.export.heart import Format
    from cardiogen.export.space import Space

# Only names the time axis of files; no measure uses it unless the user gives a rate.
NOMINAL_HEART_RATE = 64.0


_NO_MESHES = Note("U12", "model", "decodes label maps: there are no mesh files")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How hearts are written; the same for all hearts of a run."""

    space: Space = "ras"
    formats: tuple[Format, ...] = ("nifti", "vtp", "stl", "glb", "png", "csv")
    label_map: str = "ukbb"
    heart_rate: float | None = None


def versions() -> dict[str, str]:
    """Return the versions that decide the bits of a result."""
    import numpy
    import torch

    return {
        "cardiogen": __version__,
        "numpy": numpy.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def write_one(
    folder: Path,
    sequence: Sequence,
    *,
    parameters: Mapping[str, object],
    options: OutputOptions,
    extra_frames: Mapping[str, Iterable[float]] | None = None,
    overlap: NDArray[np.uint8] | None = None,
) -> dict[str, float]:
    """Measure a heart and write its files into an existing folder; returns its measures.

    Nothing is measured on ``overlap``, see ``export.write_heart``.
    """
    from cardiogen.export import reference_bands, write_heart
    from cardiogen.measure.volumes import measure_sequence

    rate = options.heart_rate
    measured = sequence.with_(cycle_s=None if rate is None else 60.0 / rate)
    measures, frames = measure_sequence(measured)
    for name, values in (extra_frames or {}).items():
        frames[name] = list(values)
    if sequence.vertices is None:
        parameters = dict(parameters) | {"notes": [*parameters.get("notes", ()), str(_NO_MESHES)]}
    write_heart(
        folder,
        sequence.with_(cycle_s=60.0 / (rate or NOMINAL_HEART_RATE)),
        measures=measures,
        frames=frames,
        parameters={
            "heart_rate_bpm": rate or NOMINAL_HEART_RATE,
            "heart_rate_is_nominal": rate is None,
            "versions": versions(),
            **parameters,
        },
        extrapolated=bool(parameters["extrapolated"]),
        cross_sectional=bool(parameters.get("cross_sectional", False)),
        space=options.space,
        formats=options.formats,
        label_map=options.label_map,
        overlap=overlap,
        reference_bands=reference_bands(sequence.factors or Factors()),
    )
    return measures
