"""What keeps training with an adversary from going wrong: a steady teacher, a ramp, a watch.

A consistency term can talk a network out of a small class: predicting nothing of it is consistent.
``CollapseMonitor`` sees that in the labelled batches and takes the term away until the class is
back.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from augment.model_state import kept_buffers, own_randomness


class EmaReference(nn.Module):
    """A teacher whose weights are the moving average of a network's (Tarvainen and Valpola, 2017).

    Its prediction on the unchanged image is the reference: it follows no single bad step.

    Args:
        network: to copy; a distributed one is unwrapped.
        decay: of the average, reached after about ``10 / (1 - decay)`` updates: early on the
            average follows quickly, as the first weights are worth nothing.
    """

    def __init__(self, network: nn.Module, *, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        super().__init__()
        self.decay = decay
        # With the weights, so that what stores a module's tensors stores the whole teacher.
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.teacher = copy.deepcopy(_bare(network)).eval().requires_grad_(False)

    @property
    def updates(self) -> int:
        """How often the teacher was moved."""
        return int(self.count)

    def train(self, mode: bool = True) -> EmaReference:
        """Stay in evaluation mode: a teacher does not train."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the teacher towards the network, after a step of its optimizer."""
        self.count += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        theirs = _bare(network)
        for mine, new in zip(self.teacher.parameters(), theirs.parameters(), strict=True):
            mine.lerp_(new.detach().to(mine), 1 - decay)
        for mine, new in zip(self.teacher.buffers(), theirs.buffers(), strict=True):
            mine.copy_(new)

    @torch.no_grad()
    def forward(self, image: Tensor) -> object:
        """Return the teacher's output: the ``reference`` of ``Adversary.consistency_loss``."""
        # Dropout sleeps in eval mode; layers that draw in it too must not touch global state.
        with own_randomness(image.device, self.updates), kept_buffers(self.teacher):
            return self.teacher(image)

    def state(self) -> dict[str, Tensor]:
        """Return everything to store: the teacher's tensors and the number of updates."""
        return {**self.teacher.state_dict(), "ema.updates": torch.tensor(self.updates)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a stored state."""
        self.count.fill_(int(state["ema.updates"]))
        self.teacher.load_state_dict({n: t for n, t in state.items() if n != "ema.updates"})


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """Weight of a term over training: 0 at first, then rising, then constant.

    Predictions of an untrained network are no reference.

    Attributes:
        weight: after the rise.
        start: steps before it.
        length: steps of it.
        shape: ``linear``, or ``sigmoid`` for ``exp(-5 (1 - t)^2)`` (Laine and Aila, ICLR 2017).
    """

    weight: float = 1.0
    start: int = 0
    length: int = 0
    shape: Literal["linear", "sigmoid"] = "linear"

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight must be finite and not negative, got {self.weight}")
        if self.start < 0 or self.length < 0:
            raise ValueError(
                f"start and length must not be negative, got {self.start} and {self.length}"
            )
        if self.shape not in ("linear", "sigmoid"):
            raise ValueError(f"shape must be linear or sigmoid, got {self.shape!r}")

    def at(self, step: int) -> float:
        """Return the weight at a step, from 0."""
        if step < self.start:
            return 0.0
        if step >= self.start + self.length:
            return self.weight
        share = (step - self.start) / self.length
        if self.shape == "linear":
            return self.weight * share

        return self.weight * float(torch.exp(torch.tensor(-5.0 * (1 - share) ** 2)))


@dataclass(kw_only=True)
class CollapseMonitor:
    """Watches how much of every labelled class a network still finds.

    The recall ``<p_k, y_k> / <1, y_k>`` of clean labelled batches is averaged over batches. Below
    ``least`` a class counts as collapsed, until it is above ``recovered`` again. Predictions that
    are not finite find nothing: a network that has come to give NaN has lost every class.

    Attributes:
        least: recall below which a class is collapsed.
        recovered: recall above which it is back.
        decay: of the average.
        patience: labelled batches with a class before it is judged.
        collapsed: classes that are collapsed now.
        recall: average by class ``(K,)``, NaN where a class has not been seen; None at first.
        seen: labelled batches with each class ``(K,)``.
    """

    least: float = 0.1
    recovered: float = 0.25
    decay: float = 0.9
    patience: int = 10
    collapsed: set[int] = field(default_factory=set)
    recall: Tensor | None = None
    seen: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.recovered <= 1 or not 0 <= self.decay < 1:
            raise ValueError(
                "least, recovered and decay must satisfy 0 <= least <= recovered <= 1 and "
                f"0 <= decay < 1, got {self.least}, {self.recovered} and {self.decay}"
            )
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}")

    @torch.no_grad()
    def update(self, probs: Tensor, one_hot: Tensor) -> None:
        """Look at a clean labelled batch.

        Args:
            probs: the network's ``(B, K, *S)``.
            one_hot: labels ``(B, K, *S)``.
        """
        self.add(*found_and_there(probs, one_hot))

    def add(self, found: Tensor, there: Tensor) -> None:
        """Look at a batch by its sums; see ``found_and_there``.

        Args:
            found: ``<p_k, y_k>``, or any multiple of it, ``(K,)``.
            there: ``<1, y_k>``, the same multiple, ``(K,)``; 0 for a class that is not there.

        Raises:
            ValueError: for labels that are not finite or negative, and another number of classes.
        """
        found, there = found.detach().float().cpu(), there.detach().float().cpu()
        if self.recall is None:
            self.recall = torch.full_like(found, float("nan"))
            self.seen = torch.zeros_like(found)
        if not found.shape == there.shape == self.recall.shape:
            raise ValueError(
                f"found and there must be ({len(self.recall)},), got {tuple(found.shape)} and "
                f"{tuple(there.shape)}"
            )
        if not ((there >= 0) & there.isfinite()).all():
            raise ValueError(f"labels must be finite and not negative, got sums {there.tolist()}")
        labelled = there > 0
        # NaN would fail every comparison below, and so never count as collapsed.
        new = torch.where(found.isfinite(), found, 0.0) / there.where(labelled, 1.0)
        old = torch.where(self.seen > 0, self.recall, new)
        average = self.decay * old + (1 - self.decay) * new
        self.recall = torch.where(labelled, average, self.recall)
        self.seen = self.seen + labelled
        self._judge()

    def weight(self) -> float:
        """Return the factor of the consistency term: 0 while any class is collapsed, else 1."""
        return 0.0 if self.collapsed else 1.0

    def _judge(self) -> None:
        for number, (recall, seen) in enumerate(
            zip(self.recall.tolist(), self.seen.tolist(), strict=True)
        ):
            if seen >= self.patience and recall < self.least:
                self.collapsed.add(number)
            elif recall >= self.recovered:
                self.collapsed.discard(number)


@torch.no_grad()
def found_and_there(probs: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums ``<p_k, y_k>`` and ``<1, y_k>`` of a batch, both ``(K,)`` float32.

    Voxels whose probability is not finite are not found.

    Args:
        probs: of a network ``(B, K, *S)``.
        one_hot: labels, or shares of classes, ``(B, K, *S)``.
    """
    if probs.shape != one_hot.shape:
        raise ValueError(
            f"one_hot must have the shape of probs, {tuple(probs.shape)}, "
            f"got {tuple(one_hot.shape)}"
        )
    axes = [0, *range(2, probs.ndim)]
    # NaN times 0 is NaN: one such voxel anywhere would spoil the sums of all classes.
    found = torch.where(probs.isfinite(), probs, 0.0).float() * one_hot.float()
    return found.sum(dim=axes), one_hot.float().sum(dim=axes)


def _bare(network: nn.Module) -> nn.Module:
    """Return what a distributed wrapper wraps."""
    wrapped = isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel)

    return network.module if wrapped else network
