"""The plain baseline: principal components of vertices over the cycle, a Gaussian given factors.

Nothing here knows how hearts were made: neither volumes, nor rays, nor walls. Latents are the
scores of ``modes``; ``p(z | factors)`` is ``models.conditional``. Every latent decodes at any
phases, and its cycle closes exactly; whether the result is a heart, nothing guarantees.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import end_of_ejection, mesh_volumes
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.cycle import HARMONICS
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.fit_noise import FitNoise
from cardiogen.models.pca.modes import CycleModes
from cardiogen.models.protocol import Posterior
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

_DENSE = np.arange(50) / 50.0


class PcaModel:
    """``AnatomyModel`` of principal components."""

    kind = "pca"

    def __init__(self, modes: CycleModes, latents: ConditionalGaussian, noise: FitNoise) -> None:
        """Put a model together.

        Args:
            modes: from latents to hearts.
            latents: their distribution given factors.
            noise: of meshes that are fitted to label maps.
        """
        self.modes, self.latents, self.noise = modes, latents, noise
        self.topology: Topology = template_topology()

    @property
    def latent_size(self) -> int:
        """Number of latents Z."""
        return self.modes.size

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        self.latents.check_condition(condition)

    def prior(self, condition: Tensor) -> GaussianMixture:
        """Return p(z | known factors), a mixture of two Gaussians where sex is unknown."""
        return self.latents.prior(condition)

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the latents given label maps of any frames: see ``models.mesh_posterior``.

        The prior is that of the training cohort whether or not ``healthy``: nothing is widened by
        disease.
        """
        from cardiogen.models.mesh_posterior import mesh_posterior

        del healthy
        prior = self.prior(condition)
        linear = self.modes.designs(observed.phases)

        return mesh_posterior(
            observed, linear, self.noise, prior.mean.numpy(), prior.covariance.numpy()
        )

    def decode(self, latent: Tensor, phases: ArrayLike) -> Array:
        """Return heart-frame meshes ``(T, V, 3)`` in mm of a latent ``(Z,)`` at any phases."""
        return self.modes.decode(latent.detach().cpu().numpy().astype(np.float64), phases)

    def is_possible(self, latent: Tensor) -> bool:
        """Whether all chambers and the wall have a volume at ED and ES."""
        if not bool(torch.isfinite(latent).all()):
            return False
        volumes = mesh_volumes(self.decode(latent, [0.0, self.end_systole(latent)]), self.topology)

        return all(bool((volume > 0).all()) for volume in volumes.values())

    def end_systole(self, latent: Tensor) -> float:
        """Return the phase at which ejection ends: the first that has emptied all but 0.5 %."""
        volumes = mesh_volumes(self.decode(latent, _DENSE), self.topology)[Structure.LV]

        return float(_DENSE[end_of_ejection(volumes, full_ml=volumes[0])])

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value seen of every continuous factor."""
        return self.latents.condition_ranges()

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the tensors."""
        return (*CycleModes.names(), *ConditionalGaussian.names(), *FitNoise.names())

    @staticmethod
    def shapes(tensors: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
        """Return the shape that every tensor must have, given the numbers of modes."""
        ed, motion = (len(np.atleast_1d(tensors[name])) for name in ("ed_modes", "motion_modes"))
        vertices = template_topology().vertex_count

        return (
            CycleModes.shapes(ed, motion, vertices)
            | ConditionalGaussian.shapes(ed + motion)
            | FitNoise.shapes(tensors, 3 * vertices)
        )

    def tensors(self) -> dict[str, Array]:
        """Return everything that was learned, by name."""
        modes = {name: getattr(self.modes, name) for name in CycleModes.names()}
        latents = {name: getattr(self.latents, name) for name in ConditionalGaussian.names()}

        return {**modes, **latents, **self.noise.tensors()}

    def architecture(self) -> dict[str, int | float | str]:
        """Return the numbers that describe the model."""
        return {
            "ed_modes": self.modes.ed_size,
            "motion_modes": len(self.modes.motion_modes),
            "harmonics": HARMONICS,
            **self.noise.lengths(),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, NDArray], architecture: Mapping[str, int | float | str]
    ) -> PcaModel:
        """Return the model of named tensors; the reverse of ``tensors``.

        Raises:
            ValueError: for lengths that are none.
        """
        # Rows in order: sums over transposed arrays would have other bits.
        wide = {name: np.ascontiguousarray(a, np.float64) for name, a in tensors.items()}

        return cls(
            CycleModes(**{name: wide[name] for name in CycleModes.names()}),
            ConditionalGaussian(**{name: wide[name] for name in ConditionalGaussian.names()}),
            FitNoise.from_tensors(wide, architecture),
        )
