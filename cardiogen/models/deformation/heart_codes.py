"""Velocity codes of hearts: what a deformation model is learned from."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.factors import Factors
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.modes import fourier_series
from cardiogen.models.deformation.phenotypes import mesh_phenotypes
from cardiogen.models.deformation.template import DeformationTemplate, population_template
from cardiogen.ops.threads import one_thread
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import training_heart

Array = NDArray[np.float64]

CODE_PHASES = np.arange(20) / 20.0
_GROUP = 16
_EVERY = 4


@dataclass(frozen=True, eq=False)
class ShownHeart:
    """A heart whose meshes are kept beside its code.

    Attributes:
        number: of the heart among the codes.
        phases: of the frames ``(T,)``.
        meshes: ``(T, V, 3)`` mm, float32.
    """

    number: int
    phases: Array
    meshes: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeartCodes:
    """Velocity codes of hearts.

    Attributes:
        ed: velocities at end diastole ``(N, P)`` mm, float32.
        motion: Fourier series of motion ``(N, K2, P)`` mm, float32.
        phenotypes: of the meshes ``(N, 6)``, see ``phenotypes``.
        factors: of the subjects, all or none of each.
        left: what velocities leave over at end diastole, in the template ``(N, V, 3)`` mm,
            float32; None where meshes are not known.
        shown: some of the hearts, with their meshes, which tell how vertices slip: without any, or
            without ``left``, none does.
    """

    ed: NDArray[np.float32]
    motion: NDArray[np.float32]
    phenotypes: Array
    factors: tuple[Factors, ...]
    left: NDArray[np.float32] | None = None
    shown: tuple[ShownHeart, ...] = ()

    @classmethod
    def joined(cls, parts: Listing[HeartCodes]) -> HeartCodes:
        """Return all hearts of several parts."""
        before = np.cumsum([0, *(len(p.factors) for p in parts[:-1])]).tolist()
        return cls(
            np.concatenate([p.ed for p in parts]), np.concatenate([p.motion for p in parts]),
            np.concatenate([p.phenotypes for p in parts]),
            tuple(f for p in parts for f in p.factors),
            None if parts[0].left is None else np.concatenate([p.left for p in parts]),
            tuple(replace(s, number=s.number + n)
                  for p, n in zip(parts, before, strict=True) for s in p.shown),
        )  # fmt: skip


def mesh_codes(
    fitter: CodeFitter,
    meshes: Array,
    phases: Array,
    factors: Listing[Factors],
    *,
    shown: int = 4,
) -> HeartCodes:
    """Return the codes of hearts ``(N, T, V, 3)`` mm in their own frame; ED is frame 0.

    Args:
        fitter: finds them.
        meshes: of the hearts.
        phases: of their frames ``(T,)``.
        factors: of the hearts.
        shown: how many of the hearts are shown, the first ones, every fourth frame of them.
    """
    seen = torch.from_numpy(meshes).float()
    ed, frames = fitter.fit(seen)
    pulled = fitter.template.move(seen[:, 0], fitter.template.displacement(-ed))
    left = pulled.numpy() - fitter.template.vertices.astype(np.float32)
    topology = fitter.template.topology
    series = fourier_series(phases, frames.flatten(2).double().numpy())
    phenotypes = np.stack([mesh_phenotypes(cycle, topology) for cycle in meshes])

    when, some = np.asarray(phases, np.float64)[::_EVERY], meshes[:shown, ::_EVERY]
    kept = tuple(ShownHeart(k, when, m.astype(np.float32)) for k, m in enumerate(some))

    return HeartCodes(ed.flatten(1).numpy(), series.astype(np.float32), phenotypes,
                      tuple(factors), left, kept)  # fmt: skip


def population_codes(
    count: int,
    seed: int,
    *,
    first: int = 0,
    jobs: int = 1,
    template: DeformationTemplate | None = None,
) -> HeartCodes:
    """Return the codes of population hearts ``first`` to ``first + count``.

    Every heart's age is drawn evenly from the covered range, as for the linear model. Groups of
    16 are fitted at once, so that a heart's code does not depend on ``jobs``: with one thread
    (``OMP_NUM_THREADS=1``, as the command line has) not in a bit, else by rounding.

    Args:
        count: number of hearts.
        seed: of the population.
        first: number of the first heart.
        jobs: processes.
        template: what they are velocities of, by default the population's.
    """
    template = template or population_template()
    starts = range(first, first + count, _GROUP)
    ends = [min(start + _GROUP, first + count) for start in starts]
    ranges = list(zip(starts, ends, strict=True))
    if jobs == 1:
        return HeartCodes.joined([part for _, part in _share(template, seed, ranges)])
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, return_as="generator", max_nbytes=None)
    found = pool(delayed(_share)(template, seed, ranges[k::jobs]) for k in range(jobs))
    parts = [part for share in found for part in share]

    return HeartCodes.joined([part for _, part in sorted(parts, key=lambda pair: pair[0])])


def _share(
    template: DeformationTemplate, seed: int, ranges: Iterable[tuple[int, int]]
) -> list[tuple[int, HeartCodes]]:
    """Return what one process makes, on one thread: sums of others would have other bits."""
    with one_thread():
        fitter = CodeFitter(template)
        return [(a, _group(fitter, seed, a, b)) for a, b in progress(ranges, "velocity codes")]


def _group(fitter: CodeFitter, seed: int, first: int, last: int) -> HeartCodes:
    hearts = [training_heart(seed, index) for index in range(first, last)]
    meshes = np.stack([heart_vertices(heart.coordinates(CODE_PHASES)) for heart in hearts])

    return mesh_codes(fitter, meshes, CODE_PHASES, [heart.factors for heart in hearts])
