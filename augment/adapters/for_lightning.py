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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from augment.adapters.loop import adversarial_loss
from augment.adversary import Adversary
from augment.chain import Chain
from augment.search import Network


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
            seed: of all draws; every process adds its number.
        """
        self._chain, self._spacing, self._weight = chain, tuple(spacing), weight
        self._random_share, self._seed = random_share, seed
        generator = torch.Generator().manual_seed(seed)
        self._adversary = adversary or Adversary(chain=chain, generator=generator)
        self._draws = torch.Generator().manual_seed(seed + 1)

    def setup(self, stage: str) -> None:
        """Give every process draws of its own."""
        super().setup(stage)
        if self.global_rank:
            for number, generator in enumerate((self._adversary.generator, self._draws)):
                generator.manual_seed(self._seed + number + 2 * self.global_rank)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment some samples of a training batch at random."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if not (self.training and self._random_share):
            return batch
        image, one_hot, *rest = batch
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
        self, network: Network, image: Tensor, supervised: Callable[[object], Tensor]
    ) -> Tensor:
        """Return the loss of a training step, and log the supervised part and the search."""
        loss, _, result = adversarial_loss(
            network, image, supervised, adversary=self._adversary, spacing=self._spacing,
            weight=self._weight,
        )  # fmt: skip
        if result is not None and result.last is not None:
            self.log_dict({f"adversary/{n}": v for n, v in result.report().items()
                           if not n.startswith("strength/")})  # fmt: skip
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the draws stand."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["cardiogen_augment"] = {
            "adversary": self._adversary.generator.get_state(),
            "draws": self._draws.get_state(),
            "calls": self._adversary.calls,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the draws up where they stood."""
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["cardiogen_augment"]
        self._adversary.generator.set_state(state["adversary"])
        self._draws.set_state(state["draws"])
        self._adversary.calls = state["calls"]
