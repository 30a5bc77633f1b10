"""A network in training with its teacher, as one module: checkpoints then hold both.

The teacher's weights are the moving average of the network's (``augment.EmaReference``); what it
says of an unchanged batch is what the network has to agree with on changed ones.
"""

from __future__ import annotations

from torch import Tensor, nn

from augment.guards import EmaReference


class Taught(nn.Module):
    """A network that answers like itself, and a teacher that follows it.

    Args:
        network: to train.
        decay: of the teacher's average, in [0, 1).
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        super().__init__()
        self.network = network
        self.reference = EmaReference(network, decay=decay)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return the network's own output."""
        return self.network(image)

    def follow(self, step: int) -> None:
        """Move the teacher once for every step done, before step number ``step`` (from 0).

        The shares of a batch ask in turn: the first moves it, the others find it moved. Its count
        is stored with it, so a resumed run goes on as an uninterrupted one.
        """
        if self.reference.updates < step:
            self.reference.update(self.network)


def student_of(module: nn.Module) -> nn.Module:
    """Return the network in training, without a teacher."""
    return module.network if isinstance(module, Taught) else module


def reference_for(module: nn.Module, image: Tensor, output: object) -> object:
    """Return what a network has to agree with: its teacher's output, else its own.

    Args:
        module: in training.
        image: unchanged ``(B, C, *S)``.
        output: the network's own for it.
    """
    return module.reference(image) if isinstance(module, Taught) else output
