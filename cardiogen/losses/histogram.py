"""Joint Parzen histograms of two images, in pieces that fit a cache.

Convention: B-spline weights ``w_a(x)`` of a position x among the bins a = 0 ... n - 1. A piece of
the image becomes two dense matrices of weights, whose product is its share of the histogram;
nothing of the size (voxels x bins x bins) exists, and gradients keep positions alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Voxels of one piece: two matrices of 32 bins in float32 then take 4 MB.
_PIECE = 16_384


def joint_histogram(
    fixed: Tensor, moved: Tensor, weights: Tensor, *, bins: int, degree: int
) -> Tensor:
    """Return ``sum_x weights(x) w_a(fixed(x)) w_b(moved(x))``, twice differentiable.

    Args:
        fixed: bin positions ``(B, N)``.
        moved: bin positions ``(B, N)``.
        weights: of voxels, ``(B, N)``, not differentiated.
        bins: n.
        degree: of the B-spline, 1 or 3.

    Returns:
        ``(B, n, n)``, rows of the fixed image.
    """
    return _JointHistogram.apply(fixed, moved, weights.detach(), bins, degree)


def mean_over_bins(values: Tensor, fixed: Tensor, moved: Tensor, *, degree: int) -> Tensor:
    """Return ``sum_ab w_a(fixed) values_ab w_b(moved)`` at every voxel.

    Args:
        values: ``(B, n, n)``.
        fixed: bin positions ``(B, N)``.
        moved: bin positions ``(B, N)``.
        degree: of the B-spline.

    Returns:
        ``(B, N)``.
    """
    bins = values.shape[-1]
    pieces = []
    for f, m in zip(fixed.split(_PIECE, dim=1), moved.split(_PIECE, dim=1), strict=True):
        rows = _matmul(_spread(f, bins, degree), values)
        pieces.append((rows * _spread(m, bins, degree)).sum(dim=-1))

    return torch.cat(pieces, dim=1)


class _JointHistogram(torch.autograd.Function):
    """The histogram, with a backward pass that is itself differentiable and makes no history."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        fixed: Tensor,
        moved: Tensor,
        weights: Tensor,
        bins: int,
        degree: int,
    ) -> Tensor:
        ctx.save_for_backward(fixed, moved, weights)
        ctx.degree = degree
        joint = fixed.new_zeros(len(fixed), bins, bins)
        pieces = (t.split(_PIECE, dim=1) for t in (fixed, moved, weights))
        for f, m, w in zip(*pieces, strict=True):
            rows = _spread(f, bins, degree) * w.unsqueeze(-1)
            joint += _matmul(rows.mT, _spread(m, bins, degree))

        return joint

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, slope: Tensor) -> tuple:
        fixed, moved, weights = ctx.saved_tensors
        wants_fixed, wants_moved = ctx.needs_input_grad[:2]
        to_fixed = _pulled(slope, fixed, moved, weights, ctx.degree) if wants_fixed else None
        to_moved = _pulled(slope.mT, moved, fixed, weights, ctx.degree) if wants_moved else None

        return to_fixed, to_moved, None, None, None


def _pulled(slope: Tensor, own: Tensor, other: Tensor, weights: Tensor, degree: int) -> Tensor:
    """Return ``weights sum_ab w_a'(own) slope_ab w_b(other)`` at every voxel."""
    bins = slope.shape[-1]
    pieces = []
    splits = (t.split(_PIECE, dim=1) for t in (own, other, weights))
    for x, y, w in zip(*splits, strict=True):
        columns = _matmul(_spread(y, bins, degree), slope.mT)
        pieces.append((columns * _spread_slope(x, bins, degree)).sum(dim=-1) * w)

    return torch.cat(pieces, dim=1)


def _spread(places: Tensor, bins: int, degree: int) -> Tensor:
    """Return the B-spline weights of all bins, ``(B, N, n)``."""
    first, share = _cell(places, bins, degree)
    rest = 1 - share
    if degree == 1:
        return _placed([rest, share], first, bins)
    weights = [
        rest**3 / 6,
        2 / 3 - share**2 * (2 - share) / 2,
        2 / 3 - rest**2 * (2 - rest) / 2,
        share**3 / 6,
    ]

    return _placed(weights, first, bins)


def _spread_slope(places: Tensor, bins: int, degree: int) -> Tensor:
    """Return the derivatives of the weights with respect to the position, ``(B, N, n)``."""
    first, share = _cell(places, bins, degree)
    rest = 1 - share
    if degree == 1:
        ones = torch.ones_like(share)
        return _placed([-ones, ones], first, bins)
    weights = [
        -(rest**2) / 2,
        share * (1.5 * share - 2),
        rest * (2 - 1.5 * rest),
        share**2 / 2,
    ]

    return _placed(weights, first, bins)


def _cell(places: Tensor, bins: int, degree: int) -> tuple[Tensor, Tensor]:
    """Return the first bin of the support and the position in the spline's cell, in [0, 1]."""
    reach = (degree - 1) // 2
    cell = places.detach().floor().clamp(reach, bins - 2 - reach)

    return cell.long() - reach, places - cell


def _placed(weights: list[Tensor], first: Tensor, bins: int) -> Tensor:
    stacked = torch.stack(weights, dim=-1)
    index = first.unsqueeze(-1) + torch.arange(len(weights), device=first.device)

    return stacked.new_zeros(*first.shape, bins).scatter(-1, index, stacked)


def _matmul(first: Tensor, second: Tensor) -> Tensor:
    # Autocast would count voxels in half precision.
    with torch.autocast(first.device.type, enabled=False):
        return first @ second
