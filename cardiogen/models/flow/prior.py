"""The prior that a flow makes of a Gaussian one.

The Gaussian prior given factors is ``z = m + N e + G r``, e and r standard normal: N, square, is
the spread that remains with all factors known, and G that of the unknown ones. The flow moves
``y = N^-1 (z - m)``: a draw z0 of the Gaussian becomes

    z = z0 + N (flow(y0 | c) - y0),    y0 = N^-1 (z0 - m),

so that a flow that stands still changes no bit of it. Factors that are missing are the Gaussian's
to widen; the flow sees null tokens for them. A missing sex is drawn first, by the Gaussians'
weights.

With guidance of strength g both go beyond (g > 1) or stay behind (g < 1) what the factors say: the
Gaussian by its mean, see ``targets.guided_prior``, the flow by its speed,
``b(unknown) + g (b(c) - b(unknown))``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.flow.network import END, LatentFlow
from cardiogen.models.protocol import CONDITION_COLUMNS
from cardiogen.ops.threads import one_thread

SEX = CONDITION_COLUMNS.index("sex")
_FINE = 32  # steps of a density


@dataclass(frozen=True, eq=False)
class FlowPrior:
    """``LatentDistribution`` that a flow makes of a Gaussian prior.

    Mean and covariance are the Gaussian's: what is observed is weighed against them, and how far a
    heart lies from others is measured by them. Draws and densities are the flow's.

    Attributes:
        gaussian: ``ConditionalGaussian.prior`` of the factors, moved by guidance if there is any.
        flow: finished.
        condition: the factors ``(5,)``, NaN where unknown.
        strength: g.
    """

    gaussian: GaussianMixture
    flow: LatentFlow
    condition: Tensor
    strength: float = 1.0

    @property
    def mean(self) -> Tensor:
        """Mean of the Gaussian ``(Z,)``."""
        return self.gaussian.mean

    @property
    def covariance(self) -> Tensor:
        """Covariance of the Gaussian ``(Z, Z)``."""
        return self.gaussian.covariance

    def guided(self, gaussian: GaussianMixture, strength: float) -> FlowPrior:
        """Return the prior with a flow of some strength on a Gaussian that has it already."""
        return replace(self, gaussian=gaussian, strength=strength)

    @torch.no_grad()
    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one latent ``(Z,)``: the Gaussian's draw of this generator, moved."""
        chosen, start = self.gaussian.draw(generator)
        noise = whitened(self.gaussian, chosen, start[None])
        speed = partial(self._speed, chosen)
        steps = int(self.flow.steps)
        point, step = noise, END / steps
        for k in range(steps):
            first = speed(point, k * step)
            point = point + step / 2 * (first + speed(point + step * first, (k + 1) * step))
        # einsum without BLAS: the same bits for any number of threads.
        moved = np.einsum("zy,y->z", self._root(chosen).numpy(), (point - noise)[0].numpy())

        return start + torch.from_numpy(moved)

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the log density of latents ``(..., Z)``, ``(...)``.

        It is the Gaussian's where the latent came from, less the divergence of the speed along
        the way (Chen et al., NeurIPS 2018), all in 32 steps.
        """
        points = latent.reshape(-1, latent.shape[-1])
        parts = []
        for k, (mean, factor) in enumerate(
            zip(self.gaussian.means, self.gaussian.factors, strict=True)
        ):
            start, growth = self._back(k, whitened(self.gaussian, k, points))
            alone = GaussianMixture(torch.ones_like(mean[:1]), mean[None], factor[None])
            parts.append(alone.log_prob(mean + start @ self._root(k).mT) - growth)
        logs = torch.stack(parts, dim=-1) + self.gaussian.weights.log()

        return torch.logsumexp(logs, dim=-1).reshape(latent.shape[:-1])

    def _root(self, chosen: int) -> Tensor:
        return self.gaussian.factors[chosen, :, : self.gaussian.factors.shape[1]]

    def _speed(self, chosen: int, points: Tensor, angle: float) -> Tensor:
        """Return the guided speed ``(B, Z)`` of points ``(B, Z)`` of one of the Gaussians."""
        angles = points.new_full((len(points),), angle)
        told, blank = self.condition.clone(), torch.full_like(self.condition, torch.nan)
        if told[SEX].isnan():
            told[SEX] = blank[SEX] = float(chosen)
        speed = self.flow(points, angles, told.expand(len(points), -1))
        if self.strength == 1.0:
            return speed
        untold = self.flow(points, angles, blank.expand(len(points), -1))

        return untold + self.strength * (speed - untold)

    def _back(self, chosen: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return where points ``(B, Z)`` came from, and the log of how much space grew since."""

        def of_one(point: Tensor, angle: float) -> tuple[Tensor, Tensor]:
            speed = self._speed(chosen, point[None], angle)[0]
            return speed, speed

        slopes = torch.vmap(torch.func.jacrev(of_one, has_aux=True), in_dims=(0, None))
        step, growth = END / _FINE, points.new_zeros(len(points))
        for k in reversed(range(_FINE)):
            half = points - step / 2 * self._speed(chosen, points, (k + 1) * step)
            jacobian, speed = slopes(half, (k + 0.5) * step)
            points = points - step * speed
            growth = growth + step * jacobian.diagonal(dim1=-2, dim2=-1).sum(dim=-1)

        return points, growth


def whitened(gaussian: GaussianMixture, chosen: int, latents: Tensor) -> Tensor:
    """Return ``N^-1 (z - m)`` ``(B, Z)`` of latents ``(B, Z)`` for one of the Gaussians."""
    factor, away = gaussian.factors[chosen], latents - gaussian.means[chosen]
    root = factor[:, : len(factor)]

    # The bits of this solution would depend on the number of threads.
    with one_thread():
        return torch.linalg.solve(root, away.mT).mT
