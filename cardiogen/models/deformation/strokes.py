"""Stroke volumes, and the wall's, as linear functions of the latents.

Both ventricles eject alike and the wall keeps its volume: among the scores s of the modes healthy
hearts lie on a curved surface, which a Gaussian leaves. Latents z are scores moved along three
directions of motion D:

    f(s) = (logit LVEF, ln RVSV / LVSV, ln MYO_ED / MYO_ES) at one phase (``ejection``),
    f(s) = f0 + J (z - m),    z = s + D (f(s) - f0 - J (s - m)),    J = df/ds at m,    J D = 1.

What is Gaussian and narrow in z then is so in f. Back from z to s, x in s = z + D x is found by
Broyden's method (Math. Comput. 1965) from lambda = ln(V_ED / V_ES) of both ventricles and the
wall, which is nearly linear in velocities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.ejection import Ejection

Array = NDArray[np.float64]

_STEP = 0.1
_STEPS = 2
_FARTHEST = 6.0  # SDs of motion scores that x may move
_WEAKEST = 0.02  # change of f with one SD of motion; the shipped model has .049
_ROUNDED, _MOST_COND = 1e-2, 1e4
_TINY, _KEPT = 1e-12, 0.2


@dataclass(frozen=True, eq=False)
class StrokeVolumes:
    """The change between scores and latents.

    Attributes:
        stroke_phase: phase of f, ``(1,)``.
        stroke_mean: m ``(S,)``.
        stroke_origin: f0 ``(3,)``.
        stroke_slopes: J ``(3, S)``.
        stroke_ways: D ``(R2, 3)`` of the motion scores.
        stroke_gain: derivative of lambda by x at m, ``(3, 3)``.
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
            "stroke_origin": (3,),
            "stroke_slopes": (3, ed + motion),
            "stroke_ways": (motion, 3),
            "stroke_gain": (3, 3),
        }

    @classmethod
    def fit(cls, decoder: VelocityDecoder, mean: Array, phase: float) -> StrokeVolumes | None:
        """Find slopes and directions at a heart; None if motion cannot set all of f.

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
        if motion.shape[1] < 3 or np.linalg.svd(motion, compute_uv=False)[2] < _WEAKEST:
            return None
        ways = motion.T @ np.linalg.inv(motion @ motion.T)
        moves = np.concatenate([np.zeros((still, 3)), ways]).T
        gain = _slopes(Ejection.of(decoder, mean, phase).emptied, mean, moves)

        return cls(np.array([phase]), mean, ratios(mean), slopes, ways, gain)

    def require_sound(self) -> None:
        """Refuse (ValueError) weights that solve for nothing."""
        motion = self.stroke_slopes[:, -len(self.stroke_ways) :]
        if not np.allclose(motion @ self.stroke_ways, np.eye(3), atol=_ROUNDED):
            raise ValueError("strokes whose directions do not set them")
        resting = not 0 < float(self.stroke_phase[0]) < 1
        if resting or np.linalg.cond(self.stroke_gain) > _MOST_COND:
            raise ValueError("strokes that no motion sets")

    def latent(self, decoder: VelocityDecoder, scores: Array) -> Array:
        """Return the latent ``(S,)`` of scores ``(S,)``; the inverse of :meth:`scores`."""
        seen = Ejection.of(decoder, scores, float(self.stroke_phase[0])).ratios(scores)

        return self._moved(scores, seen - self._told(scores))

    def scores(
        self, decoder: VelocityDecoder, latent: Array, shape: Tensor | None = None
    ) -> Array:
        """Return the scores ``(S,)`` of a latent ``(S,)``.

        Volumes are those that the latent tells, of healthy hearts to some .1 %. No ventricle
        ejects more than 95 % of itself, and x takes no way farther than six SDs: of latents far
        from any heart f is not what they tell, and of none at all they are the scores.

        Args:
            decoder: from scores to hearts.
            latent: of the heart.
            shape: what ``decoder.shape`` makes of it, if that is known.
        """
        heart = Ejection.of(decoder, latent, float(self.stroke_phase[0]), shape)
        wanted = heart.wanted(self._told(latent))
        reach = _FARTHEST / np.linalg.norm(self.stroke_ways, axis=0)
        gain, x, found = self.stroke_gain, np.zeros(3), heart.emptied(latent)
        for _ in range(_STEPS):
            after = np.clip(x + np.linalg.solve(gain, wanted - found), -reach, reach)
            moved = heart.emptied(self._moved(latent, after))
            gain = _secant(gain, after - x, moved - found)
            x, found = after, moved
        last = np.clip(x + np.linalg.solve(gain, wanted - found), -reach, reach)

        return self._moved(latent, last) if np.isfinite(last).all() else latent

    def plain(self, latent: Array, *, weaker: float = 0.0) -> Array:
        """Return the latent ``(S,)`` of the same shape and strokes, its motion else the mean's.

        Args:
            latent: of the heart.
            weaker: by how much the logit of LVEF is lower; the right ventricle follows.
        """
        still = len(latent) - len(self.stroke_ways)
        plain = np.concatenate([latent[:still], self.stroke_mean[still:]])
        told = self._told(latent) - [weaker, 0.0, 0.0]

        return self._moved(plain, told - self._told(plain))

    def score_slopes(self, slopes: Array) -> Array:
        """Return ds/dz ``(S, S)`` of scores at which f has slopes ``(3, S)``."""
        size = len(self.stroke_mean)
        ways = np.zeros((size, 3))
        ways[-len(self.stroke_ways) :] = self.stroke_ways
        more = slopes - self.stroke_slopes

        return np.eye(size) - ways @ np.linalg.solve(np.eye(3) + more @ ways, more)

    def _told(self, latent: Array) -> Array:
        away = latent - self.stroke_mean

        # einsum without BLAS: the same bits for any number of threads.
        return self.stroke_origin + np.einsum("fs,s->f", self.stroke_slopes, away)

    def _moved(self, scores: Array, x: Array) -> Array:
        moved = scores.copy()
        moved[-len(self.stroke_ways) :] += np.einsum("rf,f->r", self.stroke_ways, x)

        return moved


def _slopes(function: Callable[[Array], Array], mean: Array, ways: Array) -> Array:
    """Return central differences ``(3, W)`` of a function along ways ``(W, S)``."""
    found = [function(mean + _STEP * w) - function(mean - _STEP * w) for w in ways]

    return np.stack(found, axis=1) / (2 * _STEP)


def _secant(gain: Array, way: Array, gained: Array) -> Array:
    """Return Broyden's update, or the gain as it was where that would be all but singular."""
    length = float(way @ way)
    if length < _TINY:
        return gain
    after = gain + np.outer(gained - gain @ way, way) / length

    return after if np.linalg.det(after) / np.linalg.det(gain) > _KEPT else gain
