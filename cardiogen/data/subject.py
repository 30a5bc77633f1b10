"""Subject: the light record of one member of a cohort, ids, factors and paths but no voxels.

Frame numbers count from 0 here; layouts that count from 1 are converted where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cardiogen.data.factors import Factors
from cardiogen.data.nifti_geometry import Prefer
from cardiogen.data.sequence import Orientation

Layout = Literal["cardiogen", "acdc", "acdc_dev25", "ukbb"]
Phase = Literal["all", "ed", "es"]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Where one subject's frames lie and what is known of them.

    Attributes:
        subject_id: name of the subject.
        folder: folder of its files.
        layout: layout of the cohort.
        label_map: name of the map of file codes.
        labels: label files by phase: ``all`` is a 4D file, ``ed`` and ``es`` are single frames.
        images: image files by phase.
        factors: clinical factors; all unknown if there is no table.
        group: diagnosis or arm, if there is one.
        ed_frame: index of end diastole in the whole cycle, from 0, if known.
        es_frame: index of end systole.
        n_frames: frames of the whole cycle.
        prefer: header description that this layout needs, see :func:`read_image`.
        orientation: ``assumed`` for layouts whose headers are known to mirror hearts.
        nominal_rate: whether the time axis of the files stands for no measured heart rate.
    """

    subject_id: str
    folder: Path
    layout: Layout
    label_map: str
    labels: Mapping[Phase, Path]
    images: Mapping[Phase, Path] = field(default_factory=dict)
    factors: Factors = field(default_factory=Factors)
    group: str | None = None
    ed_frame: int | None = None
    es_frame: int | None = None
    n_frames: int | None = None
    prefer: Prefer | None = None
    orientation: Orientation = "trusted"
    nominal_rate: bool = False
