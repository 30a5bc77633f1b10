"""Labels of ED as they are seen on every frame, through ``frame_to_ed``.

In general labels are pulled as one-hot probabilities with linear interpolation. Between slices far
apart that fails: where a thin wall lies elsewhere in the next slice, neither slice has a majority
and the wall vanishes (measured on ``human_cine``, ES, six slices 17.7 mm apart: Dice of the wall
.58). There signed distances in the planes are pulled instead, which interpolate shapes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Structure
from registration.tracking.inputs import Cine

# In the order in which they are drawn: what is inside is drawn last.
_SOLIDS = (
    (Structure.RV, (Structure.RV,)),
    (Structure.MYO, (Structure.LV, Structure.MYO)),
    (Structure.LV, (Structure.LV,)),
)


def propagated_labels(backward: Tensor, cine: Cine, *, between: bool) -> NDArray[np.uint8]:
    """Return the labels of every frame on the whole grid ``(T, D, H, W)``; ED as it was given.

    Args:
        backward: ``frame_to_ed`` ``(T, 3, *region)``, voxels.
        cine: its labels and region.
        between: whether fields lead between slices that were tracked on their own.
    """
    labels = np.zeros((len(backward), *cine.labels.shape), dtype=np.uint8)
    pull = _by_shape(cine) if between else _by_probability(cine)
    for frame, field in enumerate(backward):
        labels[(frame, *cine.window)] = pull(field[None]).cpu().numpy()
    labels[cine.sequence.ed] = cine.labels

    return labels


def _by_probability(cine: Cine) -> object:
    inside = torch.from_numpy(cine.labels[cine.window].astype(np.int64))[None, None]
    one_hot = ops.one_hot(inside, len(Structure))

    return lambda field: ops.argmax_labels(
        ops.warp_labels(one_hot.to(field.device), field)
    )[0, 0]  # fmt: skip


def _by_shape(cine: Cine) -> object:
    """Return a function of one field; a structure ends half a slice beyond its outer slices."""
    inside = cine.labels[cine.window]
    planes, ends = [], []
    for _, members in _SOLIDS:
        solid = np.isin(inside, members)
        levels = np.flatnonzero(solid.any(axis=(1, 2)))
        ends.append((levels.min() - 0.5, levels.max() + 0.5) if len(levels) else (1.0, 0.0))
        planes.append(plane_distances(solid, cine.region.spacing[1:]))
    distances = torch.from_numpy(np.stack(planes)[None]).float()

    def pull(field: Tensor) -> Tensor:
        moved = ops.warp(distances.to(field.device), field)[0]
        depth = torch.arange(field.shape[2], device=field.device).view(-1, 1, 1) + field[0, 0]
        found = torch.zeros(field.shape[2:], dtype=torch.uint8, device=field.device)
        for (structure, _), distance, (low, high) in zip(_SOLIDS, moved, ends, strict=True):
            found[(distance > 0) & (depth > low) & (depth < high)] = int(structure)
        return found

    return pull


def plane_distances(solid: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the signed distance to the border in every plane, mm, inside positive ``(D, H, W)``.

    Planes without the solid repeat the nearest one with it.
    """
    from scipy.ndimage import distance_transform_edt

    levels = np.flatnonzero(solid.any(axis=(1, 2)))
    if not len(levels):
        return np.full(solid.shape, -1.0)
    found = {}
    for level in levels:
        out = distance_transform_edt(~solid[level], sampling=spacing)
        found[level] = distance_transform_edt(solid[level], sampling=spacing) - out
    nearest = levels[np.abs(np.arange(len(solid))[:, None] - levels).argmin(axis=1)]

    return np.stack([found[level] for level in nearest])
