"""What ventricles and wall lose by one phase of the cycle, and the ratios ``strokes`` goes by.

lambda = ln(V_ED / V_ES) of both ventricles and the wall,
f = (logit LVEF, ln RVSV / LVSV, ln MYO_ED / MYO_ES).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models.deformation.decoder import VelocityDecoder

Array = NDArray[np.float64]

_LEAST, _MOST = 1e-3, 0.95  # shares of its volume that a ventricle may be told to eject
_FAR, _SMALLEST_ML = 5.0, 1e-3  # what far latents tell, and have, is kept within numbers


@dataclass(frozen=True, eq=False)
class Ejection:
    """What the ventricles and the wall of one shape lose by one phase.

    Attributes:
        decoder: from scores to hearts.
        shape: displacement of end diastole ``(1, 3, D, H, W)`` mm.
        full: volumes of LV, RV and wall at end diastole ``(3,)`` mL.
        phase: of the motion.
    """

    decoder: VelocityDecoder
    shape: Tensor
    full: Array
    phase: float

    @classmethod
    def of(
        cls, decoder: VelocityDecoder, scores: Array, phase: float, shape: Tensor | None = None
    ) -> Ejection:
        """Return the heart whose shape scores ``(S,)`` give, if it is not given itself."""
        shape = decoder.shape(scores) if shape is None else shape
        full = np.maximum(
            _volumes(decoder.resting(shape, scores), decoder.template.topology)[0], _SMALLEST_ML
        )

        return cls(decoder, shape, full, phase)

    def emptied(self, scores: Array) -> Array:
        """Return lambda = ln(V_ED / V_ES) ``(3,)`` of the motion of scores ``(S,)``."""
        beat = self.decoder.beating(self.shape, scores, [self.phase])
        volumes = _volumes(beat, self.decoder.template.topology)[0]

        return np.log(self.full / np.maximum(volumes, _LEAST * self.full))

    def ratios(self, scores: Array) -> Array:
        """Return f ``(3,)`` of the motion of scores ``(S,)``."""
        return _ratios(self.full, self.emptied(scores))

    def wanted(self, told: Array) -> Array:
        """Return lambda ``(3,)`` of a heart that ejects as f ``(3,)`` tells."""
        logit, ratio, wall = np.clip(told, -_FAR, _FAR)
        left = self.full[0] / (1.0 + np.exp(-logit))
        share = np.array([left, left * np.exp(ratio)]) / self.full[:2]

        return np.append(-np.log1p(-np.clip(share, _LEAST, _MOST)), wall)


def ejection_ratios(ed: Array, es: Array, topology: Topology) -> Array:
    """Return f ``(N, 3)`` of hearts whose meshes at two phases are ``(N, V, 3)`` mm."""
    full, after = (np.maximum(_volumes(meshes, topology), _SMALLEST_ML) for meshes in (ed, es))

    return _ratios(full, np.log(full / np.maximum(after, _LEAST * full)))


def _ratios(full: Array, lost: Array) -> Array:
    """Return f ``(..., 3)`` of volumes at end diastole and lambda ``(..., 3)``."""
    share = np.maximum(-np.expm1(-lost[..., :2]), _LEAST)
    left, right = np.moveaxis(share * full[..., :2], -1, 0)
    logit = np.log(share[..., 0] / (1.0 - share[..., 0]))

    return np.stack([logit, np.log(right / left), lost[..., 2]], axis=-1)


def _volumes(meshes: Array, topology: Topology) -> Array:
    """Return the volumes of LV, RV and wall ``(N, 3)`` mL of meshes ``(N, V, 3)``."""
    volumes = mesh_volumes(meshes, topology)

    return np.stack([volumes[s] for s in (Structure.LV, Structure.RV, Structure.MYO)], axis=-1)
