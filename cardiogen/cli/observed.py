"""Label maps of some frames of a heart, as one sequence in the order of its cycle."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.cli.requests import usage_error

if TYPE_CHECKING:
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Sequence


def read_observed(
    labels: Listing[str | Path],
    phases: Listing[float] | None,
    label_map: str | None,
    prefer: Prefer | None,
) -> Sequence:
    """Read label maps of some frames as one sequence, in the order of their phases.

    Headers of other programs may mirror the heart (ACDC's do) without a sign of it: only what is
    said beside outputs of ours counts as known.
    """
    from cardiogen.data.cohort import require_same_grid
    from cardiogen.data.heart_facts import facts_beside
    from cardiogen.data.nifti import read_labels
    from cardiogen.data.sequence import Sequence

    label_map = one_label_map(labels, label_map)
    images = [read_labels(path, label_map=label_map, prefer=prefer) for path in labels]
    told = {facts_beside(Path(path)).orientation or "assumed" for path in labels}
    for path, image in zip(labels[1:], images[1:], strict=True):
        require_same_grid(images[0], image, labels[0], path)
    maps = np.concatenate([image.frames for image in images])
    given = _default_phases(len(maps), len(images)) if phases is None else list(phases)
    sound = all(0.0 <= p < 1.0 for p in given) and len(set(given)) == len(given)
    if len(given) != len(maps) or not sound:
        raise usage_error(
            "--phase", f"{given} for {len(maps)} frames",
            "one phase in [0, 1) for each frame, no two alike",
            "repeating --phase, end diastole being 0",
        )  # fmt: skip
    order = np.argsort(given, kind="stable")
    phase = np.array(given)[order]
    nearest = int(np.argmin(np.minimum(phase, 1 - phase)))
    return Sequence(
        phases=phase,
        ed=nearest,
        grid=images[0].grid,
        labels=maps[order],
        subject_id=Path(labels[0]).name.split(".")[0],
        orientation=told.pop() if len(told) == 1 else "assumed",
        notes=tuple(note for image in images for note in image.notes),
    )


def one_label_map(labels: Listing[str | Path], given: str | None) -> str:
    """Return the name of the map that all label files follow.

    Raises:
        CardiogenError: U01 for files of several; see ``data.heart_facts.require_label_map``.
    """
    from cardiogen.data.heart_facts import require_label_map

    names = sorted({require_label_map(Path(path), given) for path in labels})
    if len(names) > 1:
        raise usage_error("--label-map", names, "files with one map of codes", "converting some")
    return names[0]


def _default_phases(frames: int, files: int) -> list[float]:
    if files > 1:
        raise usage_error(
            "--phase", f"{files} files without phases", "a phase for each", "repeating --phase"
        )
    return [k / frames for k in range(frames)]
