"""The deformation model: hearts as deformations of a template by smooth velocities.

Latents are the scores of ``modes``, moved by ``strokes`` so that stroke volumes are linear in
them; ``p(z | factors)`` is ``models.conditional``. A model of one cohort or heart has no strokes.
With a flow (``models.flow``) draws come from what it makes of that Gaussian; posteriors and ageing
go by the Gaussian itself.
Every latent decodes to a heart at any phases, and its cycle closes exactly. An exponential folds
only where a velocity is too steep for its lattice: ``steepness`` sees to that in motion that was
not seen.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import end_of_ejection, mesh_volumes
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.deformation.adaptation import MotionGivenShape
from cardiogen.models.deformation.decoder import Frames, VelocityDecoder
from cardiogen.models.deformation.modes import VelocityModes
from cardiogen.models.deformation.phenotypes import PhenotypeMap
from cardiogen.models.deformation.steepness import is_heart, sound_scores
from cardiogen.models.deformation.strokes import StrokeVolumes
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.fit_noise import FitNoise
from cardiogen.models.flow import FlowPrior, LatentFlow
from cardiogen.models.protocol import CONDITION_COLUMNS, Posterior

if TYPE_CHECKING:
    from cardiogen.models.deformation.encoding import HeartEncoder

Array = NDArray[np.float64]

# No heart ejects longer than two thirds of its cycle; what barely moves has its least volume
# anywhere.
_EJECTION = np.arange(34) / 50.0
_WEAKER = 1.5  # by which motion that is too much may have a lower logit of LVEF: 60 to 25 %


class DeformationModel:
    """``AnatomyModel`` that deforms a template."""

    kind = "deformation"

    def __init__(
        self,
        decoder: VelocityDecoder,
        latents: ConditionalGaussian,
        phenotypes: PhenotypeMap,
        *,
        noise: FitNoise,
        strokes: StrokeVolumes | None = None,
        cohort: MotionGivenShape | None = None,
        solver: VelocityDecoder | None = None,
        flow: LatentFlow | None = None,
    ) -> None:
        """Put a model together.

        Args:
            decoder: from latents to hearts.
            latents: their distribution given factors.
            phenotypes: as functions of latents.
            noise: of meshes that are fitted to label maps.
            strokes: from latents to scores; None if they are the same.
            cohort: how the hearts of a cohort beat, if the model was adapted to one.
            solver: what strokes are solved on; by default ``decoder``. A model of one heart keeps
                that of the model it comes from, so that latents mean the same in both.
            flow: from ``latents`` to what hearts are drawn from; None if these are the same.
        """
        self.decoder = decoder
        self.latents = latents
        self.phenotypes = phenotypes
        self.noise = noise
        self.strokes = strokes
        self.cohort = cohort
        self.solver = solver or decoder
        self.flow = flow

    @property
    def topology(self) -> Topology:
        """Faces and regions of the template."""
        return self.decoder.template.topology

    @property
    def latent_size(self) -> int:
        """Number of latents Z."""
        return self.decoder.modes.size

    @cached_property
    def encoder(self) -> HeartEncoder:
        """What turns label maps into velocities; its matrices take seconds, so it is kept."""
        from cardiogen.models.deformation.encoding import HeartEncoder

        unknown = torch.full((len(CONDITION_COLUMNS),), torch.nan, dtype=torch.float64)

        return HeartEncoder(self.decoder, self.scores(self.prior(unknown).mean.numpy()))

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        self.latents.check_condition(condition)

    def prior(self, condition: Tensor) -> GaussianMixture | FlowPrior:
        """Return p(z | known factors), a mixture of two Gaussians where sex is unknown.

        A flow moves its draws; its mean and covariance stay the Gaussians'.
        """
        gaussian = self.latents.prior(condition)

        return gaussian if self.flow is None else FlowPrior(gaussian, self.flow, condition)

    def decode(self, latent: Tensor, phases: ArrayLike) -> Array:
        """Return heart-frame meshes ``(T, V, 3)`` in mm of a latent ``(Z,)`` at any phases."""
        scores, when = latent.detach().cpu().numpy().astype(np.float64), np.asarray(phases, float)
        frames = Frames(self.decoder, self.decoder.shape(scores))
        # Where nothing moves there are no strokes to solve for.
        if np.any(np.mod(when, 1.0) != 0):
            scores = self.scores(scores, frames if self.solver is self.decoder else None)

        return frames.at(scores, when)

    def scores(self, latent: Array, frames: Frames | None = None) -> Array:
        """Return the scores ``(Z,)`` of a latent ``(Z,)``, motion drawn back to what is sound.

        Nothing is drawn back without strokes, as in models adapted to a cohort, nor where the
        motion of one heart was seen: these have fields of their own and follow it.

        Args:
            latent: of a heart.
            frames: of its shape by ``solver``, if there are any.
        """
        seen = len(self.decoder.modes.fields) > len(self.solver.modes.fields)
        if self.strokes is None or seen:
            return self.solved_scores(latent, None if frames is None else frames.shape)

        frames = frames or Frames(self.solver, self.solver.shape(latent))

        return sound_scores(
            frames, latent,
            (self.strokes.plain(latent), self.strokes.plain(latent, weaker=_WEAKER)),
            lambda z: self.solved_scores(z, frames.shape),
        )  # fmt: skip

    def solved_scores(self, latent: Array, shape: Tensor | None = None) -> Array:
        """Return the scores ``(Z,)`` that eject as a latent ``(Z,)`` tells; they may fold."""
        if self.strokes is None:
            return latent

        return self.strokes.scores(self.solver, latent, shape)

    def latent(self, scores: Array) -> Array:
        """Return the latent ``(Z,)`` of scores ``(Z,)``."""
        return scores if self.strokes is None else self.strokes.latent(self.solver, scores)

    def is_possible(self, latent: Tensor) -> bool:
        """Whether a latent decodes to a heart: its shape at end diastole does not fold."""
        return is_heart(self.decoder, latent.detach().cpu().numpy().astype(np.float64))

    def end_systole(self, latent: Tensor) -> float:
        """Return the phase at which ejection ends: the first that has emptied all but 0.5 %."""
        volumes = mesh_volumes(self.decode(latent, _EJECTION), self.topology)[Structure.LV]

        return float(_EJECTION[end_of_ejection(volumes, full_ml=volumes[0])])

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the latents given label maps of any frames: see ``deformation.posterior``."""
        from cardiogen.models.deformation.posterior import deformation_posterior

        return deformation_posterior(self, observed, condition, healthy=healthy)

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value seen of every continuous factor."""
        return self.latents.condition_ranges()

    def tensors(self) -> dict[str, Array]:
        """Return everything that was learned, by name; see ``deformation.tensors``."""
        modes = {name: getattr(self.decoder.modes, name) for name in VelocityModes.names()}
        latents = {name: getattr(self.latents, name) for name in ConditionalGaussian.names()}
        maps = {name: getattr(self.phenotypes, name) for name in PhenotypeMap.names()}

        more = {}
        for part in (self.decoder.slips, self.strokes, self.cohort):
            more |= {} if part is None else {name: getattr(part, name) for name in part.names()}
        more |= {} if self.flow is None else self.flow.tensors()

        return {"template": self.decoder.template.vertices, **modes, **latents, **maps,
                **self.noise.tensors(), **more}  # fmt: skip

    def architecture(self) -> dict[str, int | float | str]:
        """Return the numbers that describe the model."""
        template, modes = self.decoder.template, self.decoder.modes
        return {
            "ed_modes": modes.ed_size,
            "motion_modes": len(modes.motion_modes),
            "fields": len(modes.fields),
            "control_points": template.size,
            "spacing_mm": template.spacing_mm,
            "control_mm": template.control_mm,
            "margin_mm": template.margin_mm,
            **self.noise.lengths(),
        }
