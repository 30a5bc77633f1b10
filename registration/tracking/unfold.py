"""Take folds out of periodic motion."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiogen import ops
from cardiogen.transforms import TemporalSVF

_UNFOLD_ROUNDS = 16
_UNFOLD_GROWTH = 1.25


def unfolded(motion: TemporalSVF, phases: Tensor) -> TemporalSVF:
    """Return motion of which no frame folds: coefficients smoothed around folds, in rounds.

    Rounds smooth more and more widely. What still folds after ``_UNFOLD_ROUNDS`` rounds stays so;
    the result of tracking states it.
    """
    with torch.no_grad():
        for done in range(_UNFOLD_ROUNDS):
            folds = ops.folding(motion.displacement(phases)[0]).mask.any(dim=0)
            if not folds.any():
                break
            width = _UNFOLD_GROWTH**done
            share = _neighborhood(folds, motion.grid.shape, reach=2.0 * width)
            params = motion.params.flatten(0, 1)
            smooth = ops.gaussian(params, (0.5 * width, width, width))
            params = params + share * (smooth - params)
            motion = motion.with_parameters(params.unsqueeze(0))

    return motion


def _neighborhood(folds: Tensor, shape: tuple[int, ...], *, reach: float) -> Tensor:
    """Return a soft ball about folding cells, ``(1, 1, *S)`` in [0, 1]."""
    cells = folds.float()[None, None]
    pads = [p for n, m in zip(reversed(shape), reversed(cells.shape[2:]), strict=True)
            for p in (0, n - m)]  # fmt: skip
    wide = F.max_pool3d(F.pad(cells, pads), (3, 7, 7), stride=1, padding=(1, 3, 3))

    return ops.gaussian(wide, (reach / 2, reach, reach)).clamp(0, 1)
