"""The search itself: guarded passes of a network, gradients by parameters, keep the best.

Whatever is asked of a network here, it is left as it was: see ``model_state``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from augment.ascent import Ascent, Climber
from augment.chain import Applied, Chain, Draw, placed
from augment.lattice import Lattice
from augment.model_state import (
    Buffers,
    frozen_parameters,
    kept_buffers,
    own_randomness,
    without_sync,
)
from cardiogen.ops import Padding

Network = Callable[[Tensor], object]
Objective = Callable[[object, Applied], Tensor]
Statistics = Literal["frozen", "shared", "separate"]

# Keeps gradients of small losses above what fp16 can hold; directions do not see it.
_FP16_SCALE = 2.0**12


@dataclass(frozen=True, eq=False)
class Pass:
    """What a network made of a changed image.

    Attributes:
        draw: the change.
        applied: the changed image.
        output: what the network returned.
        losses: ``(B,)`` or ``()``.
    """

    draw: Draw
    applied: Applied
    output: object
    losses: Tensor


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Attributes:
        draw: parameters after the last step, not evaluated yet.
        start: the random ones it started from.
        start_losses: theirs, ``(B,)`` or ``()``; None if nothing was evaluated.
        best: the hardest evaluated ones.
        best_losses: theirs; None if nothing was evaluated.
    """

    draw: Draw
    start: Draw
    start_losses: Tensor | None
    best: Draw
    best_losses: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Passes:
    """Passes of one network on changed versions of one batch.

    Attributes:
        network: module, or any function of an image.
        image: ``(B, C, *S)``.
        objective: losses of an output on a changed image.
        padding: what lies outside of images.
        seed: of the network's own randomness, the same in all passes: a search among moving
            targets would compare dropout masks.
        statistics: see ``Adversary``.
        own: running statistics of changed images, for ``separate``.
    """

    network: Network
    image: Tensor
    objective: Objective
    padding: Padding = "border"
    seed: int = 0
    statistics: Statistics = "frozen"
    own: Buffers = field(default_factory=dict)

    @property
    def module(self) -> nn.Module | None:
        """The network, if it is one that has a state."""
        return self.network if isinstance(self.network, nn.Module) else None

    @property
    def distributed(self) -> bool:
        """Whether ranks train the network together."""
        return hasattr(self.module, "no_sync")

    def once(self, draw: Draw) -> Pass:
        """Make a pass, with whatever gradients are asked for."""
        applied = draw.apply(self.image, padding=self.padding)
        output = self.network(applied.image)

        return Pass(draw, applied, output, self.objective(output, applied))

    def losses(self, draw: Draw) -> Tensor:
        """Return the losses of a draw, without gradients."""
        with torch.no_grad():
            return self.once(draw).losses.detach()

    def gradients(self, draw: Draw) -> tuple[Tensor, list[Tensor]]:
        """Return the losses of a draw and their gradients by its free parameters alone."""
        free = [p.free.detach().requires_grad_() for p in draw.params]
        if not free:
            return self.losses(draw), []
        with torch.enable_grad():
            losses = self.once(draw.with_free(free)).losses
            total = losses.sum() * _scale(self.image.device.type)
            if not total.requires_grad:
                return losses.detach(), [torch.zeros_like(f) for f in free]
            # Only the paths to these are computed: no gradient by weights.
            found = torch.autograd.grad(total, free, allow_unused=True)

        return losses.detach(), [
            torch.zeros_like(f) if g is None else g for f, g in zip(free, found, strict=True)
        ]

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Guard passes that nothing is learned from."""
        with (
            self._kept(final=False),
            frozen_parameters(self.module),
            without_sync(self.module),
        ):
            yield

    @contextmanager
    def training(self) -> Iterator[None]:
        """Guard the pass that is learned from."""
        with self._kept(final=True):
            yield

    @contextmanager
    def _kept(self, *, final: bool) -> Iterator[None]:
        own = self.own if self.statistics == "separate" else None
        shared = final and self.statistics == "shared"
        with (
            own_randomness(self.image.device, self.seed),
            kept_buffers(self.module, own=own, learn=final, keep=not shared),
        ):
            yield


def search(
    passes: Passes, chain: Chain, ascent: Ascent, lattice: Lattice, *, generator: torch.Generator
) -> Found:
    """Draw a chain and move its parameters uphill.

    Args:
        passes: network, batch and objective.
        chain: what to draw from.
        ascent: how to climb.
        lattice: of the batch.
        generator: of the draws.
    """
    with passes.searching():
        start, losses = _start(passes, chain, ascent, lattice, generator)
        climber = Climber(ascent)
        current, best, best_losses = start, start, losses
        for _ in range(ascent.steps):
            found, gradients = passes.gradients(climber.probed(current))
            if ascent.method != "power":
                losses = found if losses is None else losses
                best, best_losses = _harder(best, best_losses, current, found)
            with torch.no_grad():
                current = climber.step(current, gradients)
        if ascent.method == "power" and losses is None and ascent.steps:
            # Its gradients were taken elsewhere, so the start itself has not been seen.
            losses = best_losses = passes.losses(start)

    return Found(current, start, losses, best, best_losses)


def hardest_pass(passes: Passes, found: Found, *, trained: bool = True) -> Pass:
    """Make the pass of the last step, unless something easier to find was harder.

    The mean loss of the batch decides: if the last step lost, every sample goes back to its best,
    and if a network that mixes samples makes of that less than the start, to the start.

    Args:
        passes: those of the search.
        found: its result.
        trained: the pass is learned from, so ``statistics`` has a say.
    """
    if passes.distributed and found.best_losses is not None:
        return _guarded(passes, _decided(passes, found), trained)
    result = _guarded(passes, found.draw, trained)
    if found.best_losses is None or not _below(result.losses, found.best_losses):
        return result
    mixed, _ = _harder(found.best, found.best_losses, found.draw, result.losses.detach())
    result = _guarded(passes, mixed, trained)
    if not _below(result.losses, found.start_losses):
        return result

    return _guarded(passes, found.start, trained)


def _decided(passes: Passes, found: Found) -> Draw:
    """Return the draw of the hardest pass, after as many passes on every rank.

    Passes that are learned from exchange buffers, and synchronized norms do in any: ranks that
    make one more than others would wait for them for ever.
    """
    with passes.searching():
        last = passes.losses(found.draw)
        mixed, _ = _harder(found.best, found.best_losses, found.draw, last)
        between = passes.losses(mixed)
    if not _below(last, found.best_losses):
        return found.draw

    return found.start if _below(between, found.start_losses) else mixed


def _guarded(passes: Passes, draw: Draw, trained: bool) -> Pass:
    with passes.training() if trained else passes.searching():
        return passes.once(draw.detached())


def _start(
    passes: Passes, chain: Chain, ascent: Ascent, lattice: Lattice, generator: torch.Generator
) -> tuple[Draw, Tensor | None]:
    """Draw a chain; of several starts, take the hardest for every sample."""
    start = placed(chain.sample(lattice, generator=generator), passes.image)
    if ascent.starts == 1:
        return start, None
    losses = passes.losses(start)
    for _ in range(ascent.starts - 1):
        other = chain.sample_params(start.transforms, lattice, generator=generator)
        other = placed(other, passes.image)
        start, losses = _harder(start, losses, other, passes.losses(other))

    return start, losses


def _harder(
    best: Draw, best_losses: Tensor | None, other: Draw, losses: Tensor
) -> tuple[Draw, Tensor]:
    """Return, for every sample if losses are by sample, the harder of two draws."""
    if best_losses is None:
        return other, losses
    harder = losses > best_losses
    if harder.ndim == 0:
        return (other, losses) if harder else (best, best_losses)

    return other.chosen(best, harder), torch.where(harder, losses, best_losses)


def _below(losses: Tensor, others: Tensor) -> bool:
    return bool(losses.detach().mean() < others.mean())


def _scale(device: str) -> float:
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16

    return _FP16_SCALE if half else 1.0
