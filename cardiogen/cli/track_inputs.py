"""The files that ``cardiogen track`` reads: cines as sequences, labels on their grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cardiogen.base import CardiogenError, Note
from cardiogen.cli.register_inputs import read_label_map
from cardiogen.cli.requests import usage_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cardiogen.data import Image
    from cardiogen.data.nifti_geometry import Prefer
    from cardiogen.data.sequence import Orientation, Sequence

_MAX_CYCLE_MS = 5000.0
_MIN_CYCLE_MS = 200.0
# What a header says is believed only as a beat of 30 to 200 a minute: pixdim[4] is 1 by default.
_HEADER_CYCLE_S = (0.3, 2.0)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackInputs:
    """A cine as a sequence, the structures at ED on its grid, and what reading has assumed."""

    sequence: Sequence
    labels: NDArray[np.uint8]
    views: tuple[Sequence, ...]
    notes: tuple[Note, ...]


def read_inputs(
    cine: Path,
    ed_labels: Path,
    *,
    label_map: str | None,
    views: list[Path],
    ed: int,
    prefer: Prefer | None,
    frame_time_ms: float | None,
    resample: bool,
    orientation: Orientation | None,
) -> TrackInputs:
    """Read a cine, its labels and further views.

    Args and faults: see :func:`cardiogen.cli.track.track_files`.
    """
    from cardiogen.data import read_image
    from cardiogen.data.sequence import Sequence

    image = read_image(cine, prefer=prefer, frames="many")
    frames = len(image.frames)
    if not 0 <= ed < frames:
        raise usage_error("--ed", ed, f"a frame from 0 to {frames - 1}", "--ed 0")
    seconds, notes = _frame_time(image, cine, frame_time_ms)
    labels = read_label_map(ed_labels, label_map, prefer)
    structures = _on_grid(labels, image, ed_labels, resample=resample)
    sequence = Sequence(
        phases=((np.arange(frames) - ed) % frames) / frames, ed=ed, grid=image.grid,
        images=image.frames.astype(np.float32),
        cycle_s=None if seconds is None else seconds * frames,
        subject_id=cine.name.split(".")[0], orientation=orientation or image.orientation,
    )  # fmt: skip
    seen = [_view(path, ed / frames, prefer) for path in views]
    more = [note for _, found in seen for note in found]
    said = dict.fromkeys([*image.notes, *labels.notes, *notes, *more])

    return TrackInputs(sequence=sequence, labels=structures, views=tuple(view for view, _ in seen),
                       notes=tuple(said))  # fmt: skip


def _view(path: Path, ed_phase: float, prefer: Prefer | None) -> tuple[Sequence, tuple[Note, ...]]:
    """Return a further view, its ED the frame nearest to the cine's, and what was assumed."""
    from cardiogen.data import read_image
    from cardiogen.data.sequence import Sequence

    image = read_image(path, prefer=prefer, frames="many")
    frames = len(image.frames)
    ed = round(ed_phase * frames) % frames
    sequence = Sequence(
        phases=((np.arange(frames) - ed) % frames) / frames, ed=ed, grid=image.grid,
        images=image.frames.astype(np.float32), subject_id=path.name.split(".")[0],
        orientation=image.orientation,
    )  # fmt: skip
    return sequence, image.notes


def _frame_time(
    image: Image, path: Path, told_ms: float | None
) -> tuple[float | None, tuple[Note, ...]]:
    """Return the seconds between frames: what was told, what the header says, or unknown.

    A header is believed where its cycle is that of a heart, in seconds or, where only that gives
    one, in milliseconds stored as seconds.
    """
    if told_ms is not None:
        cycle = told_ms * len(image.frames)
        if not (math.isfinite(told_ms) and _MIN_CYCLE_MS <= cycle <= _MAX_CYCLE_MS):
            raise usage_error(
                "--frame-time-ms", f"{told_ms:g} (a cycle of {cycle:g} ms)",
                f"a cycle of {_MIN_CYCLE_MS:g} to {_MAX_CYCLE_MS:g} ms",
                "the time between two frames in milliseconds",
            )  # fmt: skip
        return told_ms / 1000.0, ()
    seconds, (low, high) = image.frame_time_s, _HEADER_CYCLE_S
    cycle = 0.0 if seconds is None else seconds * len(image.frames)
    if low <= cycle <= high:
        return seconds, ()
    if low <= cycle / 1000.0 <= high:
        text = f"frame time {seconds:g} s, a cycle of {cycle:g} s; taken as milliseconds"
        return seconds / 1000.0, (Note("N23", str(path), text),)
    found = "none" if seconds is None else f"{seconds:g} s, a cycle of {cycle:g} s"
    text = (
        f"frame time: {found} (believed: {low:g} to {high:g} s); strain rates and cardiac output "
        "are left out (--frame-time-ms)"
    )

    return None, (Note("S84", str(path), text),)


def _on_grid(labels: Image, image: Image, path: Path, *, resample: bool) -> NDArray[np.uint8]:
    if labels.grid.matches(image.grid, tolerance_mm=0.05):
        return labels.data
    if not resample:
        raise CardiogenError(
            "L40a", path,
            found=f"labels of shape {labels.grid.shape}, "
            f"{image.grid.distance_mm(labels.grid):.3g} mm from the cine",
            expected=f"the grid of the cine, {image.grid.shape}",
            remedy="labels of this very cine, or --resample-labels if both lie in one world",
        )  # fmt: skip
    import torch

    from registration.world import check_overlap, labels_onto_grid

    check_overlap(image.grid, labels.grid, str(path))
    values = torch.from_numpy(labels.data)[None, None]

    return labels_onto_grid(values, labels.grid, image.grid)[0, 0].numpy()
