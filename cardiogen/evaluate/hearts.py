"""Hearts to compare: held-out hearts of the population, and hearts of models for the same factors.

All hearts lie in their own frame, so that distances between them are of shape and size alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, keyed_rng, keyed_seed, progress
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.measure.volumes import mesh_volumes, phenotypes
from cardiogen.models.protocol import AnatomyModel, LatentDistribution, encode_condition
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import PopulationHeart, sample_heart
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

MEASURES = ("LVEDV (mL)", "LVESV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)", "RVESV (mL)",
            "RVEF (%)")  # fmt: skip
FACTORS = ("age", "sex", "height", "weight", "sbp")
STROKES, DRIFT = slice(7, 9), 9


@dataclass(frozen=True, eq=False)
class Hearts:
    """N hearts at both ends of ejection.

    Attributes:
        table: the measures, left and right stroke volume (mL) and the change of the wall's volume
            from ED to ES (share), ``(N, 10)``; a heart that could not be made is a row of NaN.
        ed: meshes at end diastole, heart frame, mm ``(N, V, 3)`` float32.
        es: the same at end systole.
    """

    table: Array
    ed: NDArray[np.float32]
    es: NDArray[np.float32]

    @cached_property
    def made(self) -> NDArray[np.bool_]:
        """Which hearts there are ``(N,)``."""
        return np.isfinite(self.table).all(axis=1)

    @property
    def failures(self) -> int:
        """Number of hearts that could not be made."""
        return int((~self.made).sum())

    @property
    def phenotypes(self) -> Array:
        """The measures ``(N, 7)``."""
        return self.table[:, : len(MEASURES)]


def measures_of(ends: Array, topology: Topology) -> Array:
    """Return the row of :class:`Hearts` of meshes at ED and ES ``(2, V, 3)``, in any frame."""
    volumes = mesh_volumes(ends, topology)
    row = phenotypes(volumes, ed=0, es=1)
    wall = volumes[Structure.MYO]
    drift = wall[1] / wall[0] - 1.0

    return np.array([*(row[name] for name in (*MEASURES, "LVSV (mL)", "RVSV (mL)")), drift])


def held_out(seed: int, purpose: str, index: int, given: Factors | None = None) -> PopulationHeart:
    """Return a heart that no model was trained on: no training seed is 63 bits of a hash.

    Its age is drawn evenly from the covered range, as in training, unless it is given.
    """
    own = keyed_seed(seed, f"evaluate/{purpose}")
    if given is None:
        age = keyed_rng(own, "evaluate/age", index).uniform(*AGE_RANGE)
        given = Factors(age=float(age))
    return sample_heart(own, index, given)


def ends_of(heart: PopulationHeart) -> Array:
    """Return the meshes of a population heart at ED and ES, heart frame, ``(2, V, 3)`` mm."""
    return heart_vertices(heart.coordinates([0.0, heart.timing.systole]))


def population_hearts(hearts: Iterable[PopulationHeart], text: str) -> Hearts:
    """Return population hearts at both ends."""
    topology = template_topology()
    return _gathered([(ends_of(heart), topology) for heart in progress(hearts, text)])


def model_ends(
    model: AnatomyModel, prior: LatentDistribution, seed: int, purpose: str, index: int
) -> Array | None:
    """Return one draw at ED and ES, ``(2, V, 3)``; None where the latent is no heart.

    Nothing is drawn again: what a model cannot make counts against it.
    """
    generator = torch.Generator().manual_seed(keyed_seed(seed, f"evaluate/{purpose}", index))
    return latent_ends(model, prior.sample(generator))


def latent_ends(model: AnatomyModel, latent: torch.Tensor) -> Array | None:
    """Return a latent at ED and ES, ``(2, V, 3)``; None where it is no heart."""
    if not model.is_possible(latent):
        return None
    return model.decode(latent, [0.0, model.end_systole(latent)])


def model_hearts(
    model: AnatomyModel, factors: Sequence[Factors], *, seed: int, purpose: str
) -> Hearts:
    """Return one draw of a model for each set of factors."""
    made = []
    for index, given in enumerate(progress(factors, "generating hearts")):
        prior = model.prior(encode_condition(given))
        made.append((model_ends(model, prior, seed, purpose, index), model.topology))
    return _gathered(made)


def _gathered(made: list[tuple[Array | None, Topology]]) -> Hearts:
    count = made[0][1].vertex_count
    table = np.full((len(made), DRIFT + 1), np.nan)
    ends = np.full((2, len(made), count, 3), np.nan, dtype=np.float32)
    for row, (found, topology) in enumerate(made):
        if found is not None:
            table[row] = measures_of(found, topology)
            ends[:, row] = found
    return Hearts(table, ends[0], ends[1])


def without(factors: Factors, name: str | None) -> Factors:
    """Return factors of which one is unknown."""
    return factors if name is None else replace(factors, **{name: None})


def require_meshes(model: AnatomyModel) -> None:
    """Refuse a model whose hearts cannot be compared vertex by vertex (U12)."""
    topology = getattr(model, "topology", None)
    if topology is None or topology.vertex_count != template_topology().vertex_count:
        raise CardiogenError(
            "U12", "model", found="no meshes on the template of this cardiogen",
            expected=f"meshes of {template_topology().vertex_count} vertices",
            remedy="a model of meshes: linear, deformation or mesh",
        )  # fmt: skip
