"""Check what tracking is given, and bring intensities and frames into the form that it needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError, Note
from cardiogen.data import Grid, Structure
from cardiogen.data.sequence import Sequence
from registration.prepare import in_plane_lengths
from registration.tracking.config import InPlane, TrackingConfig

# Quantiles of a cine need no more voxels than this.
_SAMPLED = 1 << 20


@dataclass(frozen=True, eq=False, kw_only=True)
class Cine:
    """A checked cine with the labels of its ED frame.

    Attributes:
        sequence: images ``(T, D, H, W)``, phases since ED, ED, grid.
        labels: structures at ED ``(D, H, W)`` uint8.
        region: cropped grid around the labels.
        start: its first voxel.
    """

    sequence: Sequence
    labels: NDArray[np.uint8]
    region: Grid
    start: tuple[int, int, int]

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """Slices of ``region`` in the whole grid."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.region.shape, strict=True))

    @property
    def phases(self) -> Tensor:
        """Fraction of the cycle since ED of every frame ``(T,)`` float64; 0 at ED."""
        return phases_since_ed(self.sequence)

    @property
    def order(self) -> list[int]:
        """Frames in the order in which they follow ED, ED first."""
        return torch.argsort(self.phases).tolist()

    @property
    def one_slice(self) -> bool:
        """Whether one slice alone shows the left ventricle: it has no volume then."""
        heart = (self.labels == Structure.LV) | (self.labels == Structure.MYO)

        return bool(heart.any(axis=(1, 2)).sum() == 1)

    def prepared(self, config: TrackingConfig, device: torch.device) -> Tensor:
        """Return the images of the region ``(T, 1, *S)``, one scale for all frames, smoothed."""
        images = self.sequence.images[(slice(None), *self.window)]

        return prepared_images(images, self.region.spacing, config, device)


def phases_since_ed(sequence: Sequence) -> Tensor:
    """Return the fraction of the cycle since ED of every frame ``(T,)`` float64; 0 at ED."""
    phases = torch.from_numpy(np.asarray(sequence.phases, dtype=np.float64))

    return torch.remainder(phases - phases[sequence.ed], 1.0)


def _since_ed(sequence: Sequence) -> Sequence:
    """Return a sequence whose phases count from ED; unchanged, to the bit, if they do."""
    if sequence.phases[sequence.ed] == 0:
        return sequence
    return sequence.with_(phases=phases_since_ed(sequence).numpy())


def prepared_images(
    images: NDArray, spacing: tuple[float, ...], config: TrackingConfig, device: torch.device
) -> Tensor:
    """Return images ``(T, *S)`` as ``(T, 1, *S)``, one scale for all frames, smoothed."""
    values = torch.from_numpy(np.ascontiguousarray(images)).to(device).float()
    flat = values.flatten()
    sampled = flat[:: -(-len(flat) // _SAMPLED)]
    low, high = torch.quantile(sampled, sampled.new_tensor([config.low, config.high]) / 100)
    values = ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).unsqueeze(1)
    if config.smooth_mm == 0:
        return values

    return ops.gaussian(values, in_plane_lengths(config.smooth_mm, spacing), spacing=spacing)


def check_cine(
    images: Sequence | Tensor | NDArray,
    labels: NDArray,
    *,
    grid: Grid | None,
    ed: int | None,
    cycle_s: float | None,
    config: TrackingConfig,
) -> Cine:
    """Return the inputs of tracking, checked.

    Raises:
        CardiogenError: N36 for fewer than two frames, N26 for voxels that are not finite, N39 for
            a cine without contrast, L37 for empty labels, L60 without cavity or wall, L40a for
            labels on another grid, N23 for a cycle that no heart has.
        ValueError: for arrays of other shapes.
    """
    sequence = _since_ed(_sequence(images, grid, ed, cycle_s))
    check_frames(sequence, "cine")
    if sequence.cycle_s is not None and not 0.2 <= sequence.cycle_s <= 5.0:
        raise CardiogenError(
            "N23", "cycle", found=f"{sequence.cycle_s:.4g} s", expected="a heart beat, 0.2 to 5 s",
            remedy="the frame time in milliseconds (--frame-time-ms)",
        )  # fmt: skip
    labels = _labels(labels, sequence.grid)
    start, shape = _box(labels, sequence.grid, config.margin_mm)

    return Cine(sequence=sequence, labels=labels, start=start,
                region=sequence.grid.cropped(start, shape))  # fmt: skip


def check_frames(sequence: Sequence, where: str) -> None:
    """Refuse a cine that has no motion to show.

    Raises:
        CardiogenError: N36 for fewer than two frames, N26 for voxels that are not finite, N39 for
            a cine without contrast.
    """
    frames = len(sequence)
    if frames < 2:
        raise CardiogenError(
            "N36", where, found=f"{frames} frame", expected="at least two frames",
            remedy="the whole cine, or cardiogen register for a pair",
        )  # fmt: skip
    if not np.isfinite(sequence.images).all():
        raise CardiogenError(
            "N26", where, found="NaN or infinite voxels", expected="finite values",
            remedy="exporting or repairing the images",
        )  # fmt: skip
    if sequence.images.min() == sequence.images.max():
        raise CardiogenError(
            "N39", where, found="zero variance", expected="images with contrast",
            remedy="exporting the images again",
        )  # fmt: skip


def wants_in_plane(
    in_plane: InPlane, grid: Grid, config: TrackingConfig, *, views: int = 0
) -> tuple[bool, Note]:
    """Return whether slices are tracked on their own, and why; never with further views."""
    apart = slices_apart(grid, config) if in_plane == "auto" else bool(in_plane)
    chosen = views == 0 and (grid.shape[0] == 1 or apart)
    mode = "2D+t, slices on their own" if chosen else "3D+t"
    why = "further views" if views else "auto" if in_plane == "auto" else "asked for"

    return chosen, Note(
        "S80", "tracking", f"{mode} ({why}): slices {grid.spacing[0]:.3g} mm apart"
    )


def slices_apart(grid: Grid, config: TrackingConfig) -> bool:
    """Whether slices are too far apart to show what has left their neighbors."""
    step = grid.spacing[0]

    return step > config.in_plane_beyond_mm and step >= 2 * max(grid.spacing[1:])


def sha256(values: NDArray) -> str:
    """Return the hash of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _sequence(
    images: Sequence | Tensor | NDArray, grid: Grid | None, ed: int | None, cycle_s: float | None
) -> Sequence:
    if isinstance(images, Sequence):
        if images.images is None:
            raise ValueError(f"sequence must have images, {images.subject_id!r} has none")
        changes = {name: value for name, value in (("ed", ed), ("cycle_s", cycle_s))
                   if value is not None}  # fmt: skip
        return images.with_(images=np.asarray(images.images, np.float32), **changes)
    values = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if grid is None or values.ndim != 5 or values.shape[1:] != (1, *grid.shape):
        raise ValueError(
            "images must be (T, 1, D, H, W) with their grid, got "
            f"{values.shape} and {None if grid is None else grid.shape}"
        )
    frames, ed = len(values), 0 if ed is None else ed
    if not 0 <= ed < frames:
        raise ValueError(f"ed must be a frame below {frames}, got {ed}")

    return Sequence(phases=((np.arange(frames) - ed) % frames) / frames, ed=ed, grid=grid,
                    images=values[:, 0].astype(np.float32), cycle_s=cycle_s)  # fmt: skip


def _labels(labels: NDArray, grid: Grid) -> NDArray[np.uint8]:
    labels = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    labels = labels.reshape(labels.shape[-3:])
    if labels.shape != grid.shape:
        raise CardiogenError(
            "L40a", "ED labels", found=f"labels of shape {labels.shape}",
            expected=f"the grid of the cine, {grid.shape}",
            remedy="labels of this cine, or resampling them onto its grid",
        )  # fmt: skip
    if not (labels > 0).any():
        raise CardiogenError(
            "L37", "ED labels", found="an empty label map", expected="labeled structures",
            remedy="the file that holds the labels",
        )  # fmt: skip
    if not ((labels == Structure.LV).any() and (labels == Structure.MYO).any()):
        raise CardiogenError(
            "L60", "ED labels", found="no voxel of LV or MYO", expected="LV and MYO at ED",
            remedy="labels of the left ventricle, or another --label-map",
        )  # fmt: skip
    return labels.astype(np.uint8)


def _box(
    labels: NDArray, grid: Grid, margin_mm: float
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    where = np.argwhere(labels > 0)
    margin = np.ceil(margin_mm / np.array(grid.spacing)).astype(int)
    low = np.maximum(where.min(axis=0) - margin, 0)
    high = np.minimum(where.max(axis=0) + margin + 1, grid.shape)

    return tuple(int(n) for n in low), tuple(int(n) for n in high - low)
