"""Training of the baseline: beating meshes of the reference population, the model from them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import keyed_rng, progress
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence
from cardiogen.engine.fit_template import fit_frames
from cardiogen.models.conditional import fit_conditional
from cardiogen.models.pca.model import PcaModel
from cardiogen.models.pca.modes import CycleModes, motion_series
from cardiogen.models.pca.noise import FitNoise, MeshNoise
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import PopulationHeart, sample_heart
from cardiogen.population.pose import rigid_pose
from cardiogen.population.render import render_sequence, short_axis_grid
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]
Part = TypeVar("Part")

# As the deformation model sees its hearts.
CYCLE_PHASES = np.arange(20) / 20.0
_GROUP = 16
_SPACING_MM = (2.0, 2.0, 2.0)


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


@dataclass(frozen=True, eq=False)
class Fitted:
    """What label maps of hearts with known truth were taken for.

    Attributes:
        cycles: the truth.
        phases: of the frames that were fitted ``(N, T)``, end diastole first.
        meshes: fitted ``(N, T, P)`` mm, in the frame of the truth at end diastole.
        rms_mm: distance of contours from the fitted surfaces ``(N, T)``.
    """

    cycles: Cycles
    phases: Array
    meshes: Array
    rms_mm: Array


def population_cycles(count: int, seed: int, *, first: int = 0, jobs: int = 1) -> Cycles:
    """Return population hearts ``first`` to ``first + count``, those of the deformation model.

    Args:
        count: number of hearts.
        seed: of the population.
        first: number of the first heart.
        jobs: processes; they do not change a bit.
    """
    starts = range(first, first + count, _GROUP)
    ranges = [range(start, min(start + _GROUP, first + count)) for start in starts]

    return Cycles.joined(_spread(_group, seed, ranges, jobs, "drawing meshes"))


def fitted_population(count: int, seed: int, *, first: int, jobs: int = 1) -> Fitted:
    """Return what label maps of hearts ``first`` to ``first + count`` are taken for, ED and ES.

    The maps have voxels of 2 mm.
    """
    ranges = [range(number, number + 1) for number in range(first, first + count)]
    parts = _spread(_fitted, seed, ranges, jobs, "fitting label maps")

    return Fitted(
        Cycles.joined([p.cycles for p in parts]), np.concatenate([p.phases for p in parts]),
        np.concatenate([p.meshes for p in parts]), np.concatenate([p.rms_mm for p in parts]),
    )  # fmt: skip


def fit_pca(cycles: Cycles, fitted: Fitted, *, ed_modes: int, motion_modes: int) -> PcaModel:
    """Fit the model.

    The noise of its observations is what fitted meshes of hearts not trained on differ by from
    the nearest hearts that the modes can show: errors of the fit and of the truncation.

    Args:
        cycles: of hearts with complete factors, both sexes among them.
        fitted: label maps of others.
        ed_modes, motion_modes: see ``CycleModes.fit``.

    Raises:
        CardiogenError: C28 for too few subjects or only one sex.
    """
    modes = CycleModes.fit(cycles.ed, cycles.motion, ed_modes=ed_modes, motion_modes=motion_modes)
    latents = fit_conditional(modes.encode(cycles.ed, cycles.motion), cycles.factors)
    scores = modes.encode(fitted.cycles.ed, fitted.cycles.motion)
    shown = [modes.decode(s, when) for s, when in zip(scores, fitted.phases, strict=True)]
    errors = fitted.meshes - np.stack(shown).reshape(fitted.meshes.shape)
    rest, beat = errors[:, 0], errors[:, 1:].reshape(-1, errors.shape[-1])
    noise = FitNoise(MeshNoise.of(rest), MeshNoise.of(beat), float(np.median(fitted.rms_mm)))
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

    return fit_pca(
        population_cycles(count, seed, jobs=jobs), fitted, ed_modes=ed_modes,
        motion_modes=motion_modes,
    )  # fmt: skip


def _spread(
    make: Callable[[int, range], Part], seed: int, ranges: Listing[range], jobs: int, text: str
) -> list[Part]:
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, return_as="generator", max_nbytes=None)

    return list(progress(pool(delayed(make)(seed, r) for r in ranges), text, total=len(ranges)))


def _group(seed: int, indices: range) -> Cycles:
    hearts = [_heart(seed, i) for i in indices]
    meshes = [heart_vertices(heart.coordinates(CYCLE_PHASES)) for heart in hearts]

    return Cycles.of(meshes, [heart.factors for heart in hearts])


def _heart(seed: int, index: int) -> PopulationHeart:
    """Return a heart of an age drawn evenly from the covered range, as for the other models."""
    age = keyed_rng(seed, "linear/age", index).uniform(*AGE_RANGE)

    return sample_heart(seed, index, Factors(age=float(age)))


def _fitted(seed: int, indices: range) -> Fitted:
    """Render and fit one heart, at ED and ES."""
    heart, topology = _heart(seed, indices[0]), template_topology()
    phases = np.array([0.0, heart.timing.systole])
    truth = heart_vertices(heart.coordinates(phases))
    world = heart.pose.to_world(truth)
    grid = short_axis_grid(world, heart.pose, _SPACING_MM)
    seen = Sequence(phases=phases, grid=grid, labels=render_sequence(world, topology, grid))
    meshes, fits = fit_frames(seen)
    # One pose for both frames, as a posterior has: that of end diastole, which shows it best.
    found = rigid_pose(truth[0], meshes[0]).to_heart(meshes)

    return Fitted(
        _group(seed, indices), phases[None], found.reshape(1, len(phases), -1),
        np.array([[fit.rms_mm for fit in fits]]),
    )  # fmt: skip
