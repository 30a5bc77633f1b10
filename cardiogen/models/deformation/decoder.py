"""From scores to hearts: velocities, meshes, and places carried back to the template.

A vertex X of the template lies at ``exp(v_ed)(exp(v_t)(X + slip_t))`` in frame t, ``slips`` of
vertices being small: motion acts on the template first, so that one motion means the same in every
heart. A place y of frame t comes from ``exp(-v_t)(exp(-v_ed)(y)) - slip_t``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.models.deformation.modes import VelocityModes
from cardiogen.models.deformation.slips import Slips, without_crossing
from cardiogen.models.deformation.template import WEDGE_MM, DeformationTemplate

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class VelocityDecoder:
    """Everything that turns scores into hearts.

    Attributes:
        template: what is moved.
        modes: from scores to velocities.
        slips: of vertices beside them, if there are any.
        wedge_mm: see ``template.opened``.
    """

    template: DeformationTemplate
    modes: VelocityModes
    slips: Slips | None = None
    wedge_mm: float = WEDGE_MM

    @cached_property
    def vertices(self) -> Array:
        """Vertices ``(V, 3)`` mm that are moved."""
        return self.template.opened(self.wedge_mm)

    def heart(self, scores: Array, phases: ArrayLike) -> Array:
        """Return the meshes ``(T, V, 3)`` of one heart in its own frame, mm.

        The same bits for any number of threads and phases: nothing here goes through BLAS, and
        warps treat every frame by itself.

        Args:
            scores: ``(S,)``.
            phases: fractions of the cycle ``(T,)``.
        """
        return self.beating(self.shape(scores), scores, phases)

    def shape(self, scores: Array) -> Tensor:
        """Return the displacement of end diastole ``(1, 3, D, H, W)`` mm of one heart."""
        ed, _ = self.modes.heart_velocities(scores, [])
        with torch.no_grad():
            return self.template.displacement(torch.from_numpy(ed)[None].float())

    def resting(self, shape: Tensor, scores: Array) -> Array:
        """Return the mesh ``(1, V, 3)`` at end diastole of a heart of known :meth:`shape`."""
        points = self._points(scores, np.zeros((1, len(self.modes.fields))))
        with torch.no_grad():
            return self.template.move(points, shape).double().numpy()

    def beating(self, shape: Tensor, scores: Array, phases: ArrayLike) -> Array:
        """Return the meshes ``(T, V, 3)`` of one heart whose :meth:`shape` is known."""
        frames, told = self.modes.heart_motion(scores, phases)
        with torch.no_grad():
            beat = self.template.displacement(torch.from_numpy(frames).float())
            moved = self.template.move(self._points(scores, told), beat)
            moved = self.template.move(moved, shape)

        return moved.double().numpy()

    def _points(self, scores: Array, told: Array) -> Tensor:
        """Return the vertices ``(T, V, 3)`` before they are moved, of coefficients ``(T, F)``."""
        points = np.tile(self.vertices, (len(told), 1, 1))
        if self.slips is not None:
            still = self.slips.resting(scores[: self.modes.ed_size])
            faces = self.template.topology.all_faces
            still = without_crossing(still, self.vertices, faces)
            points += still + self.slips.beating(told)

        return torch.from_numpy(points).float()

    def meshes(self, scores: Tensor, phases: ArrayLike) -> Tensor:
        """Return the meshes ``(N, T, V, 3)`` of many hearts ``(N, S)``, with gradients.

        Slips are not shortened where faces cross: meshes depend smoothly on scores.
        """
        shape = self.template.displacement(self.modes.ed_velocity(scores))
        beat, told = self.modes.motion(scores, phases)
        hearts, frames = beat.shape[:2]
        beat = self.template.displacement(beat.flatten(0, 1))
        points = torch.from_numpy(self.vertices).to(beat).expand(len(beat), -1, -1)
        if self.slips is not None:
            slips = self.slips.hearts(scores[:, : self.modes.ed_size], told)
            points = points + slips.flatten(0, 1)
        moved = self.template.move(points, beat)
        moved = self.template.move(moved, shape.repeat_interleave(frames, dim=0))

        return moved.unflatten(0, (hearts, frames))


class Frames:
    """Meshes of one heart whose shape is known; none is made twice while the scores stay."""

    def __init__(self, decoder: VelocityDecoder, shape: Tensor) -> None:
        """Begin with no frames.

        Args:
            decoder: from scores to meshes.
            shape: what ``decoder.shape`` makes of the heart.
        """
        self.decoder = decoder
        self.shape = shape
        self._scores: Array | None = None
        self._made: dict[float, Array] = {}

    def at(self, scores: Array, phases: ArrayLike) -> Array:
        """Return the meshes ``(T, V, 3)`` of scores ``(S,)`` at phases ``(T,)``."""
        if self._scores is None or not np.array_equal(scores, self._scores):
            self._scores, self._made = scores.copy(), {}
        wanted = np.asarray(phases, float).tolist()
        new = [phase for phase in dict.fromkeys(wanted) if phase not in self._made]
        if new:
            meshes = self.decoder.beating(self.shape, scores, new)
            self._made |= dict(zip(new, meshes, strict=True))

        return np.stack([self._made[phase] for phase in wanted])
