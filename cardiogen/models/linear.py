"""The linear model: PCA of end-diastolic shape and of Fourier motion, with a conditional Gaussian.

With y the cycle vector of a heart (``models.cycle``), standardized per entry, and z the scores on
the modes of its end-diastolic and motion blocks,

    y = mean + scale * (modes^T z),    z ~ p(z | factors) of ``models.conditional``:

the phenotypes are scores of their own, and their relative spread differs between sexes and ages.
Every z decodes to a valid, periodic heart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.cycle import (
    ED_BLOCK,
    HARMONICS,
    MOTION_BLOCK,
    VECTOR_SIZE,
    decode_cycle,
    end_systole,
)
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import Posterior
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearWeights:
    """Everything that is learned; saved as ``model.safetensors``.

    Attributes:
        mean, scale: of the cycle vector, ``(Y,)``.
        ed_modes, motion_modes: rows are unit modes of the standardized blocks, ``(Z1, Y1)``,
            ``(Z2, Y2)``.
        latents: p(z | factors).
    """

    mean: Array
    scale: Array
    ed_modes: Array
    motion_modes: Array
    latents: ConditionalGaussian

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        own = tuple(field.name for field in fields(cls) if field.name != "latents")
        return (*own, *ConditionalGaussian.names())

    @staticmethod
    def shapes(ed: int, motion: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor for given numbers of modes."""
        ed_size = ED_BLOCK.stop - ED_BLOCK.start
        return {
            "mean": (VECTOR_SIZE,),
            "scale": (VECTOR_SIZE,),
            "ed_modes": (ed, ed_size),
            "motion_modes": (motion, VECTOR_SIZE - ed_size),
        } | ConditionalGaussian.shapes(ed + motion)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> LinearWeights:
        """Return the weights of named tensors."""
        latents = ConditionalGaussian(**{n: tensors[n] for n in ConditionalGaussian.names()})
        own = {n: tensors[n] for n in cls.names() if n not in ConditionalGaussian.names()}
        return cls(**own, latents=latents)

    def tensors(self) -> dict[str, Array]:
        """Return all tensors by name."""
        parts = {n: getattr(self.latents, n) for n in ConditionalGaussian.names()}
        return {n: parts[n] if n in parts else getattr(self, n) for n in self.names()}


class LinearModel:
    """``AnatomyModel`` over :class:`LinearWeights`."""

    kind = "linear"

    def __init__(self, weights: LinearWeights) -> None:
        self.weights = weights
        self.topology: Topology = template_topology()
        self._ed_size = len(weights.ed_modes)

    @property
    def latents(self) -> ConditionalGaussian:
        """p(z | factors)."""
        return self.weights.latents

    @property
    def latent_size(self) -> int:
        """Number of latents Z."""
        return self._ed_size + len(self.weights.motion_modes)

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        self.latents.check_condition(condition)

    def prior(self, condition: Tensor) -> GaussianMixture:
        """Return p(z | known factors), a mixture of two Gaussians where sex is unknown."""
        return self.latents.prior(condition)

    def cycle_vector(self, latent: Tensor) -> Array:
        """Return the cycle vector ``(Y,)`` of a latent ``(Z,)``."""
        z = latent.detach().cpu().numpy().astype(np.float64)
        w = self.weights
        standard = np.empty_like(w.mean)
        # einsum without BLAS: the same bits for any number of threads.
        standard[ED_BLOCK] = np.einsum("z,zy->y", z[: self._ed_size], w.ed_modes)
        standard[MOTION_BLOCK] = np.einsum("z,zy->y", z[self._ed_size :], w.motion_modes)
        return w.mean + w.scale * standard

    def coordinates(self, latent: Tensor, phases: ArrayLike) -> Array:
        """Return the shape coordinates ``(T, P)`` of a latent at any phases."""
        return decode_cycle(self.cycle_vector(latent), phases)

    def decode(self, latent: Tensor, phases: ArrayLike) -> Array:
        """Return heart-frame meshes ``(T, V, 3)`` in mm of a latent ``(Z,)`` at any phases."""
        return heart_vertices(self.coordinates(latent, phases))

    def encode_vector(self, vector: Array) -> Tensor:
        """Return the latent whose cycle vector is nearest to ``vector``, ``(Z,)``."""
        w = self.weights
        standard = (vector - w.mean) / w.scale
        scores = [w.ed_modes @ standard[ED_BLOCK], w.motion_modes @ standard[MOTION_BLOCK]]
        return torch.from_numpy(np.concatenate(scores))

    def is_possible(self, latent: Tensor) -> bool:
        """Whether a latent decodes to a heart: no ventricle ejects more than it holds."""
        phases = [0.0, self.end_systole(latent)]
        return bool(np.isfinite(self.coordinates(latent, phases)).all())

    def end_systole(self, latent: Tensor) -> float:
        """Return the phase at which ejection ends: all but 0.5 % of the stroke is out."""
        return end_systole(self.cycle_vector(latent))

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the latents given label maps of any frames: see ``models.completion``."""
        from cardiogen.models.completion import linear_posterior

        return linear_posterior(self, observed, condition, healthy=healthy)

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value seen of every continuous factor."""
        return self.latents.condition_ranges()

    def tensors(self) -> dict[str, Array]:
        """Return everything that was learned, by name."""
        return self.weights.tensors()

    def architecture(self) -> dict[str, int | float | str]:
        """Return the numbers that describe the model."""
        return {
            "ed_modes": len(self.weights.ed_modes),
            "motion_modes": len(self.weights.motion_modes),
            "harmonics": HARMONICS,
            "cycle_vector": VECTOR_SIZE,
        }
