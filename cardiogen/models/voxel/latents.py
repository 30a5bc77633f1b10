"""Latents of label models: z given factors, and beside it the code of the condition.

The decoder sees the condition, so a latent vector is (z, code): it decodes by itself, and a heart
is aged by exchanging the code while z, its identity, stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Listing
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.conditional_fit import fit_conditional
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.protocol import CONDITION_COLUMNS, CONDITION_UNITS

Array = NDArray[np.float64]

_PREFIX, _GAUSSIAN = "prior.", "gaussian."
# A range without any value in it: the factor was never known.
_NEVER = (1.0, 0.0)


@dataclass(frozen=True, eq=False)
class CodedLatents:
    """Distribution over (z, code): z is random, the code is known.

    Attributes:
        z: distribution of z.
        code: ``(C,)``.
    """

    z: GaussianMixture
    code: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean latent ``(Z + C,)``."""
        return torch.cat([self.z.mean, self.code])

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one latent ``(Z + C,)``."""
        return torch.cat([self.z.sample(generator), self.code])

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the log density of z of latents ``(..., Z + C)``; the code is not looked at."""
        return self.z.log_prob(latent[..., : self.z.means.shape[1]])


@dataclass(frozen=True, eq=False)
class LatentPrior:
    """p(z | factors) and the range of the factors.

    Attributes:
        size: Z.
        factor_range: least and most of every factor ``(5, 2)``; least above most if never known.
        gaussian: fitted to the latents of the training hearts; None is the standard normal.
    """

    size: int
    factor_range: Array
    gaussian: ConditionalGaussian | None = None

    def z(self, condition: Tensor) -> GaussianMixture:
        """Return p(z | factors) of a condition ``(5,)``, NaN where missing."""
        if self.gaussian is not None:
            return self.gaussian.prior(condition)
        return _gaussian(np.zeros(self.size), np.eye(self.size))

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a factor outside its training range (D01) or an unseen combination (D02)."""
        if self.gaussian is not None:
            self.gaussian.check_condition(condition)
            return
        for name, unit, value, (least, most) in zip(
            CONDITION_COLUMNS, CONDITION_UNITS, condition.tolist(), self.factor_range, strict=True
        ):
            low, high = np.floor(least), np.ceil(most)
            if np.isnan(value) or low <= value <= high:
                continue
            seen = f"{low:.0f} to {high:.0f} {unit}, the range of the training data"
            raise CardiogenError(
                "D01", name, found=f"{value:g} {unit}",
                expected=seen if least <= most else "none: the training data do not have it",
                remedy="a value in that range, or --allow-extrapolation (outputs are marked)"
                if least <= most else "leaving the factor out",
            )  # fmt: skip

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value of every continuous factor that was ever known."""
        spans = zip(CONDITION_COLUMNS, self.factor_range.tolist(), strict=True)
        return {name: span for name, span in spans if name != "sex" and span[0] <= span[1]}

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return everything that is learned, by name."""
        parts = {"factor_range": self.factor_range}
        if self.gaussian is not None:
            names = ConditionalGaussian.names()
            parts |= {_GAUSSIAN + name: getattr(self.gaussian, name) for name in names}
        return {_PREFIX + name: part.astype(np.float32) for name, part in parts.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.float32]], size: int) -> LatentPrior:
        """Return the prior of :meth:`tensors`.

        Raises:
            ValueError: for names or shapes that are not those of a prior of ``size`` latents.
        """
        found = {n.removeprefix(_PREFIX): a.astype(np.float64) for n, a in tensors.items()}
        shapes = {"factor_range": (len(CONDITION_COLUMNS), 2)}
        if fitted := len(found) > 1:
            parts = ConditionalGaussian.shapes(size)
            shapes |= {f"{_GAUSSIAN}{name}": shape for name, shape in parts.items()}
        if {name: a.shape for name, a in found.items()} != shapes:
            raise ValueError(f"tensors must hold a prior of {size} latents, got {sorted(found)}")
        if not fitted:
            return cls(size, found["factor_range"])
        names = ConditionalGaussian.names()
        gaussian = ConditionalGaussian(**{name: found[_GAUSSIAN + name] for name in names})
        gaussian.require_positive()
        return cls(size, found["factor_range"], gaussian)


def fit_prior(latents: Array, subjects: Listing[Factors], conditions: Tensor) -> LatentPrior:
    """Return the prior of latents ``(N, Z)`` drawn from the posteriors of the training hearts.

    A decoder meets what hearts really encode to, not a standard normal that they only nearly
    follow; the Gaussian also keeps what any subset of factors says about z.

    Raises:
        CardiogenError: C28 for too few women or men; C29 for a heart without all factors.
    """
    if torch.isnan(conditions).any():
        missing = int(torch.isnan(conditions).any(dim=1).sum())
        raise CardiogenError(
            "C29", "cohort", found=f"{missing} of {len(subjects)} hearts with a factor missing",
            expected=f"all of {', '.join(CONDITION_COLUMNS)}",
            remedy="a table of factors, or prior = 'standard', which needs none",
        )  # fmt: skip
    gaussian = fit_conditional(latents, subjects)
    # As a bundle keeps it, so that a model just trained and one read back agree bit for bit: the
    # order in memory too, by which sums are taken.
    parts = {f.name: getattr(gaussian, f.name) for f in fields(gaussian)}
    rounded = {n: a.astype(np.float32, order="C").astype(np.float64) for n, a in parts.items()}
    return LatentPrior(
        latents.shape[1], describe_factors(conditions)[2], ConditionalGaussian(**rounded)
    )


def standard_prior(size: int, conditions: Tensor) -> LatentPrior:
    """Return the standard normal, with the range of conditions ``(N, 5)``."""
    return LatentPrior(size, describe_factors(conditions)[2])


def describe_factors(conditions: Tensor) -> tuple[Array, Array, Array]:
    """Return center, scale ``(5,)`` and range ``(5, 2)`` of conditions ``(N, 5)`` with NaN."""
    center, scale = np.zeros(conditions.shape[1]), np.ones(conditions.shape[1])
    limits = np.tile(_NEVER, (conditions.shape[1], 1))
    for k, column in enumerate(conditions.numpy().T):
        known = column[~np.isnan(column)]
        if len(known):
            center[k], limits[k] = known.mean(), (known.min(), known.max())
            scale[k] = known.std() if known.std() > 1e-6 else 1.0
    return center, scale, limits.astype(np.float32).astype(np.float64)


def encoded(mean: Tensor, log_var: Tensor, code: Tensor) -> CodedLatents:
    """Return q(z | x, c) of one heart, mean and log variance ``(Z,)``, beside its code."""
    deviation = torch.exp(0.5 * log_var.double()).numpy()
    return CodedLatents(_gaussian(mean.double().numpy(), np.diag(deviation)), code.double())


def _gaussian(mean: Array, factor: Array) -> GaussianMixture:
    return GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        torch.from_numpy(mean)[None],
        torch.from_numpy(factor)[None],
    )
