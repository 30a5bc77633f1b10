"""Gaussians of full covariance over latents, as mean and lower Cholesky factor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """``N(mean, tril tril^T)`` of ``(B, Z)`` and ``(B, Z, Z)``."""

    mean: Tensor
    tril: Tensor

    def detach(self) -> Gaussian:
        """Return the same without gradients."""
        return Gaussian(self.mean.detach(), self.tril.detach())

    def wide(self) -> Gaussian:
        """Return the same in single precision at least."""
        dtype = torch.promote_types(self.mean.dtype, torch.float32)
        return Gaussian(self.mean.to(dtype), self.tril.to(dtype))

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return ``mean + tril e``, ``(B, Z)``, differentiably."""
        noise = torch.randn(
            self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype
        )
        return self.mean + (self.tril @ noise[..., None])[..., 0]


def unit_triangle(entries: Tensor, size: int) -> Tensor:
    """Return matrices ``(..., Z, Z)`` of ones on and ``entries (..., Z (Z-1) / 2)`` below it."""
    rows, columns = torch.tril_indices(size, size, -1, device=entries.device)
    flat = entries.new_zeros((*entries.shape[:-1], size * size))
    flat = flat.index_copy(-1, rows * size + columns, entries)

    return flat.unflatten(-1, (size, size)) + torch.eye(
        size, dtype=entries.dtype, device=entries.device
    )


def divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """Return the parts of ``KL(q || p)`` by whitened latents, nats ``(B, Z)``; they sum to it.

    With ``M = P^-1 Q`` and ``u = P^-1 (m_q - m_p)``, both triangular solves,
    ``KL = sum_i (sum_j M_ij^2 + u_i^2 - 1) / 2 - ln M_ii``.
    """
    # Half precision has no triangular solves.
    q, p = q.wide(), p.wide()
    whitened = torch.linalg.solve_triangular(
        p.tril, torch.cat([q.tril, (q.mean - p.mean)[..., None]], dim=-1), upper=False
    )
    matrix, shift = whitened[..., :-1], whitened[..., -1]
    logs = matrix.diagonal(dim1=-2, dim2=-1).log()

    return (matrix.square().sum(-1) + shift.square() - 1) / 2 - logs


def linear_update(prior: Gaussian, precision: Tensor, pull: Tensor) -> Gaussian:
    """Return the posterior of ``p(z) exp(-z^T H z / 2 + b^T z)``.

    With ``z = m + L w`` and w standard normal, ``w`` has precision ``I + L^T H L``, so that H may
    be zero (nothing seen: the prior itself) or large (much seen) without an inverse of either.

    Args:
        prior: ``N(m, L L^T)``.
        precision: H, ``(B, Z, Z)``, positive semidefinite.
        pull: b, ``(B, Z)``.
    """
    eye = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    inner = eye + prior.tril.mT @ precision @ prior.tril
    rest = pull - (precision @ prior.mean[..., None])[..., 0]
    lower = torch.linalg.cholesky(inner)
    step = torch.cholesky_solve((prior.tril.mT @ rest[..., None]), lower)
    mean = prior.mean + (prior.tril @ step)[..., 0]
    # (I + L'HL)^-1 = (K^-T)(K^-1): any root gives the covariance, its QR makes it triangular.
    root = prior.tril @ torch.linalg.solve_triangular(lower.mT, eye.expand_as(inner), upper=True)
    covariance = root @ root.mT

    return Gaussian(mean, torch.linalg.cholesky(covariance + 1e-12 * eye))
