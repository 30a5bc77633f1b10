"""Passes through a network that leave it as it was, also when something is raised.

Kept are the gradients (nothing here writes them), the buffers (running statistics among them),
whether parameters ask for gradients, the training flags of all modules, and the global random
state, which dropout draws from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

Buffers = dict[str, Tensor]


@contextmanager
def kept_buffers(
    module: nn.Module | None,
    *,
    own: Buffers | None = None,
    learn: bool = False,
    keep: bool = True,
) -> Iterator[None]:
    """Put buffers and training flags back at the end.

    Args:
        module: network, or None for a function without state.
        own: buffers to use meanwhile; empty ones start from the network's.
        learn: let ``own`` take up what the passes leave.
        keep: put buffers back; False lets the network keep what the passes leave, unless something
            is raised.
    """
    if module is None:
        yield
        return
    held = [
        (m, name, buffer, f"{path}.{name}" if path else name)
        for path, m in module.named_modules()
        for name, buffer in m._buffers.items()
        if buffer is not None
    ]
    values = [buffer.detach().clone() for _, _, buffer, _ in held]
    flags = [(m, m.training) for m in module.modules()]
    whole = False
    try:
        if own is not None:
            # Tensors of their own: the backward of a norm in eval mode reads them once more.
            for (m, name, _, path), value in zip(held, values, strict=True):
                m._buffers[name] = own.get(path, value).clone()
        yield
        whole = True
        if own is not None and learn:
            own.update({path: m._buffers[name].detach().clone() for m, name, _, path in held})
    finally:
        for (m, name, buffer, _), value in zip(held, values, strict=True):
            if keep or not whole:
                # Through data: a graph that saved the buffer must not take it for changed.
                buffer.data.copy_(value)
                m._buffers[name] = buffer
        for m, flag in flags:
            m.training = flag


@contextmanager
def frozen_parameters(module: nn.Module | None) -> Iterator[None]:
    """Let no parameter ask for gradients: a search needs those of the image alone."""
    asked = [] if module is None else [p for p in module.parameters() if p.requires_grad]
    try:
        for parameter in asked:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


@contextmanager
def own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Let the global generators of CPU and device start from ``seed``, and put them back."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def without_sync(module: nn.Module | None) -> AbstractContextManager:
    """Return the ``no_sync`` of a distributed network, so that a search is not communicated."""
    no_sync = getattr(module, "no_sync", None)

    return nullcontext() if no_sync is None else no_sync()
