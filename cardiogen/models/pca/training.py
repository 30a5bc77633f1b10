"""Training of the baseline: beating meshes of the reference population, the model from them."""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.factors import Factors
from cardiogen.models.conditional_fit import fit_conditional
from cardiogen.models.fit_noise import FitNoise
from cardiogen.models.fitted_meshes import FittedMeshes, fitted_population
from cardiogen.models.pca.model import PcaModel
from cardiogen.models.pca.modes import CycleModes, motion_series
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import training_heart

Array = NDArray[np.float64]

# As the deformation model sees its hearts.
CYCLE_PHASES = np.arange(20) / 20.0
_GROUP = 16


@dataclass(frozen=True, eq=False)
class Cycles:
    """Beating meshes of hearts with complete factors, in the heart's frame.

    Attributes:
        ed: meshes at end diastole ``(N, P)`` mm, float32.
        motion: series of their motion ``(N, K2, P)`` mm, float32, see ``modes.motion_series``.
        factors: of the subjects.
    """

    ed: NDArray[np.float32]
    motion: NDArray[np.float32]
    factors: tuple[Factors, ...]

    @classmethod
    def of(cls, meshes: Listing[Array], factors: Listing[Factors]) -> Cycles:
        """Return the cycles of meshes ``(T, V, 3)`` at ``CYCLE_PHASES``."""
        ed = np.stack([cycle[0].ravel() for cycle in meshes])
        motion = np.stack([motion_series(CYCLE_PHASES, cycle) for cycle in meshes])

        return cls(ed.astype(np.float32), motion.astype(np.float32), tuple(factors))

    @classmethod
    def joined(cls, parts: Listing[Cycles]) -> Cycles:
        """Return all hearts of several parts."""
        return cls(
            np.concatenate([p.ed for p in parts]), np.concatenate([p.motion for p in parts]),
            tuple(f for p in parts for f in p.factors),
        )  # fmt: skip


def population_cycles(count: int, seed: int, *, first: int = 0, jobs: int = 1) -> Cycles:
    """Return population hearts ``first`` to ``first + count``, those of the deformation model.

    Args:
        count: number of hearts.
        seed: of the population.
        first: number of the first heart.
        jobs: processes; they do not change a bit.
    """
    from joblib import Parallel, delayed

    starts = range(first, first + count, _GROUP)
    ranges = [range(start, min(start + _GROUP, first + count)) for start in starts]
    pool = Parallel(n_jobs=jobs, return_as="generator", max_nbytes=None)
    parts = pool(delayed(_group)(seed, chosen) for chosen in ranges)

    return Cycles.joined(list(progress(parts, "drawing meshes", total=len(ranges))))


def fit_pca(
    cycles: Cycles, held: Cycles, fitted: FittedMeshes, *, ed_modes: int, motion_modes: int
) -> PcaModel:
    """Fit the model.

    The noise of its observations is what fitted meshes of hearts not trained on differ by from
    the nearest hearts that the modes can show: errors of the fit and of the truncation.

    Args:
        cycles: of hearts with complete factors, both sexes among them.
        held: others.
        fitted: what their label maps were taken for.
        ed_modes, motion_modes: see ``CycleModes.fit``.

    Raises:
        CardiogenError: C28 for too few subjects or only one sex.
    """
    modes = CycleModes.fit(cycles.ed, cycles.motion, ed_modes=ed_modes, motion_modes=motion_modes)
    latents = fit_conditional(modes.encode(cycles.ed, cycles.motion), cycles.factors)
    scores = modes.encode(held.ed, held.motion)
    shown = [modes.decode(s, when) for s, when in zip(scores, fitted.phases, strict=True)]
    noise = FitNoise.of(fitted, np.stack(shown).reshape(fitted.meshes.shape))
    model = PcaModel(modes, latents, noise)

    # As a bundle keeps it.
    narrow = {name: a.astype(np.float32) for name, a in model.tensors().items()}
    return PcaModel.from_tensors(narrow, model.architecture())


def pca_from_population(
    count: int,
    seed: int,
    *,
    ed_modes: int = 80,
    motion_modes: int = 80,
    fits: int = 32,
    jobs: int = 1,
) -> PcaModel:
    """Return the model of the first ``count`` hearts of the population.

    Args:
        count: training hearts.
        seed: of the population.
        ed_modes, motion_modes: numbers of scores.
        fits: further hearts whose label maps tell the noise of observations.
        jobs: processes; they do not change a bit.

    Raises:
        CardiogenError: C28 for too few hearts.
    """
    fitted = fitted_population(fits, seed, first=count, jobs=jobs)
    held = population_cycles(fits, seed, first=count, jobs=jobs)

    return fit_pca(
        population_cycles(count, seed, jobs=jobs), held, fitted, ed_modes=ed_modes,
        motion_modes=motion_modes,
    )  # fmt: skip


def _group(seed: int, indices: range) -> Cycles:
    hearts = [training_heart(seed, i) for i in indices]
    meshes = [heart_vertices(heart.coordinates(CYCLE_PHASES)) for heart in hearts]

    return Cycles.of(meshes, [heart.factors for heart in hearts])
