"""Target registration error: how far moved landmarks lie from where they should be, in mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid

HARDEST = 0.3


@dataclass(frozen=True)
class LandmarkMetrics:
    """Errors of landmark pairs; NaN if there is none.

    Attributes:
        tre_mm: mean error.
        tre30_mm: mean error of the 30 % of pairs (at least one) that lay furthest apart before
            registration: the hard ones, chosen without a look at the result.
        initial_mm: mean distance before registration.
        count: pairs that were compared.
    """

    tre_mm: float
    tre30_mm: float
    initial_mm: float
    count: int


def landmark_metrics(errors: NDArray[np.float64], initial: NDArray[np.float64]) -> LandmarkMetrics:
    """Summarize errors ``(V,)`` of landmarks whose initial distances were ``initial`` ``(V,)``.

    Pairs with a NaN coordinate (a landmark that was not seen) are left out and not counted.
    """
    seen = np.isfinite(errors) & np.isfinite(initial)
    errors, initial = errors[seen], initial[seen]
    if not errors.size:
        nan = float("nan")
        return LandmarkMetrics(nan, nan, nan, 0)
    hard = hardest(initial, larger_is_harder=True)

    return LandmarkMetrics(
        tre_mm=float(errors.mean()),
        tre30_mm=float(errors[hard].mean()),
        initial_mm=float(initial.mean()),
        count=int(errors.size),
    )


def hardest(
    initial: NDArray[np.float64], *, larger_is_harder: bool, fraction: float = HARDEST
) -> NDArray[np.int64]:
    """Return the indices of the entries that were worst before registration.

    Args:
        initial: values ``(V,)`` before registration.
        larger_is_harder: true for distances, false for overlaps.
        fraction: share to return, rounded to a whole number (halves to even), at least one.
    """
    count = max(1, round(len(initial) * fraction))
    order = np.argsort(initial, kind="stable")

    return order[-count:] if larger_is_harder else order[:count]


def target_registration_errors(
    fixed_mm: ArrayLike, moving_mm: ArrayLike, displacement: Tensor, grid: Grid
) -> NDArray[np.float64]:
    """Return ``|A (x + u(x)) - q|`` of every landmark, ``(V,)`` mm, with ``x = A^-1 p``.

    The displacement is read by linear interpolation and extended from its border outwards.

    Args:
        fixed_mm: landmarks p ``(V, 3)``, world RAS mm, on the fixed image.
        moving_mm: the same landmarks q on the moving image.
        displacement: ``fixed_to_moving`` ``(1, 3, D, H, W)``, voxels.
        grid: lattice of the displacement, with affine A.
    """
    fixed, moving = check_points(fixed_mm, moving_mm)
    # Interpolation at NaN is undefined; the pair is made NaN again below.
    known = np.where(np.isfinite(fixed), fixed, grid.affine[:3, 3])
    moved = ops.warp_points(torch.from_numpy(known)[None], displacement.double(), grid)[0].numpy()
    errors = np.linalg.norm(moved - moving, axis=1)
    errors[~np.isfinite(fixed).all(axis=1)] = np.nan

    return errors


def check_points(
    fixed: ArrayLike, moving: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both sets as ``(V, 3)`` float64, or say what is wrong."""
    fixed, moving = (np.array(p, dtype=np.float64) for p in (fixed, moving))
    if fixed.ndim != 2 or fixed.shape[1] != 3 or fixed.shape != moving.shape:
        raise ValueError(
            f"fixed and moving points must both be (V, 3), got {fixed.shape} and {moving.shape}"
        )

    return fixed, moving
