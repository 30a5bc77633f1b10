"""Motion that is too steep for its lattice, or faster than hearts move.

The exponential of a velocity that changes by more than some three voxels from one voxel to the
next has cells that fold, though no smooth one has. Of draws of the shipped model one in some 250
did, late in systole; 6 of 2,500 were too fast at the right base in early filling (found by
``scripts/eval_validity.py`` before anything was done about it). Their motion is drawn towards the
typical one of the same strokes until neither is so, and, where these strokes are too much, towards
the typical one. Shapes at end diastole are gentle (compressions below 1.5 in 9 ACDC patients): one
that folds is no heart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.measure.cycle_validity import SPEED_MM
from cardiogen.models.deformation.decoder import VelocityDecoder

Array = NDArray[np.float64]

# Of 960 fields, some drawn 1.35 times as far from the mean, none folded below 3.5.
_STEEP = 3.2
_STEEP_SHAPE = 1.5  # below it no shape was seen to fold
_LATE = np.arange(0.24, 0.56, 0.04)  # phases of the steepest velocities
_DENSE = np.arange(0.20, 0.60, 0.02)
_HALVINGS = 6
_FILLING = np.arange(0.44, 0.57, 0.04)  # phases of the fastest motion
# Millimeters per cycle, a tenth below the rule of ``measure.cycle_validity``.
_FASTEST = 0.9 * SPEED_MM


def steepness(velocity: Tensor) -> float:
    """Return the largest compression of velocities ``(N, 3, *S)``: voxels per voxel.

    ``max -(dv_k / dx_k)`` over axes k and voxels.
    """
    squeezed = [-velocity[:, k].diff(dim=1 + k).min() for k in range(3)]

    return float(torch.stack(squeezed).max())


def sound_scores(
    decoder: VelocityDecoder,
    latent: Array,
    shape: Tensor,
    anchors: Iterable[Array],
    solve: Callable[[Array], Array],
) -> Array:
    """Return scores ``(S,)`` of a latent, or of one nearly as far away whose motion is sound.

    Args:
        decoder: from scores to velocities.
        latent: ``(S,)``.
        shape: what ``decoder.shape`` makes of it.
        anchors: latents ``(S,)`` whose motion is gone to, one after the other; that of the last is
            the answer if none on the way is sound.
        solve: from latents to scores.
    """

    def is_sound(scores: Array) -> bool:
        return not _is_fast(decoder, shape, scores) and not _folds(decoder, scores)

    scores = solve(latent)
    if is_sound(scores):
        return scores
    beats = np.arange(len(latent)) >= decoder.modes.ed_size
    for anchor in anchors:
        end, low, high, found = np.where(beats, anchor, latent), 0.0, 1.0, None
        for _ in range(_HALVINGS):
            share = (low + high) / 2
            scores = solve(end + share * (latent - end))
            if is_sound(scores):
                low, found = share, scores
            else:
                high = share
        if found is not None:
            return found
        latent = end

    return solve(latent)


def is_heart(decoder: VelocityDecoder, scores: Array) -> bool:
    """Return whether the shape at end diastole of scores ``(S,)`` is finite and does not fold."""
    if not np.isfinite(scores).all():
        return False
    ed = torch.from_numpy(decoder.modes.heart_velocities(scores, [])[0])[None].float()
    with torch.no_grad():
        velocity = decoder.template.velocity(ed)
        if steepness(velocity) < _STEEP_SHAPE:
            return True
        return not bool(ops.folding(decoder.template.displacement(ed)).mask.any())


def _is_fast(decoder: VelocityDecoder, shape: Tensor, scores: Array) -> bool:
    steps = np.diff(decoder.beating(shape, scores, _FILLING), axis=0)

    return bool(np.linalg.norm(steps, axis=-1).max() > _FASTEST * (_FILLING[1] - _FILLING[0]))


def _folds(decoder: VelocityDecoder, scores: Array) -> bool:
    if steepness(decoder.template.velocity(_motion(decoder, scores, _LATE))) < _STEEP:
        return False
    with torch.no_grad():
        beat = decoder.template.displacement(_motion(decoder, scores, _DENSE))

    return bool(ops.folding(beat).mask.any())


def _motion(decoder: VelocityDecoder, scores: Array, phases: Array) -> Tensor:
    """Return v_t ``(T, 3, A)`` mm."""
    return torch.from_numpy(decoder.modes.heart_motion(scores, phases)[0]).float()
