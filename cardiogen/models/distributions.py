"""Distributions over latents, drawn with an explicit generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Mixture of K Gaussians over one latent vector: ``sum_k w_k N(mean_k, L_k L_k^T)``.

    Attributes:
        weights: ``(K,)``, summing to one.
        means: ``(K, Z)``.
        scale_tril: lower Cholesky factors ``(K, Z, Z)``.
    """

    weights: Tensor
    means: Tensor
    scale_tril: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of the mixture, ``(Z,)``."""
        return (self.weights[:, None] * self.means).sum(dim=0)

    @property
    def covariance(self) -> Tensor:
        """Covariance of the mixture, ``(Z, Z)``."""
        within = torch.einsum("k,kij,klj->il", self.weights, self.scale_tril, self.scale_tril)
        offsets = self.means - self.mean
        return within + torch.einsum("k,ki,kj->ij", self.weights, offsets, offsets)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one latent ``(Z,)``; the global random state is neither read nor changed."""
        uniform = torch.rand((), generator=generator, dtype=self.means.dtype)
        noise = torch.randn(self.means.shape[1], generator=generator, dtype=self.means.dtype)
        # The last weight takes what rounding leaves.
        chosen = int((uniform >= self.weights.cumsum(0)[:-1]).sum())
        # Product and sum instead of a matrix product: no BLAS, the same bits on any threads.
        return self.means[chosen] + (self.scale_tril[chosen] * noise).sum(dim=1)

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the log density of latents ``(..., Z)``, ``(...)``."""
        parts = torch.distributions.MultivariateNormal(self.means, scale_tril=self.scale_tril)
        return torch.logsumexp(parts.log_prob(latent[..., None, :]) + self.weights.log(), dim=-1)
