"""Agreement of moved labels with fixed ones, by structure: in true mm, or as Learn2Reg counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.measure import dice, surface_distances
from registration.metrics.learn2reg import l2r_dice, l2r_hd95, l2r_warp_labels

_NAN = float("nan")
_MAX_CODES = 256


@dataclass(frozen=True)
class StructureMetrics:
    """Agreement of one structure, moved against fixed.

    Attributes:
        dice: overlap; NaN if neither map has the structure, 0 if one has it (``l2r``: NaN if
            fixed or moving lacks it).
        hd95_mm: 95 % Hausdorff distance, mm, area-weighted; NaN if a map lacks the structure
            (``l2r``: in voxels, and infinite if the moved map lacks it).
        surface_mm: average symmetric surface distance, mm, area-weighted; NaN if a map lacks the
            structure, and in ``l2r``, which has no such number.
        failure: why a number is missing; empty if none is.
    """

    dice: float
    hd95_mm: float
    surface_mm: float
    failure: str = ""


def strict_structures(
    fixed: NDArray[np.int64],
    moving: NDArray[np.int64],
    displacement: Tensor,
    *,
    spacing: tuple[float, float, float],
    structures: Mapping[str, int],
) -> dict[str, StructureMetrics]:
    """Return the agreement of ``moving`` pulled as one-hot (linear, argmax) with ``fixed``.

    Args:
        fixed: labels ``(D, H, W)``.
        moving: labels ``(D, H, W)`` on the same grid.
        displacement: ``fixed_to_moving`` ``(1, 3, D, H, W)``, voxels.
        spacing: mm along (d, h, w).
        structures: name -> label.
    """
    moved = warp_label_map(moving, displacement)
    found = {}
    for name, label in structures.items():
        a, b = fixed == label, moved == label
        apart = surface_distances(a, b, spacing=spacing)
        failure = _absent({"fixed": a, "moved": b})
        found[name] = StructureMetrics(dice(a, b), apart.hd95_mm, apart.assd_mm, failure)

    return found


def warp_label_map(moving: NDArray[np.int64], displacement: Tensor) -> NDArray[np.int64]:
    """Return labels ``(D, H, W)`` of any codes, pulled as one-hot channels (linear, argmax)."""
    # Codes need not be dense (FreeSurfer counts to 2035): channels are made of those present.
    codes, index = np.unique(np.append(moving.ravel(), 0), return_inverse=True)
    if len(codes) > _MAX_CODES:
        raise ValueError(f"moving must hold at most {_MAX_CODES} labels, got {len(codes)}")
    if len(codes) == 1:
        return moving.copy()  # background only
    background = int(np.searchsorted(codes, 0))
    order = np.concatenate([[background], np.delete(np.arange(len(codes)), background)])
    channel = np.argsort(order)[index[:-1]].reshape(moving.shape)
    labels = torch.from_numpy(channel)[None, None]
    probs = ops.warp_labels(labels, displacement, classes=len(codes))

    return codes[order][ops.argmax_labels(probs)[0, 0].numpy()]


def l2r_structures(
    fixed: NDArray[np.int64],
    moving: NDArray[np.int64],
    displacement: NDArray,
    *,
    structures: Mapping[str, int],
) -> dict[str, StructureMetrics]:
    """Return Dice and HD95 (voxels) as the Learn2Reg scorer counts them.

    Args:
        fixed: labels ``(D, H, W)``.
        moving: labels on the same grid.
        displacement: ``(3, D, H, W)``, voxels.
        structures: name -> label.
    """
    moved, labels = l2r_warp_labels(moving, displacement), list(structures.values())
    overlaps = l2r_dice(fixed, moving, moved, labels)
    distances = l2r_hd95(fixed, moving, moved, labels)
    found = {}
    for name, label, overlap, distance in zip(
        structures, labels, overlaps, distances, strict=True
    ):
        maps = {"fixed": fixed == label, "moving": moving == label}
        failure = _absent(maps) or _absent({"moved": moved == label})
        found[name] = StructureMetrics(float(overlap), float(distance), _NAN, failure)

    return found


def _absent(masks: Mapping[str, NDArray[np.bool_]]) -> str:
    missing = [name for name, mask in masks.items() if not mask.any()]

    return f"absent in {' and '.join(missing)}" if missing else ""
