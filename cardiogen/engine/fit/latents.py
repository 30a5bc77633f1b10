"""The KL divergence of Gaussian latents, its free bits and the report of active units.

Convention: the divergence is in nats, SUMMED over latents and AVERAGED over the batch, which is
the scale at which a reconstruction term that sums over what is observed makes an evidence bound.
A KL that is averaged over latents instead is weaker by their number. Functions here take and
return one value per example and latent, ``(B, Z)``, and only :func:`kl_loss` reduces.
"""

from __future__ import annotations

import torch
from torch import Tensor

ACTIVE_NATS = 0.01


def draw_latent(mean: Tensor, log_var: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw ``mean + exp(log_var / 2) e`` with standard normal e, differentiably.

    Args:
        mean, log_var: of the posterior ``(B, Z)``.
        generator: on the device of ``mean``; noise is float32 or wider, also under autocast.
    """
    dtype = torch.promote_types(mean.dtype, torch.float32)
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=dtype)
    return mean.to(dtype) + torch.exp(0.5 * log_var.to(dtype)) * noise


def gaussian_kl(
    mean: Tensor,
    log_var: Tensor,
    prior_mean: Tensor | None = None,
    prior_log_var: Tensor | None = None,
) -> Tensor:
    """Return ``KL(N(mean, exp log_var) || N(prior))`` per example and latent, nats ``(B, Z)``.

    ``(log_var_p - log_var + (exp log_var + (mean - mean_p)^2) / exp log_var_p - 1) / 2``, in
    float32 or wider: half precision overflows at a log variance of 11.

    Args:
        mean, log_var: of the posterior ``(B, Z)``.
        prior_mean, prior_log_var: of the prior, broadcast against them; 0 if not given.
    """
    dtype = torch.promote_types(mean.dtype, torch.float32)
    mean, log_var = mean.to(dtype), log_var.to(dtype)
    shift = mean if prior_mean is None else mean - prior_mean.to(dtype)
    if prior_log_var is None:
        return 0.5 * (log_var.exp() + shift.square() - 1 - log_var)
    gap = log_var - prior_log_var.to(dtype)
    return 0.5 * (gap.exp() + shift.square() * torch.exp(-prior_log_var.to(dtype)) - 1 - gap)


def kl_loss(kl: Tensor, *, free_bits: float = 0.0) -> Tensor:
    """Return ``sum_z max(mean_b KL_bz, free_bits)``, nats: summed over latents, batch mean.

    A latent whose mean divergence is below ``free_bits`` gets no gradient from this term, so that
    it is not pressed to the prior before the decoder has learned to use it (Kingma et al., NeurIPS
    2016, equation 15). The mean is over the examples at hand: one share of a batch that was cut.

    Args:
        kl: of :func:`gaussian_kl`, ``(B, Z)``.
        free_bits: nats of every latent that cost nothing more.
    """
    return kl.mean(dim=0).clamp_min(free_bits).sum()


def active_units(kl_per_latent: Tensor, *, threshold: float = ACTIVE_NATS) -> float:
    """Return the share of latents whose batch-mean divergence exceeds ``threshold`` nats.

    Args:
        kl_per_latent: ``kl.mean(dim=0)``, ``(Z,)``, over as many examples as there are.
        threshold: nats; below it the posterior is the prior, whatever is observed.
    """
    return float((kl_per_latent > threshold).double().mean())
