"""The speed at which a Gaussian prior flows to what latents really are.

Along ``w(a) = cos(a) e + sin(a) y``, from a draw e of the Gaussian at angle 0 to a latent y at
pi / 2, points move at ``cos(a) y - sin(a) e``. A flow at their mean speed,

    dw / da = b(w, a, c) = E[cos(a) y - sin(a) e | w, c],

carries the law of e to that of y (Albergo and Vanden-Eijnden, ICLR 2023). It is the rectified flow
of Liu et al. (ICLR 2023), whose point ``(1 - t) e + t y`` is w times ``sqrt(t^2 + (1 - t)^2)``.
On the circle the spread stays that of the Gaussian: where latents are Gaussian nothing flows,
b = 0, in any number of steps, and all that is learned is what the Gaussian lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from cardiogen.engine.fit import keyed_layers
from cardiogen.models.protocol import CONDITION_COLUMNS
from cardiogen.nn import ConditionEmbedding

END = math.pi / 2
_BLOCKS, _WAVES = 2, 4
_MOST_STEPS, _WIDEST = 8, 1024
_NEAREST = 1e-2
_FASTEST = 100.0  # SDs
_PREFIX = "flow."


class Block(nn.Module):
    """``x + W2 silu(W1 ((1 + s) norm(x) + h) + b1) + b2``, s and h linear in a code (AdaLN)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.code = nn.Linear(width, 2 * width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)

    def forward(self, hidden: Tensor, code: Tensor) -> Tensor:
        """Return ``(B, W)`` of ``(B, W)`` and its code ``(B, W)``."""
        scale, shift = self.code(code).chunk(2, dim=-1)
        told = (1 + scale) * self.norm(hidden) + shift

        return hidden + self.second(functional.silu(self.first(told)))


class LatentFlow(nn.Module):
    """The speed ``b(w, a, c) = S w + h``; zero until it is trained.

    Diagonal S and the last layer's h follow angle, factors and ``|w|``.

    Args:
        center, scale: mean and SD of every factor, ``(5,)``.
        latents: Z.
        width: W of the hidden layers.
        steps: of Heun's method in a draw, 1 to 8.
    """

    def __init__(
        self, center: ArrayLike, scale: ArrayLike, *, latents: int, width: int, steps: int
    ) -> None:
        super().__init__()
        self.embedding = ConditionEmbedding(center, scale, width=width)
        self.state = nn.Linear(2 * _WAVES + 1, width)
        self.mix = nn.Linear(width, width)
        self.enter = nn.Linear(latents, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(_BLOCKS))
        self.stretch = nn.Linear(width, latents)
        self.leave = nn.Linear(width, latents)
        for last in (self.stretch, self.leave):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.register_buffer("steps", torch.tensor([float(steps)]))

    def forward(self, points: Tensor, angles: Tensor, condition: Tensor) -> Tensor:
        """Return the speed ``(B, Z)``.

        Args:
            points: w ``(B, Z)``.
            angles: a ``(B,)``, from 0 to pi / 2.
            condition: ``(B, 5)``, NaN where unknown: null tokens stand there.
        """
        numbers = torch.arange(1, _WAVES + 1, dtype=angles.dtype, device=angles.device)
        waves = angles[:, None] * numbers
        # Hearts that are unusual in some latents are so in others; norms would hide how unusual.
        far = points.square().mean(dim=-1, keepdim=True).add(_NEAREST).log()
        far = math.sqrt(points.shape[-1] / 2) * far  # noise lies within one of its SDs of zero
        state = self.state(torch.cat([waves.cos(), waves.sin(), far], dim=-1))
        code = functional.silu(self.mix(functional.silu(self.embedding(condition) + state)))
        hidden = self.enter(points)
        for block in self.blocks:
            hidden = block(hidden, code)

        return self.stretch(code) * points + self.leave(hidden)

    def require_sound(self) -> None:
        """Refuse (ValueError) a number of steps that is none, or weights that lead nowhere."""
        steps = float(self.steps)
        if steps not in range(1, _MOST_STEPS + 1):
            raise ValueError(f"a flow of {steps:g} steps, not 1 to {_MOST_STEPS}")
        center = self.embedding.center.double()
        if not bool((self.embedding.scale > 0).all()):
            raise ValueError("a flow with a scale that is not positive")
        told = torch.stack([center, torch.full_like(center, torch.nan)])
        start = self.leave.bias.new_zeros(2, len(self.leave.bias))
        if not bool((self(start, start[:, 0], told).abs() < _FASTEST).all()):
            raise ValueError("a flow that leads away from all hearts")

    def tensors(self) -> dict[str, NDArray]:
        """Return everything that was learned, by name."""
        return {_PREFIX + name: tensor.numpy() for name, tensor in self.state_dict().items()}

    @staticmethod
    def names(tensors: Iterable[str]) -> tuple[str, ...]:
        """Names that the tensors of a flow must have; none if none of the given is one's."""
        if not any(name.startswith(_PREFIX) for name in tensors):
            return ()
        return tuple(_PREFIX + name for name in _blank(1, 1).state_dict())

    @classmethod
    def shapes(cls, tensors: Mapping[str, NDArray], *, latents: int) -> dict[str, tuple[int, ...]]:
        """Return the shape that every tensor of a flow among these must have."""
        if not cls.names(tensors):
            return {}
        blank = _blank(latents, np.size(tensors[f"{_PREFIX}embedding.bias"]))

        return {_PREFIX + name: tuple(part.shape) for name, part in blank.state_dict().items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray]) -> LatentFlow | None:
        """Return the flow among named tensors, if there is one; the reverse of ``tensors``."""
        names = cls.names(tensors)
        if not names:
            return None
        latents, width = tensors[f"{_PREFIX}leave.weight"].shape
        flow = _blank(latents, width)
        flow.load_state_dict(
            {n.removeprefix(_PREFIX): torch.from_numpy(np.array(tensors[n])) for n in names}
        )

        return flow.finished()

    def finished(self) -> LatentFlow:
        """Return the flow itself, float64 and without gradients, to draw with."""
        return self.double().eval().requires_grad_(False)


def new_flow(
    center: ArrayLike, scale: ArrayLike, *, latents: int, width: int, steps: int, seed: int
) -> LatentFlow:
    """Return an untrained flow, its first weights a function of the seed; see ``LatentFlow``."""
    with keyed_layers(seed, "flow/init"):
        return LatentFlow(center, scale, latents=latents, width=width, steps=steps)


def _blank(latents: int, width: int) -> LatentFlow:
    """Return a flow that waits for its weights."""
    if not 1 <= width <= _WIDEST:
        raise ValueError(f"a flow of width {width}, not 1 to {_WIDEST}")
    count = len(CONDITION_COLUMNS)

    return new_flow(np.zeros(count), np.ones(count), latents=latents, width=width, steps=1, seed=0)
