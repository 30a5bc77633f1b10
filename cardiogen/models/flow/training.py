"""Training a latent flow on the latents of hearts whose factors are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import keyed_rng
from cardiogen.data.factors import Factors
from cardiogen.engine.config import FlowConfig
from cardiogen.engine.fit import FitConfig, StepInfo, fit, keyed_generator
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.flow.network import END, LatentFlow, new_flow
from cardiogen.models.flow.prior import SEX, whitened
from cardiogen.models.protocol import CONDITION_COLUMNS, encode_condition

Array = NDArray[np.float64]

_ROWS = 4  # of every heart: all factors known, none, and twice any of them
_HIDDEN = 0.25  # how often the network is not told the sex; a missing one is drawn before it asks
_HELD_OUT = 10  # every tenth heart tells when to stop
_JUDGED = 8  # angles and draws that a held-out row is judged at


class FlowExamples(NamedTuple):
    """Hearts as the flow sees them, given some of their factors.

    Attributes:
        latents: y ``(R, Z)`` of the hearts.
        spread: ``N^-1 G`` ``(R, Z, 4)``: draws of the Gaussian are ``e + N^-1 G r``.
        conditions: what is known ``(R, 5)``; the sex always is.
    """

    latents: Tensor
    spread: Tensor
    conditions: Tensor

    def rows(self, rows: slice | list[int] | Tensor) -> FlowExamples:
        """Return some of the rows."""
        return FlowExamples(*(part[rows] for part in self))


def fit_flow(
    gaussian: ConditionalGaussian,
    latents: Array,
    subjects: Sequence[Factors],
    config: FlowConfig,
    *,
    seed: int = 0,
) -> LatentFlow | None:
    """Train a flow from the Gaussian fitted to latents to these latents.

    Every tenth heart is held out, and the weights kept that tell its speed best.

    Args:
        gaussian: from ``fit_conditional`` of the same latents.
        latents: ``(N, Z)``.
        subjects: their factors, all known.
        config: see ``engine.config``.
        seed: same seed, same flow.

    Returns:
        The flow, finished; None unless it tells held-out hearts better than standing still does,
        by two standard errors.
    """
    examples = flow_examples(gaussian, latents, subjects, seed=seed)
    known = torch.stack([encode_condition(f) for f in subjects])
    flow = new_flow(
        known.mean(dim=0), known.std(dim=0), latents=latents.shape[1], width=config.width,
        steps=config.steps, seed=seed,
    )  # fmt: skip
    settings = FitConfig(
        steps=config.updates, batch_size=256, learning_rate=3e-3, warmup_steps=100,
        weight_decay=0.3, ema_decay=0.99, validate_every=100, keep_best=True, seed=seed,
    )  # fmt: skip
    fitted = fit(FlowTask(flow, examples), settings, device="cpu", description="training flow")
    best = min(fitted.validation, key=lambda row: row["loss"])

    return flow.finished() if best["gain"] > 2 * best["gain_error"] else None


def flow_examples(
    gaussian: ConditionalGaussian, latents: Array, subjects: Sequence[Factors], *, seed: int
) -> FlowExamples:
    """Return four rows for every heart, which know all, none, and twice any of its factors."""
    found = []
    for k, (latent, factors) in enumerate(zip(latents, subjects, strict=True)):
        shown = keyed_rng(seed, "flow/known", k).random((_ROWS, len(CONDITION_COLUMNS))) < 0.5
        shown[0], shown[1] = True, False
        shown[:, SEX] = True
        for known in torch.from_numpy(shown):
            condition = encode_condition(factors).where(known, torch.nan)
            prior = gaussian.prior(condition)
            # A column of G is what a draw is away from the mean.
            draws = prior.means[0] + prior.factors[0, :, len(latent) :].mT
            rows = whitened(prior, 0, torch.cat([torch.from_numpy(latent)[None], draws]))
            found.append((rows[0], rows[1:].mT, condition))
    whole = FlowExamples(*(torch.stack(part) for part in zip(*found, strict=True)))

    return FlowExamples(whole.latents.float(), whole.spread.float(), whole.conditions)


class FlowTask:
    """``ValidatedTask`` of engine.fit: the mean squared error of the speed, per latent."""

    def __init__(self, flow: LatentFlow, examples: FlowExamples) -> None:
        self.module: torch.nn.Module = flow
        held = torch.arange(len(examples.latents)) // _ROWS % _HELD_OUT == _HELD_OUT - 1
        self._examples, self._held_out = examples.rows(~held), examples.rows(held)

    def __len__(self) -> int:
        return len(self._examples.latents)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> FlowExamples:
        """Return examples, of some of which the sex is hidden."""
        found = self._examples.rows(list(indices))
        hidden = torch.rand(len(found.latents), generator=generator) < _HIDDEN
        conditions = found.conditions.clone()
        conditions[hidden, SEX] = torch.nan

        return found._replace(conditions=conditions)

    def loss(
        self, batch: FlowExamples, *, step: StepInfo, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """Return the error of the speed at random angles."""
        del step
        error, _ = _errors(self.module, batch, generator)

        return {"loss": error.mean()}

    def validate(self, module: torch.nn.Module) -> Mapping[str, float]:
        """Return the error on held-out hearts, and how much larger that of standing still is."""
        generator = keyed_generator(0, "flow/validate", 0)
        judged = [_errors(module, self._held_out, generator) for _ in range(_JUDGED)]
        error, still = torch.stack([torch.stack(pair) for pair in judged]).double().mean(dim=0)
        gains = (still - error).view(-1, _ROWS).mean(dim=1)

        return {
            "loss": float(error.mean()),
            "gain": float(gains.mean()),
            "gain_error": float(gains.std() / len(gains) ** 0.5),
        }


def _errors(
    module: torch.nn.Module, examples: FlowExamples, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the mean squared error ``(R,)`` of a flow's speed, and that of none."""
    latents, spread, conditions = examples
    angles = END * torch.rand(len(latents), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    unknown = torch.randn(len(spread), spread.shape[2], generator=generator)
    start = noise + (spread @ unknown[..., None])[..., 0]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    target = cos * latents - sin * start
    error = module(cos * start + sin * latents, angles, conditions) - target

    return error.square().mean(dim=1), target.square().mean(dim=1)
