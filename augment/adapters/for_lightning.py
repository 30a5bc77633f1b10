"""Augmentation and adversary for modules of Lightning: a mixin, nothing to subclass anew.

Example::

    import lightning
    class Segmenter(AdversarialMixin, lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.set_up_augmentation(classic_chain(), spacing=(1.4, 1.4), random_share=0.5)
        def training_step(self, batch, batch_idx):
            image, one_hot = batch
            return self.adversarial_loss(
                self.network, image,
                lambda output: torch.nn.functional.cross_entropy(output, one_hot),
            )
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

Draws are a function of the seed, the process and the number of batches before, so that every
process goes on with its own after a break. A teacher (``EmaReference``) is the module's to make,
to move after steps, and to store: give it to ``adversarial_loss`` as ``reference``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from augment.adapters.loop import adversarial_loss
from augment.adversary import Adversary
from augment.chain import Chain
from augment.search import Network
from cardiogen.base import keyed_seed

# The place in checkpoints.
_KEY = "cardiogen_augment"


class AdversarialMixin:
    """Stands before ``LightningModule`` in the bases of a module.

    Random chains act on batches ``(image, one_hot)`` once they are on the device, in training
    alone; draws and calls are part of Lightning's checkpoints.
    """

    def set_up_augmentation(
        self,
        chain: Chain,
        *,
        spacing: Sequence[float],
        adversary: Adversary | None = None,
        random_share: float = 0.0,
        weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Say what to augment with; in ``__init__``, after that of the module.

        Args:
            chain: what to draw from.
            spacing: mm per axis of the batches.
            adversary: what searches; None searches in ``chain`` with one step.
            random_share: of every batch that is augmented at random before the step.
            weight: of the disagreement.
            seed: of all draws but those of a given adversary, which go by its generator's seed.
        """
        self._chain, self._spacing, self._weight = chain, tuple(spacing), weight
        self._random_share, self._seed = random_share, seed
        generator = torch.Generator().manual_seed(seed)
        self._adversary = adversary or Adversary(chain=chain, generator=generator)
        self._adversary_seed = self._adversary.generator.initial_seed()
        self._draws, self._batches = torch.Generator(), 0

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment some samples of a training batch at random."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if not (self.training and self._random_share):
            return batch
        image, one_hot, *rest = batch
        self._draws.manual_seed(self._stream(self._seed, "random", self._batches))
        self._batches += 1
        chance = torch.rand(len(image), generator=self._draws)
        chosen = torch.nonzero(chance < self._random_share).flatten().to(image.device)
        if len(chosen):
            moved, labels = self._chain.augment(
                image[chosen], one_hot[chosen], spacing=self._spacing, generator=self._draws
            )
            image, one_hot = image.clone(), one_hot.clone().to(labels.dtype)
            image[chosen], one_hot[chosen] = moved, labels
        return (image, one_hot, *rest)

    def adversarial_loss(
        self,
        network: Network,
        image: Tensor,
        supervised: Callable[[object], Tensor | float],
        *,
        reference: object = None,
    ) -> Tensor:
        """Return the loss of a training step, and log the supervised part and the search.

        Args:
            network: gives an output that the adversary's adapter understands.
            image: ``(B, C, *S)``.
            supervised: loss of the output; 0.0 for images without labels.
            reference: what to agree with, a teacher or its output; None is the network's own.
        """
        adversary = self._adversary
        seed = self._stream(self._adversary_seed, "adversary", adversary.calls)
        adversary.generator.manual_seed(seed)
        loss, _, result = adversarial_loss(
            network, image, supervised, adversary=adversary, spacing=self._spacing,
            weight=self._weight, reference=reference,
        )  # fmt: skip
        if result is not None and result.last is not None:
            self.log_dict({f"adversary/{n}": v for n, v in result.report().items()
                           if not n.startswith("strength/")})  # fmt: skip
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the draws stand, and the adversary's statistics of the first process."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[_KEY] = self._augment_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the draws up where they stood; seeds are those of the checkpoint.

        What it does not hold begins anew, with a warning.
        """
        super().on_load_checkpoint(checkpoint)
        now, state = self._augment_state(), checkpoint.get(_KEY, {})
        missing = sorted(set(now) - set(state))
        if missing:
            warnings.warn(
                f"checkpoint must hold {_KEY!r} with {sorted(now)}, got {sorted(state)}: "
                f"{missing} begin anew, so draws are not those of a run without a break; expected "
                "with checkpoints from before AdversarialMixin",
                stacklevel=2,
            )
        state = now | state
        self._seed, self._adversary_seed = state["seed"], state["adversary_seed"]
        self._batches, self._adversary.calls = state["batches"], state["calls"]
        self._adversary.own_buffers = dict(state["own_buffers"])

    def _augment_state(self) -> dict[str, Any]:
        # Nothing of one process alone: the first writes for all.
        return {
            "seed": self._seed,
            "adversary_seed": self._adversary_seed,
            "batches": self._batches,
            "calls": self._adversary.calls,
            "own_buffers": {n: b.clone() for n, b in self._adversary.own_buffers.items()},
        }

    def _stream(self, seed: int, purpose: str, index: int) -> int:
        """Return the seed of a batch, another one in every process."""
        return keyed_seed(seed, f"augment/{purpose}/{self.global_rank}", index)
