"""The conditional prior in closed form: the Gaussian of latents and conditions together.

    (z, f(c)) ~ N(mu, S),   f(c) = the standardized conditions, their squares and products

so that p(z | c) of any subset of known conditions is one conditioning, without null tokens, and
what a missing condition leaves open is in its covariance. A prior that is trained by steps is
still 5-10 % too wide in some latents when the decoder has long been learned; this one is the best
of its family for the hearts it is given, and is fitted again when training ends.
"""

from __future__ import annotations

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from cardiogen.models.mesh.gaussian import Gaussian

# Ridge in subjects: a hundred hearts say little about curvature, a handful enough about slopes.
_RIDGE_SLOPE, _RIDGE_CURVATURE = 1.0, 30.0


class ConditionalPrior(nn.Module):
    """p(z | c) of conditions in native units, any of them missing; buffers only, set by `fit`.

    Args:
        center, scale: mean and SD of the conditions ``(C,)``.
        latents: Z.
    """

    def __init__(self, center: ArrayLike, scale: ArrayLike, *, latents: int) -> None:
        super().__init__()
        center, scale = (torch.as_tensor(part, dtype=torch.float32) for part in (center, scale))
        count = len(center)
        size = count + count * (count + 1) // 2
        self.register_buffer("center", center.clone())
        self.register_buffer("scale", scale.clone())
        self.register_buffer("mean", torch.zeros(size + latents))
        self.register_buffer("covariance", torch.eye(size + latents))
        self.register_buffer("subjects", torch.full((), 1e6))

    def features(self, conditions: Tensor) -> Tensor:
        """Return f ``(B, F)``, float64, NaN where a condition that it needs is missing."""
        x = (conditions.double() - self.center.double()) / self.scale.double()
        a, b = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
        return torch.cat([x, x[:, a] * x[:, b]], dim=1)

    def fit(self, conditions: Tensor, posterior: Gaussian) -> None:
        """Set the moments to those of hearts: conditions ``(N, C)`` and latents with spread.

        A moment is taken over the hearts that know both of its entries. The matrix that these
        make is brought to the nearest without negative eigenvalues.
        """
        f, z = self.features(conditions), posterior.mean.double()
        values = torch.cat([f, z], dim=1)
        known = (~values.isnan()).double()
        counts = known.sum(dim=0).clamp(min=1)
        mean = values.nan_to_num().sum(dim=0) / counts
        away = (values.nan_to_num() - mean) * known
        covariance = away.T @ away / (known.T @ known - 1).clamp(min=1)
        size, number = f.shape[1], conditions.shape[1]
        root = posterior.tril.double()
        covariance[size:, size:] += (root @ root.mT).mean(dim=0)
        ridge = torch.full((size,), _RIDGE_CURVATURE, dtype=mean.dtype, device=mean.device)
        ridge[:number] = _RIDGE_SLOPE
        covariance[:size, :size] += torch.diag(ridge / len(z))
        powers, axes = torch.linalg.eigh(covariance)
        covariance = (axes * powers.clamp(min=1e-9)) @ axes.T
        self.mean.copy_(mean)
        self.covariance.copy_(covariance)
        self.subjects.fill_(len(z))

    def forward(self, conditions: Tensor) -> Gaussian:
        """Return p(z | c) of conditions ``(B, C)``, NaN where missing."""
        f = self.features(conditions)
        size = f.shape[1]
        mean, whole = self.mean.double(), self.covariance.double()
        known = ~f.isnan()
        across = whole[size:, :size] * known[:, None].double()  # (B, Z, F)
        # A feature that is missing becomes one of unit variance that goes with no other.
        pairs = known[:, :, None] & known[:, None]
        eye = torch.eye(len(whole), dtype=f.dtype, device=f.device)
        own = torch.where(pairs, whole[:size, :size], eye[:size, :size])
        gain = torch.linalg.solve(own, across.mT).mT
        shift = gain @ (f - mean[:size]).nan_to_num()[..., None]
        rest = whole[size:, size:] - gain @ across.mT
        # Residuals of a regression are smaller than errors, by what the slopes have used up.
        used = known.sum(dim=1).clamp(max=self.subjects / 2)
        rest = rest * (self.subjects / (self.subjects - used)).double()[:, None, None]
        tril = torch.linalg.cholesky((rest + rest.mT) / 2 + 1e-9 * eye[size:, size:])
        return Gaussian((mean[size:] + shift[..., 0]).float(), tril.float())
