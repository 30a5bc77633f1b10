"""Label maps of any codes and axes, and points, moved with an image, as frameworks give them.

Frameworks give single samples ``(C, *S)`` with codes of their own, -1 and 255 among them, on the
CPU. Here they become a batch of one, move by the draw of the image, and come back as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augment.chain import Applied, Chain, Draw
from augment.lattice import Lattice

BACKGROUND = 0


def draw_for(chain: Chain, shape: Sequence[int], spacing: Sequence[float], *, seed: int) -> Draw:
    """Return the draw of a seed for one image of ``shape`` ``(C, *S)``."""
    lattice = Lattice(shape=tuple(shape[1:]), spacing=tuple(spacing), channels=int(shape[0]))
    return chain.sample(lattice, generator=torch.Generator().manual_seed(seed))


def apply_draw(draw: Draw, chain: Chain, image: Tensor) -> Applied:
    """Return what a draw makes of one image ``(C, *S)`` of any real type."""
    with torch.no_grad():
        return draw.apply(image[None].float(), padding=chain.padding)


def image_of(applied: Applied, like: Tensor) -> Tensor:
    """Return the changed image ``(C, *S)``, floating point if ``like`` is not."""
    image = applied.image[0]
    return image.to(like.dtype) if like.is_floating_point() else image


def move_codes(applied: Applied, codes: Tensor, *, back: bool = False) -> Tensor:
    """Return a label map ``(C, *S)`` moved with its image; what comes into view is 0.

    Every code becomes a channel of its own, so codes never mix into others.

    Args:
        applied: the changed image.
        codes: whole numbers of any type; each of its C channels is a label map.
        back: bring labels of the changed image back to the original.
    """
    with torch.no_grad():
        return torch.stack([_moved(applied, channel, back) for channel in codes])


def move_points(applied: Applied, points: Tensor) -> Tensor:
    """Return where points of an image lie in the changed one, voxels ``(N, d)``.

    Args:
        applied: the changed image.
        points: voxels ``(N, d)`` in the order of the image's axes, the first voxel's center 0;
            points that leave the view have coordinates beyond it. Whole numbers become float32.

    Raises:
        ValueError: for anything else than a tensor of finite numbers ``(N, d)``.
    """
    ndim = applied.geometry.lattice.ndim
    if not isinstance(points, Tensor) or points.ndim != 2 or points.shape[1] != ndim:
        found = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise ValueError(
            f"points must be a tensor of voxels (N, {ndim}), one column per axis of the image, "
            f"got {found}"
        )
    if not points.isfinite().all():
        bad = int((~points.isfinite()).any(dim=1).nonzero()[0])
        raise ValueError(
            f"points must be finite, got NaN or infinity in point {bad}; leave out what is unknown"
        )
    points = points if points.is_floating_point() else points.float()
    if not len(points):
        return points
    with torch.no_grad():
        return applied.geometry.points(points[None], _Voxels(applied.geometry.lattice.shape))[0]


def reversed_axes(tensor: Tensor) -> Tensor:
    """Return ``(C, X, Y, Z)`` as ``(C, Z, Y, X)``, or the other way."""
    return tensor.movedim(list(range(1, tensor.ndim)), list(range(tensor.ndim - 1, 0, -1)))


@dataclass(frozen=True)
class _Voxels:
    """A grid whose world are its voxels."""

    shape: tuple[int, ...]

    @property
    def affine(self) -> np.ndarray:
        return np.eye(len(self.shape) + 1)


def _moved(applied: Applied, codes: Tensor, back: bool) -> Tensor:
    others = [code for code in torch.unique(codes).tolist() if code != BACKGROUND]
    if not others:
        return codes.clone()
    values = torch.tensor([BACKGROUND, *others], dtype=codes.dtype, device=codes.device)
    shape = (1, -1, *[1] * codes.ndim)
    hot = (codes == values.view(shape)).float()
    moved = applied.back(hot) if back else applied.labels(hot)
    return values[moved[0].argmax(dim=0)]
