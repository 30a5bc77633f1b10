"""The slot for augmentation: how a training uses a batch. All arms of a comparison stand here.

An arm gets a clean batch and the network and returns the losses of a step, so that augmenting,
searching for the worst transform and doing neither are the same to the training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from augment.guards import Ramp
from augment.segmentation.taught import reference_for, student_of
from cardiogen.engine.fit import StepInfo

# Logits of any form that the network gives, and shares of classes, to named means over the batch.
Supervised = Callable[[object, Tensor], dict[str, Tensor]]
# Keeps gradients of small losses above what fp16 can hold; as a power of two it rounds nothing.
_SCALE = 2.0**12
# Image (B, C, *S), shares of classes (B, K, *S) and a generator to an image and shares.
Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


class Batch(NamedTuple):
    """Patches of a step.

    Attributes:
        image: ``(B, C, *S)``.
        target: shares of classes ``(B, K, *S)``, background first.
        to_heart: voxel ``(d, h, w)`` to heart frame (mm), ``(B, 4, 4)`` float64; NaN where that is
            not known. See ``augment.Lattice``.
    """

    image: Tensor
    target: Tensor
    to_heart: Tensor


class Disagreed(NamedTuple):
    """How much a network disagreed with itself.

    Attributes:
        loss: ``()``, with gradients.
        start: what it was before a search ``()``.
        told: numbers for the log that add up over steps, by name; see ``Consistent.tells``.
    """

    loss: Tensor
    start: Tensor
    told: Mapping[str, float] = MappingProxyType({})


# Network, batch, the reference (what the network or its teacher gave for the batch), a generator.
Disagreement = Callable[[nn.Module, Batch, object, torch.Generator], Disagreed]


class Arm(Protocol):
    """What a training does with a batch."""

    def losses(
        self,
        network: nn.Module,
        batch: Batch,
        supervised: Supervised,
        *,
        step: StepInfo,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return named means over the batch; ``"loss"`` is minimized.

        Args:
            network: in training; one that is ``Taught`` brings its teacher.
            batch: patches and their labels.
            supervised: losses of the network's output and its target.
            step: where training stands.
            generator: on the device of the batch; keyed by step.
        """
        ...


@dataclass(frozen=True)
class Plain:
    """No augmentation."""

    def losses(
        self,
        network: nn.Module,
        batch: Batch,
        supervised: Supervised,
        *,
        step: StepInfo,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return the supervised losses of the batch as it is."""
        return supervised(network(batch.image), batch.target)


@dataclass(frozen=True)
class Augmented:
    """Supervised learning with some of every batch augmented, image and labels alike.

    Attributes:
        augmentation: any callable of image, shares of classes and generator.
        share: probability of every example to be augmented.
    """

    augmentation: Augmentation
    share: float = 1.0

    def losses(
        self,
        network: nn.Module,
        batch: Batch,
        supervised: Supervised,
        *,
        step: StepInfo,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return the supervised losses of the augmented batch."""
        batch = self.changed(batch, generator)
        return supervised(network(batch.image), batch.target)

    def changed(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with some of its examples augmented; those have lost their pose."""
        chance = torch.rand(len(batch.image), generator=generator, device=batch.image.device)
        chosen = torch.nonzero(chance < self.share).flatten()
        if not len(chosen):
            return batch
        image, target, to_heart = (part.clone() for part in batch)
        moved, labels = self.augmentation(image[chosen], target[chosen], generator)
        image[chosen], target[chosen] = moved.to(image.dtype), labels.to(target.dtype)
        to_heart[chosen] = float("nan")
        return Batch(image, target, to_heart)


@dataclass(frozen=True)
class Consistent:
    """Supervised learning, and agreement of the network with itself on a transformed batch.

    ``loss = supervised + w(step) * consistency``; the weight rises linearly from 0 over the first
    ``ramp_share`` of the steps, since predictions of an untrained network are no reference.

    Attributes:
        disagreement: of network, batch, the network's output and a generator; what it compares,
            and whether transforms are drawn or searched for, is its matter.
        before: augmentation of the batch that both terms are taken on; None for the clean batch.
        weight: after the rise.
        ramp_share: of all steps.
        every: steps from one such term to the next; others are supervised alone.
        tells: names of what ``disagreement`` tells for the log; 0 in steps without such a term.
        teacher_decay: of the moving average of weights that gives the reference; None for the
            network itself. ``train_segmentation`` makes the teacher.
    """

    disagreement: Disagreement
    before: Augmented | None = None
    weight: float = 1.0
    ramp_share: float = 0.3
    every: int = 1
    tells: tuple[str, ...] = ()
    teacher_decay: float | None = None

    def losses(
        self,
        network: nn.Module,
        batch: Batch,
        supervised: Supervised,
        *,
        step: StepInfo,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return supervised losses, ``consistency`` with that of the ``start``, and the total.

        ``start`` is the loss of the transforms that were drawn, before any search; both are 0 in
        steps without, as is all that the disagreement tells.
        """
        student = student_of(network)
        if self.before is not None:
            batch = self.before.changed(batch, generator)
        output = student(batch.image)
        found = supervised(output, batch.target)
        weight = self._weight_at(step)
        if step.step % self.every or weight == 0:
            none = found["loss"].new_zeros(())
            return {**found, "consistency": none, "start": none, **self._told({}, none)}
        # One graph at a time: less memory, and a little less time.
        supervised_loss = settled(found["loss"], student)
        reference = reference_for(network, batch.image, output)
        term, start, told = self.disagreement(student, batch, reference, generator)
        return {
            **found, "loss": supervised_loss + weight * term, "consistency": term.detach(),
            "start": start.detach(), **self._told(told, start.detach()),
        }  # fmt: skip

    def _told(self, told: Mapping[str, float], like: Tensor) -> dict[str, Tensor]:
        # The columns of a log are the same in every row. One tensor goes to the device, not forty.
        values = like.new_tensor([told.get(name, 0.0) for name in self.tells])
        return dict(zip(self.tells, values.unbind(), strict=True))

    def _weight_at(self, step: StepInfo) -> float:
        length = round(self.ramp_share * step.steps)
        return Ramp(weight=self.weight, length=length).at(step.step)


def settled(loss: Tensor, network: nn.Module) -> Tensor:
    """Return a loss of the same value and gradients whose graph is gone.

    With g the gradient by the parameters p at their values p0 it is ``loss + sum g (p - p0)``.

    Args:
        loss: ``()``.
        network: whose parameters it depends on.
    """
    if not loss.requires_grad:
        return loss
    parameters = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss * _SCALE, parameters, allow_unused=True)
    total = loss.detach()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            total = total + (gradient / _SCALE * (parameter - parameter.detach())).sum()
    return total
