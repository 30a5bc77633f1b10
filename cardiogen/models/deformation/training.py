"""Training data of the deformation model: velocity codes of hearts, and the model from them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import keyed_rng, progress
from cardiogen.data.factors import Factors
from cardiogen.models.conditional import fit_conditional
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.modes import fit_modes, fourier_series
from cardiogen.models.deformation.phenotypes import PhenotypeMap, mesh_phenotypes
from cardiogen.models.deformation.strokes import StrokeVolumes
from cardiogen.models.deformation.template import (
    DeformationTemplate,
    population_template,
)
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import sample_heart

Array = NDArray[np.float64]

CODE_PHASES = np.arange(20) / 20.0
_GROUP = 16
_EJECTED = 0.4  # phase at which draws of the model have ejected: .40, SD .02 in 60


@dataclass(frozen=True, eq=False)
class HeartCodes:
    """Velocity codes of hearts.

    Attributes:
        ed: velocities at end diastole ``(N, P)`` mm, float32.
        motion: Fourier series of motion ``(N, K2, P)`` mm, float32.
        phenotypes: of the meshes ``(N, 6)``, see ``phenotypes``.
        factors: of the subjects, all or none of each.
    """

    ed: NDArray[np.float32]
    motion: NDArray[np.float32]
    phenotypes: Array
    factors: tuple[Factors, ...]

    @classmethod
    def joined(cls, parts: Listing[HeartCodes]) -> HeartCodes:
        """Return all hearts of several parts."""
        return cls(
            np.concatenate([p.ed for p in parts]), np.concatenate([p.motion for p in parts]),
            np.concatenate([p.phenotypes for p in parts]),
            tuple(f for p in parts for f in p.factors),
        )  # fmt: skip


def mesh_codes(
    fitter: CodeFitter, meshes: Array, phases: Array, factors: Listing[Factors]
) -> HeartCodes:
    """Return the codes of hearts ``(N, T, V, 3)`` mm in their own frame; ED is frame 0."""
    ed, frames = fitter.fit(torch.from_numpy(meshes).float())
    topology = fitter.template.topology
    series = fourier_series(phases, frames.flatten(2).double().numpy())
    phenotypes = np.stack([mesh_phenotypes(cycle, topology) for cycle in meshes])

    return HeartCodes(ed.flatten(1).numpy(), series.astype(np.float32), phenotypes,
                      tuple(factors))  # fmt: skip


def population_codes(count: int, seed: int, *, first: int = 0, jobs: int = 1) -> HeartCodes:
    """Return the codes of population hearts ``first`` to ``first + count``.

    Every heart's age is drawn evenly from the covered range, as for the linear model. Groups of
    16 are fitted at once, so that a heart's code does not depend on ``jobs``: with one thread
    (``OMP_NUM_THREADS=1``, as the command line has) not in a bit, else by rounding.

    Args:
        count: number of hearts.
        seed: of the population.
        first: number of the first heart.
        jobs: processes.
    """
    starts = range(first, first + count, _GROUP)
    ends = [min(start + _GROUP, first + count) for start in starts]
    ranges = list(zip(starts, ends, strict=True))
    if jobs == 1:
        return HeartCodes.joined([part for _, part in _share(seed, ranges)])
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, return_as="generator", max_nbytes=None)
    found = pool(delayed(_share)(seed, ranges[k::jobs]) for k in range(jobs))
    parts = [part for share in found for part in share]

    return HeartCodes.joined([part for _, part in sorted(parts, key=lambda pair: pair[0])])


def _share(seed: int, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, HeartCodes]]:
    """Return what one process makes, on one thread: sums of others would have other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fitter = CodeFitter(population_template())
        return [(a, _group(fitter, seed, a, b)) for a, b in progress(ranges, "velocity codes")]
    finally:
        torch.set_num_threads(threads)


def _group(fitter: CodeFitter, seed: int, first: int, last: int) -> HeartCodes:
    ages = [keyed_rng(seed, "linear/age", i).uniform(*AGE_RANGE) for i in range(first, last)]
    hearts = [
        sample_heart(seed, i, Factors(age=float(age)))
        for i, age in zip(range(first, last), ages, strict=True)
    ]
    meshes = np.stack([heart_vertices(heart.coordinates(CODE_PHASES)) for heart in hearts])

    return mesh_codes(fitter, meshes, CODE_PHASES, [heart.factors for heart in hearts])


def fit_deformation(
    codes: HeartCodes,
    template: DeformationTemplate,
    *,
    ed_modes: int,
    fields: int,
    motion_modes: int,
) -> DeformationModel:
    """Fit the model to velocity codes.

    Args:
        codes: of hearts with complete factors, both sexes among them; hearts without any teach
            the modes alone.
        template: what they are velocities of.
        ed_modes, fields, motion_modes: see ``modes.fit_modes``.

    Raises:
        CardiogenError: C28 for too few subjects or only one sex.
    """
    ed, motion = codes.ed.astype(np.float64), codes.motion.astype(np.float64)
    modes = fit_modes(ed, motion, ed_modes=ed_modes, fields=fields, motion_modes=motion_modes)
    known = [k for k, f in enumerate(codes.factors) if f.age is not None]
    decoder, scores = VelocityDecoder(template, modes), modes.encode(ed[known], motion[known])
    strokes = StrokeVolumes.fit(decoder, scores.mean(axis=0), _EJECTED)
    latents, told = scores, {}
    if strokes is not None:
        told = {"logit_lvef": strokes.stroke_slopes[0], "log_sv_ratio": strokes.stroke_slopes[1]}
        hearts = progress(scores, "stroke volumes")
        latents = np.stack([strokes.latent(decoder, heart) for heart in hearts])

    return DeformationModel(
        decoder, fit_conditional(latents, [codes.factors[k] for k in known]),
        PhenotypeMap.fit(latents, codes.phenotypes[known], known=told), strokes=strokes,
    )  # fmt: skip
