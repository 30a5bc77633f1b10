"""Stroke volumes as linear functions of the latents.

Both ventricles eject alike: among the scores s of the modes healthy hearts lie on a curved
surface, which a Gaussian leaves. Latents z are scores moved along two directions of motion D:

    f(s) = (logit LVEF, ln RVSV / LVSV) at one phase,    f(s) = f0 + J (z - m),
    z = s + D (f(s) - f0 - J (s - m)),                   J = df/ds at m, J D = 1.

What is Gaussian and narrow in z then is so in f. Back from z to s, x in s = z + D x is found by
Broyden's method (Math. Comput. 1965) from lambda = ln(EDV / ESV) of both ventricles, which is
nearly linear in velocities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models.deformation.decoder import VelocityDecoder

Array = NDArray[np.float64]

_STEP = 0.1
_STEPS = 2
_FARTHEST = 6.0  # SDs of motion scores that x may move
_LEAST, _MOST = 1e-3, 0.95  # shares of its volume that a ventricle may be told to eject
_WEAKEST = 0.02  # change of f with one SD of motion; the default model has .14
_TINY, _KEPT = 1e-12, 0.2


@dataclass(frozen=True, eq=False)
class StrokeVolumes:
    """The change between scores and latents.

    Attributes:
        stroke_phase: phase of f, ``(1,)``.
        stroke_mean: m ``(S,)``.
        stroke_origin: f0 ``(2,)``.
        stroke_slopes: J ``(2, S)``.
        stroke_ways: D ``(R2, 2)`` of the motion scores.
        stroke_gain: derivative of lambda by x at m, ``(2, 2)``.
    """

    stroke_phase: Array
    stroke_mean: Array
    stroke_origin: Array
    stroke_slopes: Array
    stroke_ways: Array
    stroke_gain: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    @staticmethod
    def shapes(ed: int, motion: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for numbers of scores."""
        return {
            "stroke_phase": (1,),
            "stroke_mean": (ed + motion,),
            "stroke_origin": (2,),
            "stroke_slopes": (2, ed + motion),
            "stroke_ways": (motion, 2),
            "stroke_gain": (2, 2),
        }

    @classmethod
    def fit(cls, decoder: VelocityDecoder, mean: Array, phase: float) -> StrokeVolumes | None:
        """Find slopes and directions at a heart; None if motion cannot set both strokes.

        Args:
            decoder: from scores to hearts.
            mean: scores of the mean heart ``(S,)``.
            phase: of f, at which ejection has ended in most hearts.
        """
        still = decoder.modes.ed_size

        def ratios(scores: Array) -> Array:
            return Ejection.of(decoder, scores, phase).ratios(scores)

        slopes = _slopes(ratios, mean, np.eye(len(mean)))
        motion = slopes[:, still:]
        if motion.shape[1] < 2 or np.linalg.svd(motion, compute_uv=False)[1] < _WEAKEST:
            return None
        ways = motion.T @ np.linalg.inv(motion @ motion.T)
        moves = np.concatenate([np.zeros((still, 2)), ways]).T
        gain = _slopes(Ejection.of(decoder, mean, phase).emptied, mean, moves)

        return cls(np.array([phase]), mean, ratios(mean), slopes, ways, gain)

    def latent(self, decoder: VelocityDecoder, scores: Array) -> Array:
        """Return the latent ``(S,)`` of scores ``(S,)``; the inverse of :meth:`scores`."""
        seen = Ejection.of(decoder, scores, float(self.stroke_phase[0])).ratios(scores)

        return self._moved(scores, seen - self._told(scores))

    def scores(self, decoder: VelocityDecoder, latent: Array) -> Array:
        """Return the scores ``(S,)`` of a latent ``(S,)``.

        Stroke volumes are those that the latent tells to some .1 %, within what is possible: no
        ventricle ejects more than 95 % of itself, and no heart moves by more than six SDs.
        """
        heart = Ejection.of(decoder, latent, float(self.stroke_phase[0]))
        wanted = heart.wanted(self._told(latent))
        reach = _FARTHEST / np.linalg.norm(self.stroke_ways, axis=0)
        gain, x, found = self.stroke_gain, np.zeros(2), heart.emptied(latent)
        for _ in range(_STEPS):
            after = np.clip(x + _solve(gain, wanted - found), -reach, reach)
            moved = heart.emptied(self._moved(latent, after))
            gain = _secant(gain, after - x, moved - found)
            x, found = after, moved
        last = np.clip(x + _solve(gain, wanted - found), -reach, reach)

        return self._moved(latent, last)

    def _told(self, latent: Array) -> Array:
        away = latent - self.stroke_mean

        # einsum without BLAS: the same bits for any number of threads.
        return self.stroke_origin + np.einsum("fs,s->f", self.stroke_slopes, away)

    def _moved(self, scores: Array, x: Array) -> Array:
        moved = scores.copy()
        moved[-len(self.stroke_ways) :] += np.einsum("rf,f->r", self.stroke_ways, x)

        return moved


@dataclass(frozen=True, eq=False)
class Ejection:
    """What the ventricles of one shape eject by one phase.

    Attributes:
        decoder: from scores to hearts.
        shape: displacement of end diastole ``(1, 3, D, H, W)`` mm.
        full: volumes of LV and RV at end diastole ``(2,)`` mL.
        phase: of the motion.
    """

    decoder: VelocityDecoder
    shape: Tensor
    full: Array
    phase: float

    @classmethod
    def of(cls, decoder: VelocityDecoder, scores: Array, phase: float) -> Ejection:
        """Return the heart whose shape scores ``(S,)`` give."""
        shape = decoder.shape(scores)
        still = decoder.beating(shape, scores, [0.0])

        return cls(decoder, shape, _ventricles(still, decoder.template.topology), phase)

    def emptied(self, scores: Array) -> Array:
        """Return lambda = ln(EDV / ESV) ``(2,)`` of the motion of scores ``(S,)``."""
        beat = self.decoder.beating(self.shape, scores, [self.phase])

        return np.log(self.full / _ventricles(beat, self.decoder.template.topology))

    def ratios(self, scores: Array) -> Array:
        """Return f ``(2,)`` of the motion of scores ``(S,)``."""
        share = np.maximum(-np.expm1(-self.emptied(scores)), _LEAST)
        left, right = share * self.full

        return np.log([share[0] / (1.0 - share[0]), right / left])

    def wanted(self, told: Array) -> Array:
        """Return lambda ``(2,)`` of ventricles that eject as f ``(2,)`` tells."""
        left = self.full[0] / (1.0 + np.exp(-told[0]))
        share = np.minimum(np.array([left, left * np.exp(told[1])]) / self.full, _MOST)

        return -np.log1p(-share)


def _ventricles(meshes: Array, topology: Topology) -> Array:
    """Return the volumes of LV and RV ``(2,)`` mL of one mesh ``(1, V, 3)``."""
    volumes = mesh_volumes(meshes, topology)

    return np.array([volumes[s][0] for s in (Structure.LV, Structure.RV)])


def _slopes(function: Callable[[Array], Array], mean: Array, ways: Array) -> Array:
    """Return central differences ``(2, W)`` of a function along ways ``(W, S)``."""
    found = [function(mean + _STEP * w) - function(mean - _STEP * w) for w in ways]

    return np.stack(found, axis=1) / (2 * _STEP)


def _solve(gain: Array, missed: Array) -> Array:
    """Return ``gain^-1 missed`` of two unknowns."""
    (a, b), (c, d) = gain
    first, second = missed

    return np.array([d * first - b * second, a * second - c * first]) / (a * d - b * c)


def _secant(gain: Array, way: Array, gained: Array) -> Array:
    """Return Broyden's update, or the gain as it was where that would be all but singular."""
    length = float(way @ way)
    if length < _TINY:
        return gain
    after = gain + np.outer(gained - gain @ way, way) / length
    before = gain[0, 0] * gain[1, 1] - gain[0, 1] * gain[1, 0]
    now = after[0, 0] * after[1, 1] - after[0, 1] * after[1, 0]

    return after if now / before > _KEPT else gain
