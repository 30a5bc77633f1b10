"""The adversary in MONAI's engine: the step of a ``SupervisedTrainer`` with a loss more.

All else is as in ``SupervisedTrainer._iteration`` of MONAI 1.6: gradient accumulation, inferer,
mixed precision, arguments of the network, events in their order, what is in
``engine.state.output`` and when. Only network and loss function get plain tensors, without
metadata, as they do in MONAI under torch.compile. The search sees batches ``(B, C, X, Y, Z)`` with
Z first: slices lie along it.

Example, with a teacher::

    teacher = EmaReference(network)
    update = AdversarialUpdate(adversary, spacing=(1.4, 1.4, 8.0), reference=teacher)
    trainer = SupervisedTrainer(..., network=network, iteration_update=update)
    trainer.add_event_handler(
        IterationEvents.MODEL_COMPLETED, lambda engine: teacher.update(engine.network)
    )
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor, nn

from augment.adapters.loop import adversarial_loss
from augment.adversary import Adversary


class AdversarialUpdate:
    """The step of a ``SupervisedTrainer`` with an adversary: its ``iteration_update``.

    Further arguments of the network, from batches ``(image, label, args, kwargs)``, are given to
    every pass as they are, so they cannot be images: these would stay where they were.

    Args:
        adversary: what searches.
        spacing: mm along X, Y[, Z].
        weight: of the disagreement, or a function of the number of iterations done.
        reference: a teacher to agree with, called by the engine's inferer, such as
            ``EmaReference``; None is the network's own output.
    """

    def __init__(
        self,
        adversary: Adversary,
        *,
        spacing: Sequence[float],
        weight: float | Callable[[int], float] = 1.0,
        reference: Callable[[Tensor], object] | None = None,
    ) -> None:
        if reference is not None and not callable(reference):
            raise ValueError(
                "reference must be a function of the image, such as EmaReference, or None, "
                f"got {type(reference).__name__}: an output is of one batch alone"
            )
        self.adversary, self.spacing, self.weight = adversary, tuple(spacing), weight
        self.reference = reference

    def __call__(self, engine: Any, batchdata: Any) -> dict[str, Any]:
        """Take a step; image, label, prediction and loss are returned as MONAI's own does.

        Raises:
            ValueError: for batches that are neither ``(image, label)`` nor ``(image, label, args,
                kwargs)``, and arguments that cannot go with changed images.
        """
        inputs, targets, positional, named = self._batch(engine, batchdata)
        output = engine.state.output = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: targets}
        first, last, parts = accumulation_of(engine)
        engine.network.train()
        if first:
            engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        scaler = engine.scaler if engine.amp else None
        network = _Inferred(engine, engine.network, positional, named)
        with nullcontext() if scaler is None else torch.autocast("cuda", **engine.amp_kwargs):
            self._losses(engine, network, inputs, targets)
        loss = output[CommonKeys.LOSS] / parts
        (loss if scaler is None else scaler.scale(loss)).backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            _step(engine, scaler)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _batch(self, engine: Any, batchdata: Any) -> tuple[Any, Any, tuple, dict]:
        if batchdata is None:
            raise ValueError("batchdata must be the batch of this iteration, got None")
        batch = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        if len(batch) not in (2, 4) or not isinstance(batch[0], Tensor):
            found = [type(part).__name__ for part in batch]
            raise ValueError(
                "prepare_batch must give a tensor of images and labels, or these and args and "
                f"kwargs of the network, got {found}"
            )
        inputs, targets, *rest = batch
        positional, named = rest or ((), {})
        if len(positional) or named:
            self._check_arguments(inputs, positional, named)
        return inputs, targets, tuple(positional), dict(named)

    def _check_arguments(self, image: Tensor, positional: Sequence, named: Mapping) -> None:
        if self.adversary.share < 1 or self.reference is not None:
            asked = "share < 1" if self.adversary.share < 1 else "a reference"
            raise ValueError(
                f"further arguments of the network cannot go with {asked}, got "
                f"{len(positional)} args and {sorted(named)}: they belong to the whole batch and "
                "the network alone; use share=1 and reference=None, or prepare (image, label)"
            )
        for name, value in [*enumerate(positional), *named.items()]:
            if isinstance(value, Tensor) and value.shape[2:] == image.shape[2:]:
                raise ValueError(
                    f"argument {name!r} of the network has the voxels of the image, "
                    f"{tuple(image.shape[2:])}, but would not move with it; make it channels of "
                    "the image"
                )

    def _losses(self, engine: Any, network: _Inferred, inputs: Tensor, targets: Any) -> None:
        """Put prediction and loss where MONAI has them, and say so to its handlers."""
        output, image, ndim = engine.state.output, _plain(inputs), inputs.ndim - 2
        teacher = None if self.reference is None else _Inferred(engine, self.reference, (), {})

        def supervised(prediction: object) -> Tensor:
            output[CommonKeys.PRED] = _with_meta(_turned(prediction, ndim), inputs)
            engine.fire_event(IterationEvents.FORWARD_COMPLETED)
            return engine.loss_function(_plain(output[CommonKeys.PRED]), _plain(targets)).mean()

        done = engine.state.iteration - 1
        output[CommonKeys.LOSS], _, _ = adversarial_loss(
            network, _turned(image, ndim), supervised, adversary=self.adversary,
            spacing=self.spacing[::-1],
            weight=self.weight(done) if callable(self.weight) else self.weight,
            reference=teacher,
        )  # fmt: skip
        engine.fire_event(IterationEvents.LOSS_COMPLETED)


class _Inferred(nn.Module):
    """A network as the engine's inferer calls it, on images that have been turned, Z first.

    A module, so that the guards of a search see what state the network has.
    """

    def __init__(self, engine: Any, network: Any, positional: tuple, named: dict) -> None:
        super().__init__()
        self.network, self.inferer = network, engine.inferer
        self.positional, self.named = positional, named
        if hasattr(network, "no_sync"):
            # By its name a search knows a network that several processes train.
            self.no_sync = network.no_sync

    def forward(self, image: Tensor) -> object:
        ndim = image.ndim - 2
        straight = _turned(image, ndim).contiguous()
        output = self.inferer(straight, self.network, *self.positional, **self.named)
        return _turned(output, ndim)


def accumulation_of(engine: Any) -> tuple[bool, bool, int]:
    """Return whether this iteration is the first and the last of those of a step, and how many.

    The last iteration of an epoch ends a step, as in MONAI; before 1.6 every one did.
    """
    parts = getattr(engine, "accumulation_steps", 1)
    length, place = engine.state.epoch_length, engine.state.iteration - 1
    if length is not None:
        place %= length
    return place % parts == 0, (place + 1) % parts == 0 or place + 1 == length, parts


def _step(engine: Any, scaler: Any) -> None:
    if scaler is None:
        engine.optimizer.step()
        return
    scaler.step(engine.optimizer)
    scaler.update()


def _plain(tensor: Any) -> Any:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _with_meta(output: Any, like: Tensor) -> Any:
    """Return an output with the metadata of the images that it is of."""
    if not isinstance(output, Tensor) or not isinstance(like, MetaTensor):
        return output
    return output.as_subclass(MetaTensor).copy_meta_from(like)


def _turned(output: Any, ndim: int) -> Any:
    """Return tensors with their last ``ndim`` axes in reverse; others have no voxels."""
    if isinstance(output, Tensor):
        if output.ndim < ndim + 2:
            return output
        return output.movedim(list(range(-ndim, 0)), list(range(-1, -ndim - 1, -1)))
    if isinstance(output, Mapping):
        return {name: _turned(part, ndim) for name, part in output.items()}
    if isinstance(output, list | tuple):
        parts = [_turned(part, ndim) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output
