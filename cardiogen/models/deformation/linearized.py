"""Hearts of the deformation model as linear functions of latents near one of them.

By forward differences of the scores s. With ``strokes``, z = s + D (f(s) - f0 - J (s - m)), and

    ds/dz = (1 + D (F - J))^-1,    F = df/ds,

F from the volumes of the same hearts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from cardiogen.models.deformation.ejection import ejection_ratios
from cardiogen.models.mesh_posterior import Linearized

if TYPE_CHECKING:
    from cardiogen.models.deformation.model import DeformationModel

Array = NDArray[np.float64]

_STEP = 0.1  # SDs of the scores; smaller ones drown in single precision
_BATCH = 16


def linearized(model: DeformationModel, phases: ArrayLike) -> Linearized:
    """Return meshes ``(T, V, 3)`` mm and their derivatives ``(T, P, Z)`` as functions of latents.

    Args:
        model: the model.
        phases: of the meshes ``(T,)``.
    """
    when = np.asarray(phases, np.float64)

    return _Linearized(model, when, beats=bool(np.any(np.mod(when, 1.0) != 0)))


class _Linearized:
    def __init__(self, model: DeformationModel, phases: Array, *, beats: bool) -> None:
        """Vary all scores, or those of shape alone if nothing ``beats``."""
        self.model, self.beats, self.frames = model, beats, len(phases)
        self.count = model.decoder.modes.size if beats else model.decoder.modes.ed_size
        self.strokes = model.strokes if beats else None
        extra = [] if self.strokes is None else [0.0, float(self.strokes.stroke_phase[0])]
        self.phases = np.append(phases, extra)

    def __call__(self, latent: Array) -> tuple[Array, Array]:
        # Drawn back where motion folds, hearts would not depend smoothly on latents.
        scores = self.model.solved_scores(latent) if self.beats else latent
        here, ratios = self._hearts(scores[None])
        meshes = here[0]
        slopes = np.zeros((len(scores), meshes.size))
        told = np.zeros((len(scores), 3))
        for first in range(0, self.count, _BATCH):
            rows = slice(first, min(first + _BATCH, self.count))
            moved, after = self._hearts(scores + _STEP * np.eye(len(scores))[rows])
            slopes[rows] = (moved - meshes).reshape(len(moved), -1) / _STEP
            told[rows] = (after - ratios) / _STEP
        slopes = slopes.T
        if self.strokes is not None:
            slopes = slopes @ self.strokes.score_slopes(told.T)

        return meshes, slopes.reshape(self.frames, -1, len(scores))

    @torch.no_grad()
    def _hearts(self, scores: Array) -> tuple[Array, Array]:
        """Return meshes ``(N, T, V, 3)`` and f ``(N, 3)`` of hearts ``(N, S)``."""
        made = self.model.decoder.meshes(torch.from_numpy(scores).float(), self.phases)
        meshes = made.double().numpy()
        if self.strokes is None:
            return meshes, np.zeros((len(scores), 3))

        return meshes[:, : self.frames], ejection_ratios(
            *meshes[:, self.frames :].swapaxes(0, 1), self.model.topology
        )
