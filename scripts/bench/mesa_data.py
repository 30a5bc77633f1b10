"""Left ventricles of MESA at ED and ES, their split, and what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cardiogen.base import keyed_rng
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY
from cardiogen.ops import mesh_volume_ml

Array = NDArray[np.float64]

CONDITIONS = ("EDVI", "EF")
UNITS = ("mL/m2", "%")
PHENOTYPES = ("EDV", "ESV", "EF", "wall", "mass")
_ENDO = 841  # points of the endocardium, followed by as many of the epicardium
_TRAIN, _VALIDATION = 700, 100


@dataclass(frozen=True, eq=False)
class Cohort:
    """Subjects with corresponding points.

    Attributes:
        shapes: ED and ES ``(N, 2, V, 3)`` float32 mm.
        conditions: clinical EDVI and EF ``(N, 2)``.
        faces: of endocardium and epicardium ``(F, 3)``, both outward and open at the base.
        endo: endocardium alone.
        epi: epicardium alone.
    """

    shapes: NDArray[np.float32]
    conditions: Array
    endo: NDArray[np.int64]
    epi: NDArray[np.int64]

    @property
    def faces(self) -> NDArray[np.int64]:
        """Both surfaces."""
        return np.concatenate([self.endo, self.epi])

    def take(self, rows: NDArray[np.int64]) -> Cohort:
        """Return chosen subjects."""
        return Cohort(self.shapes[rows], self.conditions[rows], self.endo, self.epi)


def load_cohort(folder: Path) -> Cohort:
    """Read the arrays (int16 in 0.01 mm) and the clinical indices."""
    table = pd.read_csv(folder / "subjects.csv")
    with np.load(folder / "shapes.npz") as file:
        shapes = np.stack([file["ed"], file["es"]], axis=1).astype(np.float32) / 100
        endo, epi = (file[f"faces_{name}"].astype(np.int64) for name in ("endo", "epi"))
    # The file's faces wind inward.
    return Cohort(
        shapes,
        table[list(CONDITIONS)].to_numpy(),
        *(np.ascontiguousarray(f[:, ::-1]) for f in (endo, epi)),
    )


def split(cohort: Cohort, *, seed: int) -> tuple[Cohort, Cohort, Cohort]:
    """Return 700 training, 100 validation and all other subjects."""
    order = keyed_rng(seed, "mesa split").permutation(len(cohort.shapes))
    parts = np.split(order, [_TRAIN, _TRAIN + _VALIDATION])
    return cohort.take(parts[0]), cohort.take(parts[1]), cohort.take(parts[2])


def phenotypes(shapes: NDArray, cohort: Cohort) -> Array:
    """Return EDV and ESV (mL), EF (%), mean ED wall (mm) and mass (g), ``(N, 5)``.

    Cavity and outer volume end in a flat lid across the rim of the base.

    Args:
        shapes: ``(N, 2, V, 3)`` mm.
        cohort: whose faces they have.
    """
    edv, esv = (_closed_volume(shapes[:, k], cohort.endo) for k in (0, 1))
    outer = _closed_volume(shapes[:, 0], cohort.epi)
    gap = shapes[:, 0, _ENDO:].astype(np.float64) - shapes[:, 0, :_ENDO]
    wall = np.linalg.norm(gap, axis=-1).mean(axis=1)
    return np.stack(
        [edv, esv, 100 * (1 - esv / edv), wall, MYOCARDIAL_DENSITY * (outer - edv)], axis=1
    )


def check_volumes(cohort: Cohort) -> str:
    """Return how the closed meshes' volumes go with the clinical indices, as a line."""
    found = phenotypes(cohort.shapes, cohort)
    edvi, ef = cohort.conditions.T
    size, beat = (np.corrcoef(found[:, k], c)[0, 1] for k, c in ((0, edvi), (2, ef)))
    return (
        f"closed meshes: EDV against EDVI r {size:.2f}; EF against EF r {beat:.2f}, means "
        f"{found[:, 2].mean():.1f} and {ef.mean():.1f} %"
    )


def ejection_fractions(ed: NDArray, es: NDArray, cohort: Cohort) -> Array:
    """Return EF (%) of cavities ``(N, V, 3)``."""
    return 100 * (1 - _closed_volume(es, cohort.endo) / _closed_volume(ed, cohort.endo))


def _closed_volume(vertices: NDArray, faces: NDArray[np.int64]) -> Array:
    """Volume (mL) of open surfaces ``(N, V, 3)`` with a lid at each of their rims."""
    # Fans about a point of the rim itself close a flat rim as well as fans about its center.
    closed = [faces]
    for loop in _rims(faces.tobytes()):
        first = np.full(len(loop) - 2, loop[0])
        closed.append(np.stack([first, loop[2:], loop[1:-1]], axis=1))
    every = torch.from_numpy(np.ascontiguousarray(np.concatenate(closed)))
    return mesh_volume_ml(torch.from_numpy(np.asarray(vertices, np.float32)), every).numpy()


@cache
def _rims(content: bytes) -> list[NDArray[np.int64]]:
    """Loops of the edges that only one face has, in the direction of that face."""
    faces = np.frombuffer(content, np.int64).reshape(-1, 3)
    edges = {(int(f[k]), int(f[(k + 1) % 3])) for f in faces for k in range(3)}
    following = {a: b for a, b in sorted(edges) if (b, a) not in edges}
    loops = []
    while following:
        loop = [next(iter(following))]
        while (after := following.pop(loop[-1])) != loop[0]:
            loop.append(after)
        loops.append(np.array(loop))
    return loops
