"""The adversary: chains moved to where a network disagrees with itself most.

One step of training with it is: the network's pass on the image, whose prediction is the
reference; a random chain; ``Ascent.steps`` gradients by the chain's parameters alone; one pass on
the changed image, whose disagreement is a loss. The network's gradients, buffers and training
flags, and the global random state, are what they were (see ``model_state``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augment.ascent import Ascent
from augment.chain import Chain, as_one_hot, check_finite
from augment.consistency import Consistency, class_distances, paired_heads
from augment.lattice import Lattice
from augment.model_state import Buffers
from augment.outputs import Head, OutputAdapter, label_heads, softmax_output
from augment.search import (
    Applied,
    Found,
    Network,
    Objective,
    Pass,
    Passes,
    Statistics,
    hardest_pass,
    search,
)


@dataclass(frozen=True, eq=False)
class Result:
    """A loss to add to the supervised one, and how it came about.

    Attributes:
        loss: mean over the samples used ``()``, with gradients of the network's parameters; 0 if
            this call was skipped.
        index: numbers of the samples used ``(N,)``; none if skipped.
        last: the pass that the loss is of, or None.
        found: the search before it, or None.
        reference: heads that it was compared with.
        output: how the network's output becomes probabilities.
    """

    loss: Tensor
    index: Tensor
    last: Pass | None = None
    found: Found | None = None
    reference: tuple[Head, ...] = ()
    output: OutputAdapter = softmax_output

    def class_distances(self) -> Tensor:
        """Return one less the soft Dice overlap with the reference, by class: ``(N, K)``."""
        if self.last is None:
            raise ValueError("class_distances needs a call that was not skipped; see every")
        with torch.no_grad():
            heads = self.output(self.last.output)
            return class_distances(paired_heads(self.reference, heads, self.last.applied)[0])

    def report(self) -> dict[str, float]:
        """Return the loss, its rise over the random start, and the strength of every transform.

        A rise of 1.5 says that the search made the loss half as large again.
        """
        if self.last is None:
            return {}
        found = {"loss": float(self.loss.detach())}
        if self.found.start_losses is not None:
            start = float(self.found.start_losses.mean())
            found |= {"start_loss": start, "rise": found["loss"] / max(start, 1e-12)}
        for name, used in self.last.draw.strengths().items():
            found[f"strength/{name}"] = float(used.mean())

        return found


@dataclass(kw_only=True)
class Adversary:
    """Searches chains that a network finds hard.

    Attributes:
        chain: what to search in.
        generator: source of all randomness; saved and set with its state, a run goes on as it was.
        consistency: how disagreement is measured.
        ascent: how it is raised; with ``steps=0`` this is random consistency.
        output: how the network's output becomes probabilities.
        statistics: running statistics in passes on changed images: ``frozen`` leaves them alone,
            ``shared`` lets the final pass update them, ``separate`` keeps others for these passes.
            Activation checkpointing repeats passes in the backward, outside of this guard: there
            running statistics take the last one up once more.
            Batch statistics are used wherever the network is in training mode.
        every: only every so manieth call does anything.
        share: part of each batch that is used, at least one sample; ``every`` and ``share`` make
            it cheap.
        calls: calls so far.
        own_buffers: running statistics of changed images, for ``separate``.
    """

    chain: Chain
    generator: torch.Generator
    consistency: Consistency = field(default_factory=Consistency)
    ascent: Ascent = field(default_factory=Ascent)
    output: OutputAdapter = softmax_output
    statistics: Statistics = "frozen"
    every: int = 1
    share: float = 1.0
    calls: int = 0
    own_buffers: Buffers = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.statistics not in ("frozen", "shared", "separate"):
            raise ValueError(
                f"statistics must be frozen, shared or separate, got {self.statistics!r}"
            )
        if self.every < 1 or not 0 < self.share <= 1:
            raise ValueError(
                f"every must be at least 1 and share lie in (0, 1], got {self.every} and "
                f"{self.share}"
            )

    def consistency_loss(
        self,
        network: Network,
        image: Tensor,
        *,
        spacing: Sequence[float],
        reference: object = None,
        labels: Tensor | None = None,
        exclusive: bool = True,
        to_heart: Tensor | None = None,
    ) -> Result:
        """Return how much the network disagrees on hard versions of images: a loss.

        Args:
            network: module, or any function of an image; guards protect modules alone.
            image: ``(B, C, *S)``, finite; labelled or not.
            spacing: mm per axis.
            reference: what the network (or a teacher) returned for ``image``, or a teacher: a
                function of the image, called without gradients and only if this call is not
                skipped, such as ``EmaReference``. It is detached. None asks the network.
            labels: one-hot ``(B, K, *S)`` to be the reference instead: supervised.
            exclusive: whether the channels of ``labels`` exclude each other.
            to_heart: see ``Lattice``.
        """
        lattice = Lattice.of(image, spacing=spacing, to_heart=to_heart)
        check_finite(image)
        self.calls += 1
        if (self.calls - 1) % self.every:
            none = torch.zeros(0, dtype=torch.long, device=image.device)
            # A leaf, so that backward may be called as after any other call.
            return Result(torch.zeros((), device=image.device, requires_grad=True), none)
        index, seed = self._part(lattice, image.device), self._seed()
        heads = self._reference(network, image, reference, labels, exclusive, seed)
        if len(index) < lattice.batch:
            image, lattice = image[index], lattice.part(index)
            heads = [head.part(index) for head in heads]
        passes = self._passes(network, image, self._against(heads), seed)
        found = self._search(passes, lattice)
        last = hardest_pass(passes, found)

        return Result(last.losses.mean(), index, last, found, tuple(heads), self.output)

    def examples(
        self,
        network: Network,
        image: Tensor,
        labels: Tensor,
        *,
        spacing: Sequence[float],
        objective: Objective | None = None,
        exclusive: bool = True,
        to_heart: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Found]:
        """Return hard versions of labelled images, to train on in their stead.

        Args:
            network: as in ``consistency_loss``.
            image: ``(B, C, *S)``.
            labels: one-hot ``(B, K, *S)``.
            spacing: mm per axis.
            objective: what to raise, from the network's output and the changed image to losses
                ``(B,)`` or ``()``; None raises the disagreement with the labels.
            exclusive: whether the channels of ``labels`` exclude each other.
            to_heart: see ``Lattice``.

        Returns:
            Images, their labels as probabilities, and the search.
        """
        lattice = Lattice.of(image, spacing=spacing, to_heart=to_heart)
        check_finite(image)
        labels = as_one_hot(labels, image)
        if objective is None:
            objective = self._against(label_heads(labels, exclusive=exclusive))
        passes = self._passes(network, image, objective, self._seed())
        found = self._search(passes, lattice)
        with torch.no_grad():
            if found.best_losses is None:
                applied = found.draw.apply(image, padding=self.chain.padding)
            else:
                applied = hardest_pass(passes, found, trained=False).applied
            return applied.image, applied.labels(labels, exclusive=exclusive), found

    def _against(self, heads: Sequence[Head]) -> Objective:
        def disagreement(output: object, applied: Applied) -> Tensor:
            return self.consistency(heads, self.output(output), applied)

        return disagreement

    def _passes(self, network: Network, image: Tensor, objective: Objective, seed: int) -> Passes:
        return Passes(
            network=network, image=image.detach(), objective=objective, seed=seed,
            padding=self.chain.padding, statistics=self.statistics, own=self.own_buffers,
        )  # fmt: skip

    def _search(self, passes: Passes, lattice: Lattice) -> Found:
        return search(passes, self.chain, self.ascent, lattice, generator=self.generator)

    def _reference(
        self,
        network: Network,
        image: Tensor,
        reference: object,
        labels: Tensor | None,
        exclusive: bool,
        seed: int,
    ) -> list[Head]:
        if labels is not None:
            return label_heads(as_one_hot(labels, image), exclusive=exclusive)
        with torch.no_grad():
            if reference is None or callable(reference):
                teacher = network if reference is None else reference
                # Statistics of changed images are none of an unchanged one's business.
                passes = self._passes(teacher, image, _nothing, seed)
                with replace(passes, statistics="frozen").searching():
                    reference = teacher(image)
            heads = [head.detached() for head in self.output(reference)]
        for head in heads:
            if len(head.probs) != len(image):
                raise ValueError(
                    f"reference must be an output for all {len(image)} samples of image, "
                    f"got one for {len(head.probs)}; give what the teacher makes of this batch"
                )
        return heads

    def _part(self, lattice: Lattice, device: torch.device) -> Tensor:
        count = max(1, round(self.share * lattice.batch))
        if count == lattice.batch:
            return torch.arange(count, device=device)
        where = self.generator.device
        drawn = torch.randperm(lattice.batch, generator=self.generator, device=where)

        return drawn[:count].sort().values.to(device)

    def _seed(self) -> int:
        where = self.generator.device

        return int(torch.randint(2**62, (1,), generator=self.generator, device=where))


def _nothing(output: object, applied: Applied) -> Tensor:
    return applied.image.new_zeros(())
