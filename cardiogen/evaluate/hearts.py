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

from cardiogen.base import keyed_rng, keyed_seed, progress
from cardiogen.data.factors import Factors
from cardiogen.evaluate.ends import DRIFT, MEASURES, Ends, latent_ends, measures_of
from cardiogen.models.protocol import (
    AnyModel,
    LatentDistribution,
    encode_condition,
    gives_labels,
)
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import PopulationHeart, sample_heart
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

FACTORS = ("age", "sex", "height", "weight", "sbp")


@dataclass(frozen=True, eq=False)
class Hearts:
    """N hearts at both ends of ejection.

    Attributes:
        table: rows of ``ends.Ends``, ``(N, 10)``; a heart that could not be made is one of NaN.
        ed: meshes at end diastole, heart frame, mm ``(N, V, 3)`` float32; None of label maps.
        es: the same at end systole.
    """

    table: Array
    ed: NDArray[np.float32] | None = None
    es: NDArray[np.float32] | None = None

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
    made = []
    for heart in progress(hearts, text):
        ends = ends_of(heart)
        made.append(Ends(measures_of(ends, template_topology()), heart.timing.systole, ends))
    return _gathered(made, meshes=True)


def model_ends(
    model: AnyModel, prior: LatentDistribution, seed: int, purpose: str, index: int
) -> Ends | None:
    """Return one draw at ED and ES; None where the latent is no heart.

    Nothing is drawn again: what a model cannot make counts against it.
    """
    generator = torch.Generator().manual_seed(keyed_seed(seed, f"evaluate/{purpose}", index))
    return latent_ends(model, prior.sample(generator))


def model_hearts(
    model: AnyModel, factors: Sequence[Factors], *, seed: int, purpose: str
) -> Hearts:
    """Return one draw of a model for each set of factors."""
    made = []
    for index, given in enumerate(progress(factors, "generating hearts")):
        made.append(model_ends(model, model.prior(encode_condition(given)), seed, purpose, index))
    return _gathered(made, meshes=not gives_labels(model))


def _gathered(made: Sequence[Ends | None], *, meshes: bool) -> Hearts:
    table = np.full((len(made), DRIFT + 1), np.nan)
    shape = (2, len(made), template_topology().vertex_count, 3)
    ends = np.full(shape, np.nan, dtype=np.float32) if meshes else None
    for row, found in enumerate(made):
        if found is not None:
            table[row] = found.row
            if ends is not None:
                ends[:, row] = found.vertices
    return Hearts(table) if ends is None else Hearts(table, ends[0], ends[1])


def without(factors: Factors, name: str | None) -> Factors:
    """Return factors of which one is unknown."""
    return factors if name is None else replace(factors, **{name: None})
