"""What a model brings to the training loop: its parameters, its examples and its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

KL_PER_LATENT = "kl_per_latent"


@dataclass(frozen=True, kw_only=True)
class StepInfo:
    """Where training stands while a loss is computed.

    Attributes:
        step: number of this step, from 0.
        steps: how many there will be.
        epoch: how often the first example of the batch was seen before.
        kl_weight: beta of this step.
        free_bits: nats of every latent left free, for ``kl_loss``.
        device: where the module is.
    """

    step: int
    steps: int
    epoch: int
    kl_weight: float
    free_bits: float
    device: torch.device


@runtime_checkable
class Task(Protocol):
    """A model in training; every method is a pure function of its arguments and the weights.

    All trainable parameters are in ``module``, share one dtype, and are found there before the
    first step. An adversary lives in it too, behind a gradient reversal or with its loss in the
    total: there is one optimizer.
    """

    module: torch.nn.Module

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Any:
        """Return the examples at ``indices``: tensors, or tuples, lists or dicts of them.

        Args:
            indices: numbers of examples; one may occur twice where batches outgrow the data.
            generator: on the CPU, for augmentation; keyed by step.
        """
        ...

    def loss(
        self, batch: Any, *, step: StepInfo, generator: torch.Generator
    ) -> Mapping[str, Tensor]:
        """Return named means over the batch; ``"loss"`` is minimized, all scalars are logged.

        ``"kl_per_latent"``, ``(Z,)``, is logged as their sum ``kl`` and as ``active_units``.

        Args:
            batch: what ``batch`` returned, on the device of the module.
            step: where training stands.
            generator: on the device of the module; keyed by step.
        """
        ...


@runtime_checkable
class ValidatedTask(Task, Protocol):
    """A task that can also judge weights on examples it does not train on."""

    def validate(self, module: torch.nn.Module) -> Mapping[str, float]:
        """Return named numbers, the same names every time; ``"loss"`` chooses the best weights.

        Args:
            module: the one to judge, in evaluation mode: the average of weights if there is one,
                so not always ``self.module``.
        """
        ...


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of nested tuples, lists and dicts; what has ``.to`` moves itself."""
    if hasattr(batch, "to"):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: to_device(part, device) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(part, device) for part in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(part, device) for part in batch)
    return batch
