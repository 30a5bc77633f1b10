"""Phenotypes as linear functions of latents s: what disease acts through.

Velocities are logarithms of deformations, so logarithms of volumes are nearly linear in them:

    f = (ln LVEDV, logit LVEF, ln LVM, ln RVEDV, ln(RVSV / LVSV), shortening) = b + W s + e.

Shortening is the relative loss of length of the left ventricle from end diastole to end systole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY, mesh_volumes
from cardiogen.population.phenotypes import PHENOTYPES, Phenotypes

Array = NDArray[np.float64]

NAMES = (*PHENOTYPES, "shortening")
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class PhenotypeMap:
    """f as a function of scores.

    Attributes:
        phenotype_bias: b ``(6,)``.
        phenotype_weights: W ``(6, S)``.
        phenotype_residual: standard deviation of e ``(6,)``.
    """

    phenotype_bias: Array
    phenotype_weights: Array
    phenotype_residual: Array

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def fit(
        cls, scores: Array, phenotypes: Array, *, known: Mapping[str, Array] | None = None
    ) -> PhenotypeMap:
        """Regress phenotypes ``(N, 6)`` on scores ``(N, S)``, with a small ridge.

        Args:
            scores: of hearts.
            phenotypes: of the same.
            known: rows of W that need no regression ``(S,)``, by name of ``NAMES``: one of healthy
                hearts says little of shapes that they do not have.
        """
        center, mean = scores.mean(axis=0), phenotypes.mean(axis=0)
        x, y = scores - center, phenotypes - mean
        normal = x.T @ x + _RIDGE * len(x) * np.eye(x.shape[1])
        weights = np.linalg.solve(normal, x.T @ y).T
        for name, row in (known or {}).items():
            weights[NAMES.index(name)] = row
        residual = (y - x @ weights.T).std(axis=0)

        return cls(mean - weights @ center, weights, residual)


def mesh_phenotypes(vertices: Array, topology: Topology) -> Array:
    """Return f ``(6,)`` of the meshes of one cycle ``(T, V, 3)`` that begins at end diastole."""
    volumes = mesh_volumes(vertices, topology)
    left, right = volumes[Structure.LV], volumes[Structure.RV]
    es = int(np.argmin(left))
    found = Phenotypes(
        lvedv=left[0],
        lvesv=left[es],
        lvm=volumes[Structure.MYO][0] * MYOCARDIAL_DENSITY,
        rvedv=right[0],
        rvesv=right[es],
    )
    lengths = ventricle_length(vertices[[0, es]], topology)

    return np.append(found.as_vector(), 1.0 - lengths[1] / lengths[0])


def mesh_sizes(vertices: Array, topology: Topology) -> Array:
    """Return (ln LVEDV, ln LVM, ln RVEDV) ``(3,)`` of a mesh at end diastole ``(V, 3)``."""
    volumes = mesh_volumes(vertices, topology)
    left, wall, right = (volumes[s][0] for s in (Structure.LV, Structure.MYO, Structure.RV))

    return np.log([left, wall * MYOCARDIAL_DENSITY, right])


def ventricle_length(vertices: Array, topology: Topology) -> Array:
    """Return the distance from the mitral rim's center to the farthest endocardium, ``(T,)``."""
    rim = np.intersect1d(topology.parts["lv_lid"], topology.parts["lv_rim"])
    wall = np.unique(topology.parts["lv_endo"])
    base = vertices[:, rim].mean(axis=1, keepdims=True)

    return np.linalg.norm(vertices[:, wall] - base, axis=-1).max(axis=1)
