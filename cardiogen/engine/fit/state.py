"""What changes while a model is trained, as one record that a checkpoint can hold."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from cardiogen.engine.fit.config import FitConfig
from cardiogen.engine.fit.logs import Window

_FIRST_SCALE = 2.0**15


@dataclass
class Best:
    """The weights that validated best so far.

    Attributes:
        loss: of the validation; None before the first.
        step: after which it was made.
        weights: copies of them on the CPU.
    """

    loss: float | None = None
    step: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Average:
    """The exponential moving average of the weights of a module, as a module of its own."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        own, new = weights_of(self.module), weights_of(module)
        moving = [name for name, tensor in own.items() if tensor.is_floating_point()]
        # Collected once: walking a module's tree takes longer than moving its weights.
        self._moving = [own[n] for n in moving], [new[n] for n in moving]
        self._copied = [(own[n], new[n]) for n in own.keys() - set(moving)]

    def update(self, decay: float) -> None:
        """Move it, ``a <- decay a + (1 - decay) w``; what is no floating point is copied."""
        with torch.no_grad():
            torch._foreach_lerp_(*self._moving, 1 - decay)
            for own, new in self._copied:
                own.copy_(new)


@dataclass
class Training:
    """A run between two steps.

    Attributes:
        module: in training.
        average: of its weights over the steps, or None.
        optimizer: AdamW over its parameters.
        gradient: all gradients end to end; ``parameter.grad`` are views of it.
        step: steps done.
        loss_scale: of the loss, so that half-precision gradients do not vanish; 1 elsewhere.
        good_steps: since the scale last changed.
        bad_steps: skipped in a row.
        seconds: spent in steps so far, the making of batches included.
        window: of the next row of the log.
        best: see :class:`Best`.
    """

    module: torch.nn.Module
    average: Average | None
    optimizer: torch.optim.Optimizer
    gradient: Tensor
    step: int = 0
    loss_scale: float = 1.0
    good_steps: int = 0
    bad_steps: int = 0
    seconds: float = 0.0
    window: Window = field(default_factory=Window)
    best: Best = field(default_factory=Best)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time that is spent within to ``seconds``."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    @property
    def judged(self) -> torch.nn.Module:
        """The module whose weights are validated and returned."""
        return self.module if self.average is None else self.average.module


def begin(module: torch.nn.Module, config: FitConfig, device: torch.device) -> Training:
    """Move a module to its device and return the training before its first step.

    Raises:
        ValueError: for a module without trainable parameters, or with several types of them.
    """
    module.to(device).train()
    parameters = trainable(module)
    kinds = {parameter.dtype for parameter in parameters}
    if len(kinds) != 1:
        raise ValueError(f"module must have trainable parameters of one dtype, got {kinds}")
    # Biases, gains and learned tokens are scales of their own: decay would only bias them.
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.learning_rate, fused=True
    )
    # Made before the first step: a checkpoint then has the same tensors after any step.
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=device),
            "exp_avg": torch.zeros_like(parameter, requires_grad=False),
            "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
        }
    return Training(
        module=module,
        average=Average(module) if config.ema_decay else None,
        optimizer=optimizer,
        gradient=_one_gradient(parameters),
        loss_scale=_FIRST_SCALE if config.precision == "16-mixed" else 1.0,
    )


def trainable(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that receive gradients, tied ones once."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def weights_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, tied ones once; they share memory."""
    kept = module.state_dict().keys()
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: tensor.detach() for name, tensor in named if name in kept}


def tensors_of(run: Training) -> dict[str, Tensor]:
    """Return everything of a run that is a tensor, by name; they share its memory."""
    found = {f"weights.{name}": t for name, t in weights_of(run.module).items()}
    if run.average is not None:
        found |= {f"average.{name}": t for name, t in weights_of(run.average.module).items()}
    found |= {f"best.{name}": t for name, t in run.best.weights.items()}
    for name, parameter in run.module.named_parameters():
        for kind, tensor in run.optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{name}.{kind}"] = tensor
    return found


def copy_weights(tensors: dict[str, Tensor], module: torch.nn.Module) -> None:
    """Give a module the weights that :func:`weights_of` returned, in place."""
    with torch.no_grad():
        for name, tensor in weights_of(module).items():
            tensor.copy_(tensors[name])


def _one_gradient(parameters: Iterable[torch.nn.Parameter]) -> Tensor:
    """Lay out all gradients end to end: one tensor to zero, to add up, to measure and to clip."""
    parameters = list(parameters)
    flat = parameters[0].new_zeros(sum(p.numel() for p in parameters))
    pieces = flat.split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter)
    return flat
