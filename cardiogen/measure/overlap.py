"""Agreement of two label maps: Dice, and distances between their surfaces in mm.

Definition: the surface of a structure is the set of voxel faces between it and everything else,
the border of the image included. A face counts with its area (mm^2) at its center; its distance to
another surface is that to the nearest face center there. So coarse slices weigh as much as they
are large, unlike in counts of boundary voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces in mm; NaN and a reason where one of them does not exist."""

    assd_mm: float
    hd95_mm: float
    hd_mm: float
    failure: str = ""


def dice(a: ArrayLike, b: ArrayLike) -> float:
    """Return ``2 |A and B| / (|A| + |B|)`` of two masks of one shape; NaN if both are empty."""
    a, b = _masks(a, b)
    size = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / size if size else float("nan")


def surface_distances(a: ArrayLike, b: ArrayLike, *, spacing: ArrayLike) -> SurfaceDistances:
    """Return mean, 95th percentile and maximum of the distances between two mask surfaces.

    With ``d(f, S)`` the distance from face f to the nearest face of surface S and ``w`` its area,

    - ASSD ``= (sum_A w d(f, B) + sum_B w d(f, A)) / (sum_A w + sum_B w)``;
    - HD95 is the larger of the two directed, area-weighted 95th percentiles (the least distance
      within which 95 % of the area lies);
    - HD is the larger of the two directed maxima.

    Args:
        a: mask ``(D, H, W)``.
        b: mask of the same shape.
        spacing: mm along (d, h, w).

    Returns:
        The three distances, or NaN and ``failure`` if a mask is empty: a missing structure is a
        failure to be counted, and no number stands in for it.
    """
    a, b = _masks(a, b)
    spacing = np.asarray(spacing, dtype=np.float64)
    if a.ndim != 3 or spacing.shape != (3,) or not (spacing > 0).all():
        raise ValueError(f"need masks (D, H, W) and three spacings, got {a.shape}, {spacing}")
    missing = [name for name, mask in (("a", a), ("b", b)) if not mask.any()]
    if missing:
        nan = float("nan")
        return SurfaceDistances(nan, nan, nan, failure=f"absent in {' and '.join(missing)}")
    return _compare(_faces(a, spacing), _faces(b, spacing))


def compare_labels(a: ArrayLike, b: ArrayLike, grid: Grid) -> pd.DataFrame:
    """Return Dice, ASSD and HD95 of every structure of two label maps on one grid.

    A structure that both lack has Dice NaN; one that a single map has, Dice 0. Distances are NaN
    in both cases and ``failure`` says why.

    Args:
        a: structures ``(D, H, W)``, for example predicted.
        b: structures ``(D, H, W)``, for example true.
        grid: their lattice (its axes are taken to be orthogonal).

    Returns:
        Table with index ``structure`` and columns ``dice``, ``assd (mm)``, ``hd95 (mm)``,
        ``failure``.
    """
    import pandas as pd

    a, b = np.asarray(a), np.asarray(b)
    rows = {}
    for structure in (Structure.LV, Structure.MYO, Structure.RV):
        apart = surface_distances(a == structure, b == structure, spacing=grid.spacing)
        overlap = dice(a == structure, b == structure)
        rows[structure.name] = (overlap, apart.assd_mm, apart.hd95_mm, apart.failure)
    columns = ["dice", "assd (mm)", "hd95 (mm)", "failure"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.rename_axis("structure")


def _masks(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"masks must have one shape, got {a.shape} and {b.shape}")
    return a, b


def _faces(mask: NDArray, spacing: NDArray) -> tuple[NDArray, NDArray]:
    """Centers ``(N, 3)`` mm and areas ``(N,)`` mm^2 of the faces between mask and the rest."""
    padded = np.pad(mask, 1)
    centers, areas = [], []
    for axis in range(3):
        where = np.argwhere(np.diff(padded.astype(np.int8), axis=axis) != 0).astype(np.float64)
        where[:, axis] += 0.5  # halfway between the two voxels; padding shifts all alike
        centers.append(where * spacing)
        areas.append(np.full(len(where), np.prod(np.delete(spacing, axis))))
    return np.concatenate(centers), np.concatenate(areas)


def _compare(a: tuple[NDArray, NDArray], b: tuple[NDArray, NDArray]) -> SurfaceDistances:
    from scipy.spatial import cKDTree

    (points_a, area_a), (points_b, area_b) = a, b
    to_b, _ = cKDTree(points_b).query(points_a)
    to_a, _ = cKDTree(points_a).query(points_b)
    total = (area_a * to_b).sum() + (area_b * to_a).sum()
    return SurfaceDistances(
        assd_mm=float(total / (area_a.sum() + area_b.sum())),
        hd95_mm=max(_quantile(to_b, area_a, 0.95), _quantile(to_a, area_b, 0.95)),
        hd_mm=float(max(to_b.max(), to_a.max())),
    )


def _quantile(values: NDArray, weights: NDArray, fraction: float) -> float:
    """Least value at or below which at least ``fraction`` of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    # A rounding error of the sum must not push an exact 95 % to the next value.
    index = np.searchsorted(reached, fraction * reached[-1] * (1 - 1e-12))
    return float(values[order][index])
