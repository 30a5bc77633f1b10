"""Distributions over latents, drawn with an explicit generator.

Draws must be the same bits on any number of threads, so nothing on their way goes through BLAS or
LAPACK with more than a handful of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Mixture of K Gaussians over one latent vector: ``sum_k w_k N(mean_k, F_k F_k^T)``.

    Attributes:
        weights: ``(K,)``, summing to one.
        means: ``(K, Z)``.
        factors: any factors F of the covariances, ``(K, Z, R)`` with R at least Z.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, ``(Z,)``."""
        return (self.weights[:, None] * self.means).sum(dim=0)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the mixture, ``(Z, Z)``."""
        within = torch.einsum("k,kij,klj->il", self.weights, self.factors, self.factors)
        offsets = self.means - self.mean
        return within + torch.einsum("k,ki,kj->ij", self.weights, offsets, offsets)

    def draw(self, generator: torch.Generator) -> tuple[int, Tensor]:
        """Draw one component, its number, and from it one latent ``(Z,)``."""
        uniform = torch.rand((), generator=generator, dtype=self.means.dtype)
        noise = torch.randn(self.factors.shape[2], generator=generator, dtype=self.means.dtype)
        # The last weight takes what rounding leaves.
        chosen = int((uniform >= self.weights.cumsum(0)[:-1]).sum())
        moved = np.einsum("zr,r->z", self.factors[chosen].numpy(), noise.numpy())
        return chosen, self.means[chosen] + torch.from_numpy(moved)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one latent ``(Z,)``; the global random state is neither read nor changed."""
        return self.draw(generator)[1]

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the log density of latents ``(..., Z)``, ``(...)``."""
        parts = torch.distributions.MultivariateNormal(
            self.means, covariance_matrix=self.factors @ self.factors.mT
        )
        return torch.logsumexp(parts.log_prob(latent[..., None, :]) + self.weights.log(), dim=-1)
