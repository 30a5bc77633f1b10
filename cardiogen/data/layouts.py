"""The folder layouts of cohorts: which files belong to whom, and what the tables say of them.

``cardiogen``: ``subjects.csv`` (``subject_id``, factors, ``ed_frame`` and ``es_frame`` from 0,
optional ``n_frames``, ``group``, ``label_map``) and a folder for each subject with a 4D
``labels.nii.gz`` or ``labels_ED.nii.gz`` and ``labels_ES.nii.gz`` (``images...`` alike); what the
table leaves open is taken from a ``parameters.json`` of ours in the subject's folder.
``acdc``: the challenge's own, ``Info.cfg`` and ``patientXXX_frameYY(_gt).nii.gz``, from 1.
``acdc_dev25``: ``patientXXX_ED(_gt).nii.gz`` and ``subjects.csv``, frames from 1.
``ukbb``: what ukbb_cardiac writes, ``seg_sa_ED.nii.gz`` or a 4D ``seg_sa.nii.gz``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cardiogen.base import CardiogenError
from cardiogen.data.nifti_geometry import Prefer
from cardiogen.data.sequence import Orientation
from cardiogen.data.subject import Layout, Phase


@dataclass(frozen=True)
class LayoutRules:
    """Names of a layout; ``{id}`` stands for the name of the subject's folder.

    Attributes:
        labels: label file by phase; images: image file by phase.
        label_map: map of the file codes, None if the cohort must say.
        table: whether ``subjects.csv`` lists the subjects.
        first_frame: number of the first frame in the table.
    """

    labels: dict[Phase, str]
    images: dict[Phase, str]
    label_map: str | None
    table: bool
    first_frame: int = 0
    prefer: Prefer | None = None
    orientation: Orientation = "trusted"


RULES: dict[Layout, LayoutRules] = {
    "cardiogen": LayoutRules(
        labels={"all": "labels", "ed": "labels_ED", "es": "labels_ES"},
        images={"all": "images", "ed": "images_ED", "es": "images_ES"},
        label_map=None,
        table=True,
    ),
    "acdc": LayoutRules(
        labels={"ed": "{id}_frame{ed}_gt", "es": "{id}_frame{es}_gt"},
        images={"all": "{id}_4d", "ed": "{id}_frame{ed}", "es": "{id}_frame{es}"},
        label_map="acdc",
        table=False,
        first_frame=1,
        # Its sform says 1 mm everywhere; the lengths in pixdim are right.
        prefer="pixdim",
        orientation="assumed",
    ),
    "acdc_dev25": LayoutRules(
        labels={"ed": "{id}_ED_gt", "es": "{id}_ES_gt"},
        images={"ed": "{id}_ED", "es": "{id}_ES"},
        label_map="acdc",
        table=True,
        first_frame=1,
        # All 25 hearts are mirror images in the world that their headers claim.
        orientation="assumed",
    ),
    "ukbb": LayoutRules(
        labels={"all": "seg_sa", "ed": "seg_sa_ED", "es": "seg_sa_ES"},
        images={"all": "sa", "ed": "sa_ED", "es": "sa_ES"},
        label_map="ukbb",
        table=False,
    ),
}

# A file whose presence in a subject's folder tells the layout, most telling first.
TELLTALES: tuple[tuple[Layout, str], ...] = (
    ("acdc", "Info.cfg"),
    ("acdc_dev25", "*_E[DS]_gt.nii*"),
    ("ukbb", "seg_sa*.nii*"),
    ("cardiogen", "labels*.nii*"),
)


def detect_layout(folder: str | Path) -> Layout:
    """Return the layout of a cohort, or of the folder of a single subject.

    Raises:
        CardiogenError: L50 if no layout fits.
    """
    folder = Path(folder)
    require_folder(folder)
    for layout, pattern in TELLTALES:
        if any(folder.glob(pattern)) or any(folder.glob(f"*/{pattern}")):
            return layout
    raise CardiogenError(
        "L50", folder, found="no files of a known layout",
        expected=f"one of {', '.join(get_args(Layout))}",
        remedy="the folder that holds one folder for each subject",
    )  # fmt: skip


def file_name(pattern: str, folder_name: str, ed: int | None, es: int | None) -> str:
    """Return the name that a layout gives a file, with ``??`` for an unknown frame number."""
    numbers = {
        "ed": "??" if ed is None else f"{ed:02d}",
        "es": "??" if es is None else f"{es:02d}",
    }
    return pattern.format(id=folder_name, **numbers)


def present_files(
    place: Path, patterns: dict[Phase, str], folder_name: str, ed: int | None, es: int | None
) -> dict[Phase, Path]:
    """Return the files of a layout that exist, by phase."""
    found: dict[Phase, Path] = {}
    for phase, pattern in patterns.items():
        for suffix in (".nii.gz", ".nii"):
            path = place / (file_name(pattern, folder_name, ed, es) + suffix)
            if path.exists() or path.is_symlink():
                found.setdefault(phase, path)
    return found


def require_folder(folder: Path) -> None:
    """Refuse what is no folder (L47a)."""
    if not folder.is_dir():
        raise CardiogenError(
            "L47a", folder, found="no folder", expected="the folder of a cohort",
            remedy="checking the path",
        )  # fmt: skip
