"""The training step of nnU-Net with an adversary, to be mixed into any of its trainers.

A file with the trainer, in a folder that ``nnUNet_extTrainer`` names, is all that nnU-Net needs;
``nnunet_trainers`` holds one. Deep supervision, regions, mixed precision, torch.compile and more
than one GPU go on as in nnU-Net. Another chain is a subclass away::

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from augment import full_chain
    from augment.adapters.nnunet_step import AdversarialStep

    class nnUNetTrainerRobust(AdversarialStep, nnUNetTrainer):
        weight, every = 0.5, 2

        def chain(self):
            return full_chain(len(self.configuration_manager.patch_size))

What a trainer is asked for is listed in ``Trainer``; nothing of nnU-Net is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from augment.adapters.loop import adversarial_loss
from augment.adversary import Adversary
from augment.chain import Chain
from augment.guards import Ramp
from augment.outputs import sigmoid_output, softmax_output
from augment.presets import classic_chain

# The gradient's largest norm in nnU-Net.
_CLIP = 12.0


class Trainer(Protocol):
    """What the step reads of a trainer of nnU-Net 2."""

    network: nn.Module
    loss: Callable[[object, object], Tensor]
    optimizer: torch.optim.Optimizer
    grad_scaler: Any
    device: torch.device
    current_epoch: int
    num_epochs: int
    local_rank: int
    configuration_manager: Any
    label_manager: Any


class AdversarialStep:
    """Replace ``train_step`` of a trainer; override the attributes in a subclass to change it.

    Attributes:
        weight: of the disagreement, after its rise.
        ramp_share: of the epochs, in which it rises.
        every: steps from search to search.
        seed: of the draws, with the number of the process added.
    """

    weight: float = 1.0
    ramp_share: float = 0.3
    every: int = 1
    seed: int = 0

    def chain(self) -> Chain:
        """Return what to draw from."""
        return classic_chain()

    def adversary(self: Trainer) -> Adversary:
        """Return the adversary; made at the first step."""
        regions = self.label_manager.has_regions
        return Adversary(
            chain=self.chain(),
            generator=torch.Generator().manual_seed(self.seed + self.local_rank),
            output=sigmoid_output if regions else softmax_output,
            every=self.every,
        )

    def train_step(self: Trainer, batch: Mapping[str, Any]) -> dict[str, NDArray]:
        """Take a step of the optimizer; the loss that is logged is the supervised one."""
        if getattr(self, "_adversary", None) is None:
            self._adversary = self.adversary()
        data = batch["data"].to(self.device, non_blocking=True)
        target = _moved(batch["target"], self.device)
        seen: list[Tensor] = []

        def supervised(output: object) -> Tensor:
            seen.append(self.loss(output, target))
            return seen[0]

        self.optimizer.zero_grad(set_to_none=True)
        half = self.device.type == "cuda"
        with torch.autocast(self.device.type) if half else nullcontext():
            loss, _, _ = adversarial_loss(
                self.network, data, supervised, adversary=self._adversary,
                spacing=spacing_of(self.configuration_manager, data), weight=weight_of(self),
            )  # fmt: skip
        _update(self, loss)
        return {"loss": seen[0].detach().cpu().numpy()}


def weight_of(trainer: Trainer) -> float:
    """Return the weight of the disagreement in this epoch."""
    length = round(trainer.ramp_share * trainer.num_epochs)
    return Ramp(weight=trainer.weight, length=length).at(trainer.current_epoch)


def spacing_of(configuration: Any, image: Tensor) -> tuple[float, ...]:
    """Return the spacing of patches, mm; a 2D configuration may still name three numbers."""
    return tuple(float(step) for step in configuration.spacing)[-(image.ndim - 2) :]


def _moved(target: Any, device: torch.device) -> Any:
    if isinstance(target, list):
        return [part.to(device, non_blocking=True) for part in target]
    return target.to(device, non_blocking=True)


def _update(trainer: Trainer, loss: Tensor) -> None:
    parameters = trainer.network.parameters()
    if trainer.grad_scaler is None:
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, _CLIP)
        trainer.optimizer.step()
        return
    trainer.grad_scaler.scale(loss).backward()
    trainer.grad_scaler.unscale_(trainer.optimizer)
    nn.utils.clip_grad_norm_(parameters, _CLIP)
    trainer.grad_scaler.step(trainer.optimizer)
    trainer.grad_scaler.update()
