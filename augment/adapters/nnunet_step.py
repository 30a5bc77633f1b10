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

nnU-Net's checkpoints take nothing along and are gone on from (``--c``) at an epoch. So draws are a
function of the seed, the process and the epoch, and go on as if there had been no break. What else
is learned begins anew: a teacher at the network's weights, and the running statistics that
``Adversary(statistics="separate")`` keeps at the network's.
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
from augment.guards import EmaReference, Ramp
from augment.outputs import sigmoid_output, softmax_output
from augment.presets import classic_chain
from cardiogen.base import keyed_seed

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
        seed: of the draws, which are others in every process and epoch.
        teacher_decay: of a moving average of the network's weights to agree with; None agrees
            with the network itself.
    """

    weight: float = 1.0
    ramp_share: float = 0.3
    every: int = 1
    seed: int = 0
    teacher_decay: float | None = None

    def chain(self) -> Chain:
        """Return what to draw from."""
        return classic_chain()

    def adversary(self: Trainer) -> Adversary:
        """Return the adversary; made at the first step, its generator's seed is that of draws."""
        regions = self.label_manager.has_regions
        return Adversary(
            chain=self.chain(),
            generator=torch.Generator().manual_seed(self.seed),
            output=sigmoid_output if regions else softmax_output,
            every=self.every,
        )

    def teacher(self: Trainer) -> EmaReference | None:
        """Return what to agree with, made at the first step and updated after every one."""
        if self.teacher_decay is None:
            return None
        return EmaReference(_eager(self.network), decay=self.teacher_decay)

    def train_step(self: Trainer, batch: Mapping[str, Any]) -> dict[str, NDArray]:
        """Take a step of the optimizer; the loss that is logged is the supervised one."""
        _prepare(self)
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
                reference=self._teacher,
            )  # fmt: skip
        _update(self, loss)
        if self._teacher is not None:
            self._teacher.update(self.network)
        return {"loss": seen[0].detach().cpu().numpy()}


def weight_of(trainer: Trainer) -> float:
    """Return the weight of the disagreement in this epoch."""
    length = round(trainer.ramp_share * trainer.num_epochs)
    return Ramp(weight=trainer.weight, length=length).at(trainer.current_epoch)


def spacing_of(configuration: Any, image: Tensor) -> tuple[float, ...]:
    """Return the spacing of patches, mm; a 2D configuration may still name three numbers."""
    return tuple(float(step) for step in configuration.spacing)[-(image.ndim - 2) :]


def _prepare(trainer: Trainer) -> None:
    """Make what is missing, and let the draws of an epoch begin where they always do."""
    if getattr(trainer, "_adversary", None) is None:
        trainer._adversary, trainer._teacher = trainer.adversary(), trainer.teacher()
        trainer._adversary_seed = trainer._adversary.generator.initial_seed()
        trainer._drawn_epoch = None
    if trainer._drawn_epoch != trainer.current_epoch:
        trainer._drawn_epoch = trainer.current_epoch
        purpose = f"augment/adversary/{trainer.local_rank}"
        seed = keyed_seed(trainer._adversary_seed, purpose, trainer.current_epoch)
        trainer._adversary.generator.manual_seed(seed)
        # Which steps search is counted from the epoch's first, too.
        trainer._adversary.calls = 0


def _eager(network: nn.Module) -> nn.Module:
    """Return what torch.compile and a distributed wrapper wrap."""
    wrapped = isinstance(network, nn.parallel.DistributedDataParallel)
    bare = network.module if wrapped else network
    return getattr(bare, "_orig_mod", bare)


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
