"""The terms of ageing: critics of latents and images, an age regressor, and the way back.

With x a heart of condition c, z ~ q(z | x, c), and c' the condition at a target age drawn evenly
from the training range, x' = G(z, c'):

- latent adversary: a critic tells (z, c) from (e, c), e ~ N(0, I); the encoder learns that it
  cannot, so that z holds nothing of age;
- image adversary: a critic tells (x, c) from (x', c');
- age consistency: ``(A(x') - age')^2`` with the regressor A of continuous age, which learns from
  real hearts alone: trained on generated ones it could agree on a code with the decoder;
- cycle: the label losses of ``G(E(x', c'), c)`` against x.

z is never detached: every term reaches the encoder. Both players of a game share one total; the
generator's side sits before a gradient reversal, so that the critics minimize what it maximizes.
Reference: Qiao et al., STACOM 2022 (arXiv 2208.13146), whose age groups are continuous here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cardiogen.models.protocol import CONDITION_COLUMNS
from cardiogen.models.volume.config import VolumeConfig
from cardiogen.models.voxel import CLASSES, Slots
from cardiogen.nn import SLOPE, VoxelEncoder, reverse_gradient

AGE = CONDITION_COLUMNS.index("age")
# Soft probabilities differ from one-hot maps everywhere; noise on both hides that from the critic.
_CRITIC_NOISE = 0.2


class ImageScore(nn.Module):
    """A number of a volume and what else is known."""

    def __init__(self, config: VolumeConfig, given: int) -> None:
        super().__init__()
        count = CLASSES * len(Slots(config.frames))
        self.encoder = VoxelEncoder(count, shape=config.shape, widths=config.widths)
        self.head = nn.Linear(self.encoder.size + given, 1)

    def forward(self, hot: Tensor, given: Tensor) -> Tensor:
        """Return scores ``(B,)`` of volumes ``(B, T * 4, D, H, W)`` and ``(B, given)``."""
        return self.head(torch.cat([self.encoder(hot), given], dim=1))[:, 0]


class AgeingHeads(nn.Module):
    """Critics and age regressor; those whose weight is 0 are not made."""

    def __init__(self, config: VolumeConfig) -> None:
        super().__init__()
        width, given = config.ageing.width, 2 * len(CONDITION_COLUMNS)
        self.latent_critic = self.image_critic = self.regressor = None
        if config.ageing.latent_adversary:
            self.latent_critic = nn.Sequential(
                nn.Linear(config.latent + given, width), nn.LeakyReLU(SLOPE),
                nn.Linear(width, width), nn.LeakyReLU(SLOPE), nn.Linear(width, 1),
            )  # fmt: skip
        if config.ageing.image_adversary:
            self.image_critic = ImageScore(config, given)
        if config.ageing.age_consistency:
            self.regressor = ImageScore(config, 0)


def known_factors(standard: Tensor) -> Tensor:
    """Return standardized factors ``(B, K)`` with 0 for NaN, and which are known: ``(B, 2 K)``."""
    missing = torch.isnan(standard)
    return torch.cat([standard.nan_to_num(), (~missing).to(standard)], dim=1)


def latent_adversary(
    critic: nn.Module, z: Tensor, given: Tensor, *, weight: float, generator: torch.Generator
) -> Tensor:
    """Return the critic's cross-entropy, nats; z gets its gradient times ``-weight``."""
    drawn = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    hidden = torch.cat([reverse_gradient(z, weight=weight), given], dim=1)
    encoded, prior = critic(hidden), critic(torch.cat([drawn, given], dim=1))
    return _game(prior, encoded)


def image_adversary(
    critic: ImageScore,
    real: Tensor,
    fake: Tensor,
    given: Tensor,
    target: Tensor,
    *,
    weight: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the critic's cross-entropy, nats; ``fake`` gets its gradient times ``-weight``.

    Args:
        critic: scores volumes.
        real: one-hot ``(B, T * 4, D, H, W)`` of condition ``given``.
        fake: probabilities of condition ``target``.
        given, target: see ``known_factors``.
        weight: of the reversal.
        generator: for the noise on both.
    """

    def blurred(hot: Tensor) -> Tensor:
        noise = torch.randn(hot.shape, generator=generator, device=hot.device, dtype=hot.dtype)
        return hot + _CRITIC_NOISE * noise

    fakes = critic(blurred(reverse_gradient(fake, weight=weight)), target)
    return _game(critic(blurred(real), given), fakes)


def age_regression(regressor: ImageScore, real: Tensor, age: Tensor) -> Tensor:
    """Return the squared error of the regressor on real hearts, in SDs of age squared.

    Args:
        regressor: of age.
        real: one-hot ``(B, T * 4, D, H, W)``.
        age: standardized ``(B,)``; NaN where unknown, which does not count.
    """
    return _mean_known((_age(regressor(real, real.new_zeros(len(real), 0))) - age).square())


def age_consistency(regressor: ImageScore, fake: Tensor, age: Tensor) -> Tensor:
    """Return the squared error of generated hearts; the regressor itself learns nothing here."""
    frozen = {name: p.detach() for name, p in regressor.named_parameters()}
    found = functional_call(regressor, frozen, (fake, fake.new_zeros(len(fake), 0)))
    return _mean_known((_age(found) - age).square())


def at_age(condition: Tensor, age: Tensor) -> Tensor:
    """Return conditions ``(B, 5)`` with another age ``(B,)``, years."""
    aged = condition.clone()
    aged[:, AGE] = age.to(condition)
    return aged


def _age(score: Tensor) -> Tensor:
    return score.float()


def _mean_known(values: Tensor) -> Tensor:
    known = ~torch.isnan(values)
    return torch.where(known, values, 0.0).sum() / known.sum().clamp(min=1)


def _game(real: Tensor, fake: Tensor) -> Tensor:
    """Return ``-E ln s(real) - E ln (1 - s(fake))``, s the logistic function."""
    return functional.softplus(-real.float()).mean() + functional.softplus(fake.float()).mean()
