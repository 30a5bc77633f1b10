"""Images and label maps brought to the lattice of a network, and its answers brought back.

Slices stay where they are: only the plane is resampled, since a short-axis stack is ten times
coarser across it. Labels go as indicator channels, smoothed and interpolated like the image, so
that borders keep their place between voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augment.segmentation.config import ImageConfig
from augment.shape_space import voxel_to_heart
from cardiogen.base import CardiogenError
from cardiogen.data import Grid, Sequence, Structure
from cardiogen.ops import gaussian, one_hot, resample

CLASSES = len(Structure)
# A voxel as full width at half maximum of a Gaussian; see ops.pyramid.
_FWHM_TO_SIGMA = 0.42466090014400953
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True, eq=False, kw_only=True)
class Frame:
    """One volume, ready for a network.

    Attributes:
        subject_id: whose it is.
        number: of the frame in its sequence.
        image: normalized intensities ``(D, H, W)`` float32.
        structures: shares of LV, MYO, RV ``(3, D, H, W)`` float16; None without labels.
        center: row and column of the middle of the heart, or of the image without labels.
        grid: lattice of both.
        to_heart: voxels to the heart frame (mm), ``(4, 4)`` float64; NaN where labels do not tell.
    """

    subject_id: str
    number: int
    image: Tensor
    structures: Tensor | None
    center: tuple[float, float]
    grid: Grid
    to_heart: Tensor


def plane_grid(grid: Grid, spacing_mm: float) -> Grid:
    """Return the lattice of the same slices with ``spacing_mm`` in plane, centered within them."""
    matrix, start, shape = grid.affine.copy(), np.zeros(3), [grid.shape[0]]
    for axis in (1, 2):
        step = grid.spacing[axis]
        extent = (grid.shape[axis] - 1) * step
        # A rounding error must not cost the last voxel of an exact fit.
        count = math.floor(extent / spacing_mm + 1e-6) + 1
        start[axis] = (extent - (count - 1) * spacing_mm) / 2 / step
        matrix[:3, axis] *= spacing_mm / step
        shape.append(count)
    matrix[:3, 3] = grid.to_world(start)
    return Grid(tuple(shape), matrix)


def prepare_frame(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8] | None,
    grid: Grid,
    config: ImageConfig,
    *,
    subject_id: str = "heart",
    number: int = 0,
    mirrored: bool = False,
) -> Frame:
    """Resample one volume in plane and normalize its intensities.

    Args:
        image: ``(D, H, W)``.
        labels: structures ``(D, H, W)`` uint8, or None.
        grid: lattice of both.
        config: spacing and normalization.
        subject_id: for messages and outputs.
        number: of the frame.
        mirrored: whether the header's world shows the heart as in a mirror.

    Raises:
        CardiogenError: N26 for intensities that are not finite, N39 for an image of one value.
    """
    _check_image(image, f"{subject_id}, frame {number}")
    target = plane_grid(grid, config.spacing_mm)
    volume = torch.as_tensor(np.asarray(image, dtype=np.float32))[None, None]
    prepared = normalize(in_plane(volume, grid, target)[0, 0], config.normalization)
    if labels is None:
        middle = tuple((n - 1) / 2 for n in target.shape[1:])
        return Frame(
            subject_id=subject_id, number=number, image=prepared, structures=None,
            center=middle, grid=target, to_heart=_unknown(),
        )  # fmt: skip
    hot = one_hot(torch.as_tensor(labels)[None, None].long(), CLASSES)[:, 1:]
    structures = in_plane(hot, grid, target)[0].clamp(0, 1)
    return Frame(
        subject_id=subject_id, number=number, image=prepared, structures=structures.half(),
        center=_center(structures), grid=target,
        to_heart=_to_heart(labels, grid, target, mirrored=mirrored),
    )  # fmt: skip


def prepare_sequence(sequence: Sequence, config: ImageConfig, *, frames: str) -> list[Frame]:
    """Return the frames of a sequence with images and labels: ED and ES, or all.

    Raises:
        CardiogenError: as :func:`prepare_frame`.
    """
    if sequence.images is None or sequence.labels is None or sequence.grid is None:
        raise ValueError("sequence must have images and labels on a grid, got one without")
    return [
        prepare_frame(
            sequence.images[number], sequence.labels[number], sequence.grid, config,
            subject_id=sequence.subject_id, number=number,
            # Layouts whose headers are known to mirror hearts are marked as assumed.
            mirrored=sequence.orientation != "trusted",
        )
        for number in wanted_frames(sequence, frames)
    ]  # fmt: skip


def wanted_frames(sequence: Sequence, frames: str) -> list[int]:
    """Return the numbers of the frames that ``ed+es`` or ``all`` names."""
    if frames == "all":
        return list(range(len(sequence)))
    ends = [sequence.ed, sequence.es]
    return list(dict.fromkeys(n for n in ends if n is not None))


def in_plane(image: Tensor, grid: Grid, target: Grid) -> Tensor:
    """Return ``(B, C, *S)`` on another lattice of the same slices, smoothed where it is coarser.

    The Gaussian of ``0.4247 sqrt(f^2 - 1)`` voxels for a factor f keeps fine texture from folding
    into coarse voxels.
    """
    factors = [new / old for new, old in zip(target.spacing, grid.spacing, strict=True)]
    # Lattices of one spacing that is no float need no blur of a hundredth of a voxel.
    sigma = tuple(
        _FWHM_TO_SIGMA * math.sqrt(f**2 - 1) if axis and f > 1 + 1e-3 else 0.0
        for axis, f in enumerate(factors)
    )
    smoothed = gaussian(image, sigma) if any(sigma) else image
    return resample(smoothed, grid, target)


def normalize(image: Tensor, kind: str) -> Tensor:
    """Return a volume with mean 0 and SD 1, or with percentiles 0.5 and 99.5 at 0 and 1."""
    if kind == "zscore":
        return (image - image.mean()) / image.std().clamp(min=1e-8)
    # torch.quantile refuses more than 2^24 values.
    low, high = np.percentile(image.numpy(), _PERCENTILES)
    return (image - float(low)) / max(float(high - low), 1e-8)


def indicator_channels(structures: Tensor) -> Tensor:
    """Return shares of all classes ``(B, 4, *S)`` float32 of those of structures ``(B, 3, *S)``.

    Background takes what is left.
    """
    structures = structures.float()
    background = (1 - structures.sum(dim=1, keepdim=True)).clamp(min=0)
    return torch.cat([background, structures], dim=1)


def _check_image(image: NDArray, where: str) -> None:
    image = np.asarray(image)
    if image.ndim != 3:
        raise ValueError(f"image must be (D, H, W), got {image.shape}")
    if not np.isfinite(image).all():
        raise CardiogenError(
            "N26", where, found=f"{int((~np.isfinite(image)).sum())} voxels that are not finite",
            expected="finite intensities", remedy="exporting or repairing the image",
        )  # fmt: skip
    if image.min() == image.max():
        raise CardiogenError(
            "N39", where, found=f"zero variance: every voxel is {float(image.flat[0]):g}",
            expected="an image with contrast", remedy="exporting the image again",
        )  # fmt: skip


def _unknown() -> Tensor:
    return torch.full((4, 4), float("nan"), dtype=torch.float64)


def _to_heart(labels: NDArray[np.uint8], grid: Grid, target: Grid, *, mirrored: bool) -> Tensor:
    """Return voxels of ``target`` to the heart frame; NaN where labels do not show it all."""
    if not (labels == Structure.RV).any():
        return _unknown()
    try:
        matrix = voxel_to_heart(labels, grid, mirrored=mirrored)
    except CardiogenError as error:
        if error.code not in ("L60", "L61", "L62"):
            raise
        return _unknown()
    return torch.from_numpy(matrix @ grid.inverse @ target.affine)


def _center(structures: Tensor) -> tuple[float, float]:
    """Return the mean row and column of what is heart; the image's middle if there is none."""
    heart = structures.sum(dim=(0, 1))
    total = float(heart.sum())
    if total == 0:
        return tuple((n - 1) / 2 for n in heart.shape)
    rows = float((heart.sum(dim=1) * torch.arange(heart.shape[0])).sum()) / total
    columns = float((heart.sum(dim=0) * torch.arange(heart.shape[1])).sum()) / total
    return rows, columns
