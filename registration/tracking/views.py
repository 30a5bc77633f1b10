"""Further views: cines on other planes that show the motion of the same heart.

A view shares the world and the heart beat with the main cine, nothing else: planes, pixels, number
of frames and intensities are its own. It is compared with its own ED only, so that planes that
lie a little apart from where their headers put them still tell how the heart moves about there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError, Note
from cardiogen.data import Grid
from cardiogen.data.sequence import Sequence
from registration.tracking.config import InPlane, TrackingConfig
from registration.tracking.inputs import (
    Cine,
    check_frames,
    phases_since_ed,
    prepared_images,
    slices_apart,
)
from registration.world import check_overlap, overlap

# Seen around the tracked region, so that what leaves it is still in the picture.
_MARGIN_MM = 10.0
_LEAST_AGREEMENT = 0.4


@dataclass(frozen=True, eq=False, kw_only=True)
class View:
    """A checked view.

    Attributes:
        sequence: images ``(T, D, H, W)``, phases, ED, grid.
        grid: its part about the tracked region.
        start: first voxel of that part.
        region: lattice of the motion.
        flat: motion through the planes cannot be seen: one plane, or planes far apart.
        share: area that it shows of the region over the area that the main cine shows of it.
    """

    sequence: Sequence
    grid: Grid
    start: tuple[int, int, int]
    region: Grid
    flat: bool
    share: float

    @property
    def phases(self) -> Tensor:
        """Fraction of the cycle since its ED of every frame ``(T,)`` float64; 0 at ED."""
        return phases_since_ed(self.sequence)

    def prepared(self, config: TrackingConfig, device: torch.device) -> Tensor:
        """Return its images about the region ``(T, 1, *S)``, on a scale of their own."""
        pairs = zip(self.start, self.grid.shape, strict=True)
        window = tuple(slice(a, a + n) for a, n in pairs)
        images = self.sequence.images[(slice(None), *window)].astype(np.float32)

        return prepared_images(images, self.grid.spacing, config, device)

    def inside(self, grid: Grid) -> Tensor:
        """Return which voxels of a lattice of the view lie in the region, ``(D, H, W)`` bool."""
        return overlap(grid, self.region)[0, 0] > 0


@dataclass(frozen=True, eq=False, kw_only=True)
class ViewReport:
    """How a view fits the cine, and how far its frames, brought to its ED, still differ from it.

    Attributes:
        name: of the view.
        planes: number of its planes.
        flat: whether it tells of motion in its planes only.
        agreement: correlation of its ED with that of the cine where both lie, -1 to 1.
        before: root mean square difference of every frame from ED as imaged ``(T,)``, 0 to 1.
        after: the same once the motion has brought the frame to ED.
    """

    name: str
    planes: int
    flat: bool
    agreement: float
    before: Tensor
    after: Tensor

    def as_dict(self) -> dict[str, object]:
        """Return numbers for JSON."""
        return {
            "name": self.name, "frames": len(self.before), "planes": self.planes,
            "tells_of": "motion in its planes" + ("" if self.flat else " and through them"),
            "ed_correlation_with_cine": self.agreement,
            "rms_difference": {"before": float(self.before.square().mean().sqrt()),
                               "after": float(self.after.square().mean().sqrt())},
        }  # fmt: skip


def check_views(
    sequences: Iterable[Sequence], cine: Cine, config: TrackingConfig, *, in_plane: InPlane
) -> tuple[View, ...]:
    """Return the further views of a cine, checked.

    Raises:
        CardiogenError: U16 for views that the settings cannot use, N36 for fewer than two frames,
            N26 for voxels that are not finite, N39 for a view without contrast, N55 for planes
            that do not meet the tracked region.
        ValueError: for a sequence without images.
    """
    sequences = tuple(sequences)
    if sequences and (config.strategy != "groupwise" or in_plane is True):
        what = "in-plane tracking" if in_plane is True else f"strategy {config.strategy}"
        raise CardiogenError(
            "U16", "--view", found=f"{len(sequences)} further view(s) with {what}",
            expected="groupwise tracking in 3D, where views constrain one motion",
            remedy="strategy groupwise without --in-plane, or no --view",
        )  # fmt: skip
    return tuple(
        _checked(s, f"view {k} ({s.subject_id})", cine, config)
        for k, s in enumerate(sequences, start=1)
    )


def _checked(sequence: Sequence, where: str, cine: Cine, config: TrackingConfig) -> View:
    if sequence.images is None:
        raise ValueError(f"views must have images, {where} has none")
    check_frames(sequence, where)
    whole, region = sequence.grid, cine.region
    inside = check_overlap(whole, region, where)[0][0, 0] > 0
    voxels = torch.nonzero(inside).numpy()
    margin = np.ceil(_MARGIN_MM / np.array(whole.spacing)).astype(int)
    low = np.maximum(voxels.min(axis=0) - margin, 0)
    high = np.minimum(voxels.max(axis=0) + margin + 1, whole.shape)
    start, shape = tuple(int(n) for n in low), tuple(int(n) for n in high - low)
    area = len(voxels) * _pixel_mm2(whole)

    return View(
        sequence=sequence, grid=whole.cropped(start, shape), start=start, region=region,
        flat=whole.shape[0] == 1 or slices_apart(whole, config),
        share=area / (np.prod(region.shape) * _pixel_mm2(region)),
    )  # fmt: skip


def pulled(images: Tensor, displacement: Tensor, coords: Tensor, turn: Tensor) -> Tensor:
    """Return frames of a view brought to its ED by motion of another lattice, ``(T, 1, *S)``.

    Args:
        images: of the view ``(T, 1, *S)``.
        displacement: ``ed_to_frame`` ``(T, 3, *S')``, voxels of its lattice.
        coords: positions of the view's voxels there, ``(1, 3, *S)``.
        turn: what the view's voxels see of a vector of that lattice, 3 x 3.
    """
    there = ops.sample(displacement, coords)

    return ops.warp(images, torch.einsum("ij,tjdhw->tidhw", turn, there))


def placed(grid: Grid, lattice: Grid, *, flat: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``coords`` and ``turn`` of ``pulled`` for a view's grid and the motion's lattice."""
    coords = ops.identity_coords(grid.shape, dtype=torch.float64)
    matrix = ops.world_to_grid(lattice) @ ops.grid_to_world(grid)
    points = ops.transform_points(coords.movedim(1, -1).flatten(1, -2), matrix)
    turn = torch.from_numpy(grid.inverse[:3, :3] @ lattice.affine[:3, :3])
    # What leads out of a plane leaves no trace in it.
    turn[0] *= 0.0 if flat else 1.0

    return points.transpose(1, 2).unflatten(2, grid.shape).to(like), turn.to(like)


def view_report(view: View, images: Tensor, displacement: Tensor, ed_image: Tensor) -> ViewReport:
    """Return how a view fits the cine, and what is left of its motion.

    Args:
        view: of the cine.
        images: its ``prepared`` images.
        displacement: ``ed_to_frame`` on the region at the view's phases ``(T, 3, *region)``.
        ed_image: of the cine ``(1, 1, *region)``.
    """
    coords, turn = placed(view.grid, view.region, flat=view.flat, like=images)
    kept, ed = view.inside(view.grid).to(images.device), view.sequence.ed
    before, after = (
        (x - images[ed])[:, 0, kept].square().mean(dim=1).sqrt().cpu()
        for x in (images, pulled(images, displacement, coords, turn))
    )
    both = torch.stack([images[ed, 0, kept], ops.sample(ed_image, coords)[0, 0, kept]])
    agreement = float(torch.corrcoef(both)[0, 1].nan_to_num()) if both.shape[1] > 1 else 0.0

    return ViewReport(
        name=view.sequence.subject_id, planes=view.sequence.grid.shape[0], flat=view.flat,
        agreement=agreement, before=before, after=after,
    )  # fmt: skip


def view_doubts(reports: Iterable[ViewReport]) -> list[Note]:
    """Return notes on views whose ED looks unlike that of the cine in the same place."""
    return [
        Note("S86", report.name, "its ED and that of the cine correlate by no more than "
             f"{report.agreement:.2f} where both lie: check that both headers tell of one world")
        for report in reports if report.agreement < _LEAST_AGREEMENT
    ]  # fmt: skip


def view_notes(views: tuple[View, ...]) -> list[Note]:
    """Return what the views were used for."""
    if not views:
        return []
    planes = ", ".join(str(v.sequence.grid.shape[0]) for v in views)
    text = (
        f"one motion in 3D from the cine and {len(views)} further view(s) of {planes} plane(s): "
        "motion through the slices is measured where they show it, and smooth between; their "
        "places come from the headers, their ED is taken to be that of the cine"
    )
    return [Note("S85", "tracking", text)]


def _pixel_mm2(grid: Grid) -> float:
    return grid.spacing[1] * grid.spacing[2]
