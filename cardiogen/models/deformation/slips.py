"""Slips: what vertices move beside smooth velocities.

Meshes have ridges and hearts move in ways that are too steep for a velocity on its lattice, at the
rim of the right base above all. So vertices X of the template slip before they are moved, by what
the velocities of all hearts alike leave over,

    X + sum_r (W s)_r D_r + sum_q (U c_t)_q G_q,

s the scores of end diastole and c_t the coefficients of the fields in frame t. Both maps are
regressions of reduced rank (Izenman, J Multivar Anal 1975) on hearts whose meshes are known,
without constants: at s = 0 and c = 0 nothing slips.
Velocities that follow label maps leave nothing over: models of what was seen have no slips.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.mesh import Topology
from cardiogen.measure.crossing import crossing_faces
from cardiogen.models.principal import directions

Array = NDArray[np.float64]

_RIDGE = 1e-3
_NARROW_MM = 15.0
_SHORT_MM = 2.4  # of 2,500 draws the one whose faces crossed at rest slipped by 3.0
_SHARES = np.arange(1.0, 0.0, -0.1)


@dataclass(frozen=True, eq=False)
class Slips:
    """Linear maps from scores and coefficients of fields to slips of V vertices.

    Attributes:
        rest_weights, rest_slips: W ``(R0, R1)`` and D ``(R0, V, 3)``, mm for one SD of scores.
        beat_weights, beat_slips: U ``(R, F)`` and G ``(R, V, 3)``, mm for one mm.
    """

    rest_weights: Array
    rest_slips: Array
    beat_weights: Array
    beat_slips: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    @staticmethod
    def shapes(
        ranks: tuple[int, int], *, shapes: int, fields: int, vertices: int
    ) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for ranks at rest and beating."""
        rest, beat = ranks
        return {
            "rest_weights": (rest, shapes),
            "rest_slips": (rest, vertices, 3),
            "beat_weights": (beat, fields),
            "beat_slips": (beat, vertices, 3),
        }

    def beats_alone(self) -> Slips:
        """Return the slips of motion, those at end diastole left out."""
        return replace(self, rest_weights=self.rest_weights[:0], rest_slips=self.rest_slips[:0])

    def resting(self, shape: Array) -> Array:
        """Return the slips ``(V, 3)`` mm of one heart that stands still.

        einsum without BLAS, here and in :meth:`beating`: the same bits for any number of threads
        and frames.

        Args:
            shape: scores at end diastole ``(R1,)``.
        """
        still = np.einsum("k,rk->r", shape, self.rest_weights)

        return np.einsum("r,rvc->vc", still, self.rest_slips)

    def beating(self, coefficients: Array) -> Array:
        """Return the slips ``(T, V, 3)`` mm that motion adds, of coefficients ``(T, F)`` mm."""
        moves = np.einsum("tf,rf->tr", coefficients, self.beat_weights)

        return np.einsum("tr,rvc->tvc", moves, self.beat_slips)

    def hearts(self, shapes: Tensor, coefficients: Tensor) -> Tensor:
        """Return the slips ``(N, T, V, 3)`` of many hearts, with gradients.

        Args:
            shapes: ``(N, R1)``.
            coefficients: ``(N, T, F)``.
        """
        rest_weights, rest, beat_weights, beat = (
            torch.from_numpy(np.require(getattr(self, name), requirements="W")).to(shapes)
            for name in self.names()
        )
        still = torch.einsum("nr,rvc->nvc", shapes @ rest_weights.T, rest)

        return still[:, None] + torch.einsum("ntr,rvc->ntvc", coefficients @ beat_weights.T, beat)


def without_crossing(slip: Array, vertices: Array, faces: Array) -> Array:
    """Return a slip ``(V, 3)`` mm, or as much of it as lets no faces ``(F, 3)`` cross.

    What smooth velocities do afterwards keeps inside and outside apart. Of 100 draws two slip so
    far that this is worth a look, and fewer than one is shortened.
    """
    if np.linalg.norm(slip, axis=-1).max() < _SHORT_MM:
        return slip
    for share in _SHARES:
        if not len(crossing_faces(vertices + share * slip, faces)):
            return share * slip

    return np.zeros_like(slip)


def away_from_insertion(vertices: Array, topology: Topology) -> Array:
    """Return weights ``(V,)``: 0 where the right wall meets the septum, 1 from 15 mm on.

    There the right cavity narrows to nothing, and surfaces that slip by themselves would cross.
    """
    from scipy.spatial import cKDTree

    meeting = np.intersect1d(topology.parts["septum"], topology.parts["rv_free_wall"])

    return np.minimum(1.0, cKDTree(vertices[meeting]).query(vertices)[0] / _NARROW_MM)


def regress_slips(told: Array, left: NDArray, rank: int) -> tuple[Array, Array]:
    """Return weights ``(R, K)`` and slips ``(R, V, 3)`` of a regression of rank R at most.

    Args:
        told: by what is known of frames ``(M, K)``.
        left: over in these frames ``(M, V, 3)`` mm.
        rank: the largest.
    """
    rows = left.reshape(len(left), -1)
    normal = told.T @ told
    normal += _RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    slopes = np.linalg.solve(normal, told.T @ rows)
    # Directions in which what is told varies most, not slopes.
    _, ways = directions(np.linalg.cholesky(normal).T @ slopes, rank)

    return ways @ slopes.T, ways.reshape(len(ways), -1, 3)
