"""Smooth a field where it folds, and only there as long as that is enough."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiogen import ops
from cardiogen.transforms import FieldTransform

# Local rounds first; what still folds then is smoothed as a whole.
_LOCAL_ROUNDS = 12
_ROUNDS = 32
_SIGMA = 1.0
_REACH = 2.0


def unfold(transform: FieldTransform) -> tuple[FieldTransform, int]:
    """Return a transform without folds, and the rounds that it took; 0 leaves it as it is.

    A round blends the parameters with themselves smoothed by a Gaussian of one lattice step, in a
    soft neighborhood of the cells that fold (``ops.folding``), for parameters per voxel; splines,
    and whatever resists, are smoothed as a whole. Pairs that do not fold stay untouched.

    Args:
        transform: any field; what it holds after ``_ROUNDS`` rounds may still fold, which the
            result of a registration states.
    """
    with torch.no_grad():
        params = transform.params.detach()
        for done in range(_ROUNDS):
            made = transform.with_parameters(params)
            folds = ops.folding(made.displacement()).mask
            if not folds.any():
                return (transform if done == 0 else made), done
            share = _neighborhood(folds, transform, local=done < _LOCAL_ROUNDS)
            params = params + share * (_smoothed(params, transform) - params)

        return transform.with_parameters(params), _ROUNDS


def _neighborhood(folds: Tensor, transform: FieldTransform, *, local: bool) -> Tensor:
    """Return where to smooth, ``(B, 1, *S)`` in [0, 1]: a soft ball about every fold."""
    pairs = folds.flatten(1).any(dim=1).view(-1, 1, 1, 1, 1)
    if not local or transform.control_spacing is not None:
        return pairs.float()
    cells = folds.unsqueeze(1).float()
    # A cell lies between two voxels; an axis of one voxel has one cell.
    shape = transform.grid.shape
    pads = [p for n in reversed(shape) for p in ((0, 1) if n > 1 else (0, 0))]
    voxels = F.pad(cells, pads)
    for axis, size in enumerate(shape, start=2):
        if size > 1:
            voxels = torch.maximum(voxels, voxels.roll(1, dims=axis))
    wide = F.max_pool3d(voxels, (3, 5, 5), stride=1, padding=(1, 2, 2))

    return ops.gaussian(wide, _in_plane(_REACH)).clamp(0, 1)


def _smoothed(params: Tensor, transform: FieldTransform) -> Tensor:
    if transform.control_spacing is None:
        return ops.gaussian(params, _in_plane(_SIGMA))

    smooth = ops.gaussian(transform.lattice.by_slice(params), _SIGMA)

    return transform.lattice.stacked(smooth)


def _in_plane(sigma: float) -> tuple[float, float, float]:
    """Return a width in voxels that mixes slices by less, since they are far apart."""
    return (sigma / 2, sigma, sigma)
