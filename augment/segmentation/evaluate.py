"""A network judged on patients: predictions as a cohort of NIfTI files, Dice and HD95 as a table.

Everything is compared on the lattice that the images came on; the predictions' folder has the
layout ``cardiogen``, so that ``measure``, ``check`` and ``train`` read it like any cohort.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from augment.segmentation.config import Frames, ImageConfig, PredictionConfig
from augment.segmentation.predict import Network, predict_volume
from augment.segmentation.prepare import wanted_frames
from cardiogen.base import progress
from cardiogen.data import Sequence, encode_labels, write_image, write_table
from cardiogen.measure import compare_labels

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("subject_id", "label_map", "ed_frame", "es_frame")


@dataclass(frozen=True, eq=False, kw_only=True)
class Segmented:
    """One subject as a network sees it.

    Attributes:
        sequence: the subject, with images.
        numbers: of its frames that were segmented.
        labels: structures ``(len(numbers), D, H, W)`` uint8 on the lattice of the images.
    """

    sequence: Sequence
    numbers: list[int]
    labels: NDArray[np.uint8]

    def without_images(self) -> Segmented:
        """Return the same without intensities, which a table of scores does not need."""
        return Segmented(
            sequence=self.sequence.with_(images=None), numbers=self.numbers, labels=self.labels
        )


def segment_sequence(
    network: Network,
    sequence: Sequence,
    image: ImageConfig,
    prediction: PredictionConfig,
    *,
    frames: Frames = "ed+es",
    device: torch.device | str = "cpu",
) -> Segmented:
    """Segment the frames of a subject.

    Args:
        network: gives logits; in evaluation mode.
        sequence: with images.
        image: lattice and patch of the training.
        prediction: windows, and whether one piece of every structure is kept.
        frames: ED and ES, or all.
        device: where the network is.

    Raises:
        CardiogenError: N26 for intensities that are not finite, N39 for an image of one value.
    """
    if sequence.images is None or sequence.grid is None:
        raise ValueError("sequence must have images on a grid, got one without")
    numbers = wanted_frames(sequence, frames)
    labels = np.stack([
        predict_volume(
            network, sequence.images[n], sequence.grid, image, prediction, device=device,
            subject_id=f"{sequence.subject_id}, frame {n}",
        )
        for n in numbers
    ])  # fmt: skip
    return Segmented(sequence=sequence, numbers=numbers, labels=labels)


def overlap_table(segmented: Listing[Segmented]) -> pd.DataFrame:
    """Return Dice, ASSD and HD95 (mm) for every subject, frame and structure.

    Columns ``subject_id``, ``frame`` (``ED``, ``ES`` or a number), ``structure``, ``dice``,
    ``assd (mm)``, ``hd95 (mm)``, ``failure``; see :func:`cardiogen.measure.compare_labels`.
    """
    import pandas as pd

    tables = []
    for each in segmented:
        sequence = each.sequence
        if sequence.labels is None:
            raise ValueError(f"sequence {sequence.subject_id} must have labels, got none")
        for number, labels in zip(each.numbers, each.labels, strict=True):
            table = compare_labels(labels, sequence.labels[number], sequence.grid).reset_index()
            table.insert(0, "frame", frame_name(sequence, number))
            table.insert(0, "subject_id", sequence.subject_id)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def summarize(table: pd.DataFrame) -> dict[str, float]:
    """Return mean Dice and HD95 of every structure, of all of them, and how often one is missed.

    A structure that is there and not found, or found and not there, has Dice 0 and counts; it has
    no HD95 and is counted in ``missed``.
    """
    found: dict[str, float] = {}
    for name, part in table.groupby("structure", sort=False):
        found[f"dice_{name.lower()}"] = float(part["dice"].mean())
        found[f"hd95_{name.lower()} (mm)"] = float(part["hd95 (mm)"].mean())
    found["dice"] = float(table["dice"].mean())
    found["hd95 (mm)"] = float(table["hd95 (mm)"].mean())
    found["missed"] = int((table["dice"] == 0).sum())
    return found


def write_predictions(
    folder: str | Path, segmented: Listing[Segmented], *, label_map: str, overwrite: bool = False
) -> None:
    """Write predictions as a cohort: ``subjects.csv`` and a folder of label maps for each subject.

    ED and ES alone become ``labels_ED.nii.gz`` and ``labels_ES.nii.gz``, more frames one
    ``labels.nii.gz``.

    Args:
        folder: to write into; made if it is not there.
        segmented: subjects.
        label_map: map of the file codes.
        overwrite: whether files may be replaced.
    """
    folder, rows = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    for each in progress(segmented, "writing predictions"):
        sequence = each.sequence
        place = folder / sequence.subject_id
        place.mkdir(exist_ok=True)
        codes = encode_labels(each.labels, label_map)
        row = {"subject_id": sequence.subject_id, "label_map": label_map}
        ends = [frame_name(sequence, n) for n in each.numbers]
        if ends[0] == "ED" and set(ends) <= {"ED", "ES"}:
            for name, volume in zip(ends, codes, strict=True):
                write_image(place / f"labels_{name}.nii.gz", volume, sequence.grid,
                            overwrite=overwrite)  # fmt: skip
        else:
            time = None if sequence.cycle_s is None else sequence.cycle_s / len(sequence)
            write_image(place / "labels.nii.gz", codes, sequence.grid, frame_time_s=time,
                        overwrite=overwrite)  # fmt: skip
            row |= _ends(each)
        rows.append(row)
    cells = [[row.get(name) for name in _COLUMNS] for row in rows]
    write_table(folder / "subjects.csv", _COLUMNS, cells, overwrite=overwrite)


def frame_name(sequence: Sequence, number: int) -> str:
    """Return ``ED``, ``ES`` or the number of a frame."""
    if number == sequence.es:
        return "ES"
    return "ED" if number == sequence.ed else str(number)


def _ends(each: Segmented) -> dict[str, int]:
    """Return the frames of ED and ES within the file of a subject."""
    ends = {"ed_frame": each.sequence.ed, "es_frame": each.sequence.es}
    if ends["ed_frame"] == ends["es_frame"]:
        ends["ed_frame"] = None
    return {name: each.numbers.index(n) for name, n in ends.items() if n in each.numbers}
