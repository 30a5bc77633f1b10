"""Training of the deformation model: from velocity codes of hearts, or from the population."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.engine.config import FlowConfig
from cardiogen.models.conditional_fit import fit_conditional
from cardiogen.models.cycle import fourier_basis
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.heart_codes import HeartCodes, population_codes
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.modes import VelocityModes, fit_modes
from cardiogen.models.deformation.phenotypes import PhenotypeMap
from cardiogen.models.deformation.slips import Slips, away_from_insertion, regress_slips
from cardiogen.models.deformation.strokes import StrokeVolumes
from cardiogen.models.deformation.template import (
    DeformationTemplate,
    population_template,
)
from cardiogen.models.fit_noise import FitNoise
from cardiogen.models.fitted_meshes import FittedMeshes, fitted_population
from cardiogen.models.flow import fit_flow

Array = NDArray[np.float64]

_RANKS = 24, 24  # of slips at rest and beating
_EJECTED = 0.4  # phase at which draws of the model have ejected: .40, SD .02 in 60


def deformation_from_population(
    count: int,
    seed: int,
    *,
    ed_modes: int = 96,
    fields: int = 64,
    motion_modes: int = 64,
    fits: int = 32,
    flow: FlowConfig | None = None,
    template: DeformationTemplate | None = None,
    jobs: int = 1,
) -> DeformationModel:
    """Return the model of the first ``count`` hearts of the population.

    Args:
        count: training hearts.
        seed: of the population.
        ed_modes, fields, motion_modes, flow: see :func:`fit_deformation`.
        fits: further hearts whose label maps tell the noise of observations.
        template: what is deformed, by default the population's; others come from
            ``own_template``.
        jobs: processes.

    Raises:
        CardiogenError: C28 for too few hearts.
    """
    template = template or population_template()
    held = population_codes(fits, seed, first=count, jobs=jobs, template=template)
    fitted = fitted_population(fits, seed, first=count, jobs=jobs)

    return fit_deformation(
        population_codes(count, seed, jobs=jobs, template=template), held, fitted, template,
        ed_modes=ed_modes, fields=fields, motion_modes=motion_modes, flow=flow, seed=seed,
    )  # fmt: skip


def fit_deformation(
    codes: HeartCodes,
    held: HeartCodes,
    fitted: FittedMeshes,
    template: DeformationTemplate,
    *,
    ed_modes: int,
    fields: int,
    motion_modes: int,
    flow: FlowConfig | None = None,
    seed: int = 0,
) -> DeformationModel:
    """Fit the model to velocity codes.

    Args:
        codes: of hearts with complete factors, both sexes among them; hearts without any teach
            the modes alone.
        held: codes of others.
        fitted: what label maps of the others were taken for.
        template: what they are velocities of.
        ed_modes, fields, motion_modes: see ``modes.fit_modes``.
        flow: of the prior; None for a Gaussian one. There is none in the model either where
            hearts that were held out are told no better with one.
        seed: of the flow's training.

    Raises:
        CardiogenError: C28 for too few subjects or only one sex.
    """
    ed, motion = codes.ed.astype(np.float64), codes.motion.astype(np.float64)
    modes = fit_modes(ed, motion, ed_modes=ed_modes, fields=fields, motion_modes=motion_modes)
    # Velocities alone give hearts the volumes that they have; with slips, strokes do. So without
    # strokes nothing slips.
    plain = VelocityDecoder(template, modes)
    decoder = VelocityDecoder(template, modes, _slips(modes, codes, template))
    known = [k for k, f in enumerate(codes.factors) if f.age is not None]
    latents = modes.encode(ed[known], motion[known])
    scores = modes.encode(held.ed.astype(np.float64), held.motion.astype(np.float64))
    strokes, told = StrokeVolumes.fit(decoder, latents.mean(axis=0), _EJECTED), {}
    if strokes is None:
        decoder = plain
    else:
        told = {"logit_lvef": strokes.stroke_slopes[0], "log_sv_ratio": strokes.stroke_slopes[1]}
        hearts = progress(latents, "stroke volumes")
        latents = np.stack([strokes.latent(plain, heart) for heart in hearts])
        scores = np.stack([strokes.scores(decoder, strokes.latent(plain, s)) for s in scores])

    subjects = [codes.factors[k] for k in known]
    phenotypes = PhenotypeMap.fit(latents, codes.phenotypes[known], known=told)
    gaussian = fit_conditional(latents, subjects, telling=phenotypes.phenotype_weights)
    hearts = [decoder.heart(s, when) for s, when in zip(scores, fitted.phases, strict=True)]

    return DeformationModel(
        decoder, gaussian, phenotypes,
        noise=FitNoise.of(fitted, np.stack(hearts).reshape(fitted.meshes.shape)), strokes=strokes,
        flow=None if flow is None else fit_flow(gaussian, latents, subjects, flow, seed=seed),
    )  # fmt: skip


def _slips(modes: VelocityModes, codes: HeartCodes, template: DeformationTemplate) -> Slips | None:
    """Return what vertices move beside their velocities: in motion as in the hearts shown."""
    if codes.left is None or not codes.shown:
        return None
    motion, left = [], []
    for heart in codes.shown:
        series = codes.motion[heart.number].astype(np.float64)
        motion.append(fourier_basis(heart.phases) @ series)
        beat = torch.from_numpy(motion[-1]).float().unflatten(1, (3, -1))
        shape = torch.from_numpy(codes.ed[heart.number]).view(1, 3, -1)
        pulled = torch.from_numpy(heart.meshes)
        for velocity in (shape.expand_as(beat), beat):
            pulled = template.move(pulled, template.displacement(-velocity))
        # Beside end diastole: what its own velocity leaves over is no motion.
        left.append((pulled - pulled[:1]).double().numpy())

    told = np.concatenate(motion) @ modes.fields.T

    still = codes.left * away_from_insertion(template.vertices, template.topology)[:, None]

    return Slips(*regress_slips(modes.encode_ed(codes.ed), still, _RANKS[0]),
                 *regress_slips(told, np.concatenate(left), _RANKS[1]))  # fmt: skip
