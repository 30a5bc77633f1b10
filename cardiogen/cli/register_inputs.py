"""The files that ``cardiogen register`` compares, on the grid of the fixed one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cardiogen.base import CardiogenError, Note
from cardiogen.cli.requests import usage_error

if TYPE_CHECKING:
    from torch import Tensor

    from cardiogen.data import Grid, Image
    from cardiogen.data.nifti_geometry import Prefer
    from registration import RegistrationConfig


@dataclass(frozen=True, eq=False, kw_only=True)
class Pair:
    """Two images (or None) and label maps (or None) on the grid of the fixed one."""

    grid: Grid
    fixed: Tensor | None
    moving: Tensor | None
    fixed_labels: Tensor | None
    moving_labels: Tensor | None
    inside: Tensor
    mask: Tensor | None
    notes: tuple[Note, ...]


def read_pair(
    fixed: Path,
    moving: Path,
    settings: RegistrationConfig,
    *,
    fixed_labels: str | Path | None,
    moving_labels: str | Path | None,
    label_map: str | None,
    prefer: Prefer | None,
    mask: str | Path | None,
) -> Pair:
    """Read what a registration compares, and bring it onto the grid of ``fixed``.

    Args and faults: see :func:`cardiogen.cli.register.register_files`.
    """
    from registration.world import check_overlap, labels_onto_grid, onto_grid

    if (fixed_labels is None) != (moving_labels is None):
        raise usage_error("--fixed-labels", "labels of one image alone", "labels of both or none",
                          "both label maps")  # fmt: skip
    if fixed_labels is None and settings.wants("label"):
        if settings.wants("image"):
            raise usage_error("--fixed-labels", "none", "labels, which the config compares",
                              "--fixed-labels and --moving-labels")  # fmt: skip
        fixed_labels, moving_labels = fixed, moving
    images: list[Image | None] = [None, None]
    if settings.wants("image"):
        images = [_image(path, prefer) for path in (fixed, moving)]
    labels: list[Image | None] = [None, None]
    if fixed_labels is not None:
        labels = [
            read_label_map(path, label_map, prefer) for path in (fixed_labels, moving_labels)
        ]
        for image, found, path in zip(images, labels, (fixed_labels, moving_labels), strict=True):
            _check_grids(image, found, path)
    grids = [(i if i is not None else x).grid for i, x in zip(images, labels, strict=True)]
    inside, notes = check_overlap(*grids, where=str(moving))
    on_fixed = [None if i is None else _tensor(i, "float32") for i in images]
    if on_fixed[1] is not None:
        on_fixed[1] = onto_grid(on_fixed[1], grids[1], grids[0])
    maps = [None if x is None else _tensor(x, "uint8") for x in labels]
    if maps[1] is not None:
        maps[1] = labels_onto_grid(maps[1], grids[1], grids[0])
    said = [note for x in (*images, *labels) if x is not None for note in x.notes]

    return Pair(
        grid=grids[0], fixed=on_fixed[0], moving=on_fixed[1], fixed_labels=maps[0],
        moving_labels=maps[1], inside=inside, mask=_mask(mask, inside, grids[0], prefer),
        notes=tuple(dict.fromkeys([*said, *notes])),
    )  # fmt: skip


def _mask(
    path: str | Path | None, inside: Tensor, grid: Grid, prefer: Prefer | None
) -> Tensor | None:
    """Return where voxels are compared: in both images, and in the mask if there is one."""
    if path is None:
        return None if bool(inside.all()) else inside
    from cardiogen.data import read_image

    image = read_image(path, prefer=prefer, frames="one", contrast=False)
    _check_grids_match(image.grid, grid, path)
    chosen = _tensor(image, "float32") != 0
    if not bool((chosen & (inside > 0)).any()):
        raise CardiogenError(
            "N55", path, found="no voxel that both images show",
            expected="a mask of what to align",
            remedy="a mask on the grid of the fixed image that is not 0 there",
        )  # fmt: skip
    return chosen & (inside > 0)


def _image(path: Path, prefer: Prefer | None) -> Image:
    from cardiogen.data import read_image

    return read_image(path, prefer=prefer, frames="one")


def read_label_map(path: str | Path, label_map: str | None, prefer: Prefer | None) -> Image:
    """Read the label map of one frame; its codes must be told (U11)."""
    from cardiogen.data import LABEL_MAPS, read_labels

    if label_map is None:
        raise CardiogenError(
            "U11", "--label-map", found="none", expected=f"one of {', '.join(LABEL_MAPS)}",
            remedy="the map that the label files follow",
        )  # fmt: skip
    return read_labels(path, label_map=label_map, prefer=prefer, frames="one")


def _check_grids(image: Image | None, labels: Image, path: str | Path) -> None:
    if image is not None:
        _check_grids_match(labels.grid, image.grid, path)


def _check_grids_match(found: Grid, wanted: Grid, path: str | Path) -> None:
    if found.matches(wanted, tolerance_mm=0.05):
        return
    raise CardiogenError(
        "L40a", path,
        found=f"labels or a mask of shape {found.shape}, {wanted.distance_mm(found):.3g} mm "
        "from the image",
        expected=f"the grid of their image, {wanted.shape}",
        remedy="the labels or mask of this very image",
    )  # fmt: skip


def _tensor(image: Image, dtype: str) -> Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(image.data).astype(dtype))[None, None]
