"""The tensors of a deformation model: names and shapes that they must have, and the way back.

The way there is ``DeformationModel.tensors``. Slips, strokes, the hearts of a cohort and a flow
are parts that some models lack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.cycle import HARMONICS
from cardiogen.models.deformation.adaptation import MotionGivenShape
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.modes import VelocityModes
from cardiogen.models.deformation.phenotypes import PhenotypeMap
from cardiogen.models.deformation.slips import Slips
from cardiogen.models.deformation.strokes import StrokeVolumes
from cardiogen.models.deformation.template import DeformationTemplate
from cardiogen.models.fit_noise import FitNoise
from cardiogen.models.flow import LatentFlow
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]
_Part = Slips | StrokeVolumes | MotionGivenShape

_OPTIONAL = (Slips, StrokeVolumes, MotionGivenShape)


def tensor_names(tensors: Iterable[str]) -> tuple[str, ...]:
    """Return the names that the tensors of a model must have, some of which are given."""
    given = set(tensors)
    more = [n for part in _OPTIONAL if given & set(part.names()) for n in part.names()]
    return ("template", *VelocityModes.names(), *ConditionalGaussian.names(),
            *PhenotypeMap.names(), *FitNoise.names(), *more,
            *LatentFlow.names(given))  # fmt: skip


def tensor_shapes(tensors: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the shape that every tensor must have, given the numbers of modes."""
    ed, motion, fields = (
        len(np.atleast_1d(tensors[name])) for name in ("ed_modes", "motion_modes", "fields")
    )
    vertices = template_topology().vertex_count
    size, series = np.size(tensors["ed_mean"]), fields * 2 * HARMONICS
    return (
        {
            "template": (vertices, 3),
            "ed_mean": (size,),
            "ed_modes": (ed, size),
            "ed_scale": (ed,),
            "fields": (fields, size),
            "motion_mean": (series,),
            "motion_modes": (motion, series),
            "motion_scale": (motion,),
            "phenotype_bias": (6,),
            "phenotype_weights": (6, ed + motion),
            "phenotype_residual": (6,),
        }
        | ConditionalGaussian.shapes(ed + motion)
        | FitNoise.shapes(tensors, 3 * vertices)
        | _optional_shapes(tensors, ed=ed, motion=motion, fields=fields, vertices=vertices)
        | LatentFlow.shapes(tensors, latents=ed + motion)
    )


def _optional_shapes(
    tensors: Mapping[str, Array], *, ed: int, motion: int, fields: int, vertices: int
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of those parts that are there."""
    more = {}
    if _has(tensors, Slips):
        ranks = tuple(len(np.atleast_1d(tensors[f"{n}_slips"])) for n in ("rest", "beat"))
        more |= Slips.shapes(ranks, shapes=ed, fields=fields, vertices=vertices)
    if _has(tensors, StrokeVolumes):
        more |= StrokeVolumes.shapes(ed, motion)
    if _has(tensors, MotionGivenShape):
        subjects = len(np.atleast_1d(tensors["cohort_features"]))
        more |= MotionGivenShape.shapes(subjects, motion)
    return more


def deformation_from_tensors(
    tensors: Mapping[str, Array], architecture: Mapping[str, int | float | str]
) -> DeformationModel:
    """Return the model of named tensors; the reverse of ``DeformationModel.tensors``.

    Raises:
        ValueError: for a velocity on another lattice than that of the template.
    """
    lengths = {name: float(architecture[name])
               for name in ("spacing_mm", "control_mm", "margin_mm")}  # fmt: skip
    template = DeformationTemplate(
        np.asarray(tensors["template"], np.float64), template_topology(), **lengths
    )
    if len(tensors["ed_mean"]) != 3 * template.size:
        raise ValueError(f"{template.size} control points for a velocity of "
                         f"{len(tensors['ed_mean'])} numbers")  # fmt: skip
    modes, latents, phenotypes = (
        part(**{name: tensors[name] for name in part.names()})
        for part in (VelocityModes, ConditionalGaussian, PhenotypeMap)
    )
    slips, strokes, cohort = (
        part(**{name: tensors[name] for name in part.names()}) if _has(tensors, part) else None
        for part in _OPTIONAL
    )

    return DeformationModel(
        VelocityDecoder(template, modes, slips), latents, phenotypes,
        noise=FitNoise.from_tensors(tensors, architecture), strokes=strokes, cohort=cohort,
        flow=LatentFlow.from_tensors(tensors),
    )  # fmt: skip


def _has(tensors: Mapping[str, Array], part: type[_Part]) -> bool:
    """Whether a model of these tensors has a part that some models lack."""
    return part.names()[0] in tensors
