"""Motion that is too steep for its lattice, or unlike any heart's.

The exponential of a velocity that changes by more than some three voxels from one voxel to the
next has cells that fold, though no smooth one has. Of draws of the shipped model one in some 250
did, late in systole; 6 of 2,500 were too fast at the right base in early filling, and one had a
left ventricle fuller before diastasis than in it (found by ``scripts/eval_validity.py`` before
anything was done about it). Their motion is drawn towards the typical one of the same strokes
until none of this is so, and, where these strokes are too much, as of hearts twice as large as
usual, towards one of which both ventricles eject less. Shapes at end diastole are gentle
(compressions below 1.5 in 9 ACDC patients): one that folds is no heart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data.mesh import Surface
from cardiogen.measure.cycle_validity import DIP, SPEED_MM
from cardiogen.measure.volumes import mesh_volume
from cardiogen.models.deformation.decoder import Frames, VelocityDecoder
from cardiogen.models.deformation.template import DeformationTemplate

Array = NDArray[np.float64]

# Of 960 fields, some drawn 1.35 times as far from the mean, none folded below 3.5.
_STEEP = 3.2
_STEEP_SHAPE = 1.5  # below it no shape was seen to fold
_LATE = np.arange(0.24, 0.56, 0.04)  # phases of the steepest velocities
_DENSE = np.arange(0.20, 0.60, 0.02)
_HALVINGS = 6
# Of 25 frames: end diastole, the end of ejection, early filling (the fastest motion), diastasis.
# Where these frames are wanted, looking at them costs nothing.
_LOOKED = np.array([0, 9, 11, 12, 13, 14, 17]) / 25
_EMPTY, _FILLING, _DIASTASIS = 1, slice(2, 6), 6
# A tenth below the rules of ``measure.cycle_validity``.
_FASTEST = 0.9 * SPEED_MM  # per cycle
_DEEPEST = 0.9 * DIP  # of the stroke volume


def steepness(velocity: Tensor) -> float:
    """Return the largest compression of velocities ``(N, 3, *S)``: voxels per voxel.

    ``max -(dv_k / dx_k)`` over axes k and voxels.
    """
    squeezed = [-velocity[:, k].diff(dim=1 + k).min() for k in range(3)]

    return float(torch.stack(squeezed).max())


def steepest(template: DeformationTemplate, params: Array, *, enough: float) -> float:
    """Return the steepness of velocities ``(T, 3, A)`` mm, or a bound of it that is below enough.

    No spline is steeper than its control points, which need no dense field.
    """
    control = np.zeros((len(params), 3, template.active.size))
    control[..., np.flatnonzero(template.active)] = params / template.control_mm
    bound = steepness(torch.from_numpy(control).unflatten(2, template.active.shape))
    if bound < enough:
        return bound

    return steepness(template.velocity(torch.from_numpy(params).float()))


def sound_scores(
    frames: Frames,
    latent: Array,
    anchors: Iterable[Array],
    solve: Callable[[Array], Array],
) -> Array:
    """Return scores ``(S,)`` of a latent, or of one nearly as far away whose motion is sound.

    Args:
        frames: of its shape.
        latent: ``(S,)``.
        anchors: latents ``(S,)`` whose motion is gone to, one after the other; that of the last is
            the answer if none on the way is sound.
        solve: from latents to scores.
    """

    def is_sound(scores: Array) -> bool:
        return _moves_well(frames, scores) and not _folds(frames.decoder, scores)

    scores = solve(latent)
    if is_sound(scores):
        return scores
    beats = np.arange(len(latent)) >= frames.decoder.modes.ed_size
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


def _moves_well(frames: Frames, scores: Array) -> bool:
    """Whether nothing is too fast and the left ventricle fills without emptying again."""
    meshes = frames.at(scores, _LOOKED)
    steps = np.linalg.norm(np.diff(meshes[_FILLING], axis=0), axis=-1)
    if steps.max() > _FASTEST * (_LOOKED[3] - _LOOKED[2]):
        return False
    cavity = frames.decoder.template.topology.surfaces[Surface.LV_ENDO]
    volumes = mesh_volume(meshes, cavity)
    dip = volumes[_FILLING].max() - volumes[_DIASTASIS]

    return bool(dip <= _DEEPEST * (volumes[0] - volumes[_EMPTY]))


def _folds(decoder: VelocityDecoder, scores: Array) -> bool:
    late, _ = decoder.modes.heart_motion(scores, _LATE)
    if steepest(decoder.template, late, enough=_STEEP) < _STEEP:
        return False
    dense, _ = decoder.modes.heart_motion(scores, _DENSE)
    with torch.no_grad():
        beat = decoder.template.displacement(torch.from_numpy(dense).float())

    return bool(ops.folding(beat).mask.any())
