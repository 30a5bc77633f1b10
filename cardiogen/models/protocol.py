"""The protocol that every model of anatomy answers.

Generation, completion, ageing, scoring, evaluation and augmentation are written once, against it.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.population.pose import Pose

# Columns of a condition tensor and their units. Missing factors are NaN.
CONDITION_COLUMNS = ("age", "sex", "height", "weight", "sbp")
CONDITION_UNITS = ("years", "0 = F, 1 = M", "cm", "kg", "mmHg")


def encode_condition(factors: Factors) -> Tensor:
    """Return the condition tensor ``(5,)`` float64 of factors, NaN where one is missing."""
    sex = None if factors.sex is None else float(factors.sex == "M")
    values = (factors.age, sex, factors.height, factors.weight, factors.sbp)
    return torch.tensor(
        [float("nan") if value is None else float(value) for value in values], dtype=torch.float64
    )


class LatentDistribution(Protocol):
    """What a prior or posterior offers."""

    @property
    def mean(self) -> Tensor:
        """Mean latent ``(Z,)``."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one latent ``(Z,)``."""

    def log_prob(self, latent: Tensor) -> Tensor:
        """Log density of latents ``(..., Z)``."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """Latents given observations, and where the observed heart lies.

    Attributes:
        latents: distribution over latents.
        pose: from the heart's frame to the world of the observations.
        margin: by how much (minus two log posterior) the pose fits better than its mirror image;
            None if they were not compared.
        own: the model with what sets this heart apart from all that its latents can show; None
            where there is nothing. It decodes the latents, draws among them.
    """

    latents: LatentDistribution
    pose: Pose
    margin: float | None = None
    own: AnatomyModel | None = None


class ConditionalModel(Protocol):
    """What models of anatomy answer alike, whether they decode meshes or label maps."""

    def check_condition(self, condition: Tensor) -> None:
        """Refuse (``CardiogenError`` D01 or D02) what lies outside the training data."""

    def prior(self, condition: Tensor) -> LatentDistribution:
        """Return the latents given a condition ``(5,)``, any entries of which may be NaN."""

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the latents given label maps of any frames and a condition.

        ``healthy`` says that the heart belongs to the population that the model was trained on.
        """

    def is_possible(self, latent: Tensor) -> bool:
        """Whether a latent decodes to a heart: no ventricle ejects more than it holds."""

    def end_systole(self, latent: Tensor) -> float:
        """Return the phase at which ejection ends: all but 0.5 % of the stroke is out."""


class AnatomyModel(ConditionalModel, Protocol):
    """A conditional model of cardiac anatomy over the cycle, as meshes of one topology."""

    topology: Topology

    def decode(self, latent: Tensor, phases: ArrayLike) -> NDArray[np.float64]:
        """Return heart-frame meshes ``(T, V, 3)`` in mm of one latent at any phases."""


class LabelModel(ConditionalModel, Protocol):
    """A conditional model of cardiac anatomy that decodes label maps.

    Attributes:
        topology: None: there are no meshes.
        known_phases: the phases that it can decode; none if it can decode any.
    """

    topology: None
    known_phases: tuple[float, ...]

    def decode_probs(self, latent: Tensor, phases: ArrayLike) -> tuple[Tensor, Grid]:
        """Return probabilities ``(T, 4, D, H, W)`` of one latent and their heart-frame lattice.

        Raises:
            CardiogenError: D04 for a phase that the model does not know.
        """

    def with_condition(self, latent: Tensor, condition: Tensor) -> Tensor:
        """Return the same heart under another condition: z stays, the code changes."""

    def require_heart(self) -> None:
        """Refuse (ValueError) weights that describe no distribution or no heart."""


AnyModel = AnatomyModel | LabelModel


def gives_labels(model: AnyModel) -> TypeGuard[LabelModel]:
    """Whether a model decodes label maps and no meshes."""
    return model.topology is None


def frame_phases(frames: int) -> Listing[float]:
    """Return the phases of ``frames`` equally spaced frames, the first at end diastole."""
    if frames < 1:
        raise ValueError(f"frames must be at least 1, got {frames}")
    return [k / frames for k in range(frames)]
