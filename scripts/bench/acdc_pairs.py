"""End diastole and end systole of the ACDC patients, as every contender gets them.

Protocol: fixed is ED, moving ES; 1.5 mm in plane, native slices, the box of the heart (ED labels)
and 25 mm around it. Labels cut the box and score the result; no fit sees them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid, read_image, read_labels

IN_PLANE_MM = 1.5
MARGIN_MM = 25.0


@dataclass(frozen=True, eq=False)
class CardiacPair:
    """One patient: images and structures ``(1, 1, D, H, W)`` on one grid."""

    name: str
    group: str
    grid: Grid
    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor
    moving_labels: Tensor


def load_pairs(folder: Path, patients: list[str]) -> list[CardiacPair]:
    """Return the pairs of the named patients, or of all, by name."""
    with (folder / "subjects.csv").open(newline="") as stream:
        groups = {row["patient"]: row["group"] for row in csv.DictReader(stream)}

    return [_load(folder, name, groups[name]) for name in sorted(groups)
            if not patients or name in patients]  # fmt: skip


def _load(folder: Path, name: str, group: str) -> CardiacPair:
    stem = folder / name / name
    images = {p: read_image(f"{stem}_{p}.nii.gz", frames="one") for p in ("ED", "ES")}
    maps = {p: read_labels(f"{stem}_{p}_gt.nii.gz", label_map="acdc") for p in ("ED", "ES")}
    native = images["ED"].grid
    grid = heart_grid(maps["ED"].data, native)

    def image_of(phase: str) -> Tensor:
        values = torch.from_numpy(images[phase].data.astype(np.float32))[None, None]
        return ops.resample(values, images[phase].grid, grid)

    def labels_of(phase: str) -> Tensor:
        codes = torch.from_numpy(maps[phase].data)[None, None].long()
        shares = ops.resample(ops.one_hot(codes, 4, dtype=torch.float32), maps[phase].grid, grid)
        return ops.argmax_labels(shares)

    return CardiacPair(name, group, grid, image_of("ED"), image_of("ES"), labels_of("ED"),
                       labels_of("ES"))  # fmt: skip


def heart_grid(labels: np.ndarray, native: Grid) -> Grid:
    """Return the box of the heart and 25 mm, at 1.5 mm in plane, within the image."""
    where = np.argwhere(labels > 0)
    spacing, last = np.array(native.spacing), np.array(native.shape) - 1
    low = np.maximum(where.min(axis=0) - MARGIN_MM / spacing, 0)
    high = np.minimum(where.max(axis=0) + MARGIN_MM / spacing, last)
    low[0], high[0] = np.ceil(low[0]), np.floor(high[0])
    plane = [int((high[a] - low[a]) * spacing[a] / IN_PLANE_MM) + 1 for a in (1, 2)]
    affine = native.affine.copy()
    for axis in (1, 2):
        affine[:3, axis] *= IN_PLANE_MM / spacing[axis]
    affine[:3, 3] = native.to_world(low)

    return Grid((int(high[0] - low[0]) + 1, *plane), affine)
