"""What a network returns as probabilities: one head or several, classes or regions.

Convention: an output adapter takes whatever the network returns and gives ``Head``s, the most
important first. ``exclusive`` heads have channels that sum to one, background first; regions are
channels that may overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """Probabilities of one output.

    Attributes:
        probs: ``(B, K, *S)``, on the lattice of the image or on a coarser one of the same field of
            view.
        exclusive: whether channels exclude each other.
        weight: share in losses.
    """

    probs: Tensor
    exclusive: bool = True
    weight: float = 1.0

    def detached(self) -> Head:
        """Return the head without gradients."""
        return Head(probs=self.probs.detach(), exclusive=self.exclusive, weight=self.weight)

    def part(self, index: Tensor) -> Head:
        """Return the head of some of the samples, given by their numbers."""
        return Head(probs=self.probs[index], exclusive=self.exclusive, weight=self.weight)


OutputAdapter = Callable[[object], Sequence[Head]]


def softmax_output(output: object) -> list[Head]:
    """Take logits ``(B, K, *S)`` of classes that exclude each other; of a list, the first."""
    logits = _first(output)
    if logits.shape[1] < 2:
        raise ValueError(
            f"output must have at least 2 channels for a softmax, got {logits.shape[1]}; use "
            "sigmoid_output for a single region"
        )
    return [Head(probs=_wide(logits).softmax(dim=1))]


def sigmoid_output(output: object) -> list[Head]:
    """Take logits ``(B, K, *S)`` of regions that may overlap; of a list, the first."""
    return [Head(probs=_wide(_first(output)).sigmoid(), exclusive=False)]


@dataclass(frozen=True, kw_only=True)
class DeepSupervision:
    """Take a list of outputs, finest first, each with a weight; those of weight 0 are left out.

    Attributes:
        weights: of the outputs; missing ones count as 0.
        one: adapter of each output.
    """

    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    one: OutputAdapter = softmax_output

    def __call__(self, output: object) -> list[Head]:
        """Return the heads of all outputs that have a weight."""
        if not isinstance(output, list | tuple):
            raise ValueError(f"output must be a list of tensors, got {type(output).__name__}")

        return [
            Head(probs=head.probs, exclusive=head.exclusive, weight=weight * head.weight)
            for part, weight in zip(output, self.weights, strict=False)
            if weight > 0
            for head in self.one(part)
        ]


@dataclass(frozen=True, kw_only=True)
class MultiHead:
    """Take a mapping of outputs by name; what is not named here is left out.

    Attributes:
        heads: name of the output and its adapter.
    """

    heads: Mapping[str, OutputAdapter]

    def __call__(self, output: object) -> list[Head]:
        """Return the heads of all named outputs."""
        if not isinstance(output, Mapping) or not set(self.heads) <= set(output):
            names = sorted(output) if isinstance(output, Mapping) else type(output).__name__
            raise ValueError(f"output must be a mapping with {sorted(self.heads)}, got {names}")

        return [head for name, adapt in self.heads.items() for head in adapt(output[name])]


def label_heads(one_hot: Tensor, *, exclusive: bool = True) -> list[Head]:
    """Return labels as a head, to be the reference of a supervised consistency."""
    return [Head(probs=one_hot.detach(), exclusive=exclusive)]


def _first(output: object) -> Tensor:
    found = output[0] if isinstance(output, list | tuple) else output
    if not isinstance(found, Tensor):
        raise ValueError(
            f"output must be a tensor or a list of tensors, got {type(found).__name__}; give an "
            "output adapter"
        )
    return found


def _wide(logits: Tensor) -> Tensor:
    # Half precision rounds probabilities of a thousandth.
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
