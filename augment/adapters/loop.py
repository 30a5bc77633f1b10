"""The loss of a training step with an adversary: in a plain loop, and behind all other adapters.

Example::

    chain, images, labels = classic_chain(), torch.rand(4, 1, 32, 48), torch.rand(4, 4, 32, 48)
    network = torch.nn.Conv2d(1, 4, 3, padding=1)
    optimizer = torch.optim.Adam(network.parameters())
    adversary = Adversary(chain=chain, generator=torch.Generator().manual_seed(0))
    for step in range(3):
        loss, output, result = adversarial_loss(
            network, images, lambda output: torch.nn.functional.cross_entropy(output, labels),
            adversary=adversary, spacing=(1.4, 1.4), weight=min(1.0, step / 2),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

Images without labels learn from the agreement alone, here with a steady teacher. Those of other
sizes take a call of their own, with ``lambda output: 0.0``; and with an adversary of their own, if
``every`` is more than 1: it counts calls. Example::

    labelled, labels = torch.rand(2, 1, 32, 48), torch.rand(2, 4, 32, 48)
    both = torch.cat([labelled, torch.rand(4, 1, 32, 48)])
    network = torch.nn.Conv2d(1, 4, 3, padding=1)
    optimizer = torch.optim.Adam(network.parameters())
    adversary = Adversary(chain=classic_chain(), generator=torch.Generator().manual_seed(0))
    teacher = EmaReference(network)
    for step in range(3):
        loss, output, result = adversarial_loss(
            network, both, lambda output: torch.nn.functional.cross_entropy(output[:2], labels),
            adversary=adversary, spacing=(1.4, 1.4), weight=step / 2, reference=teacher,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update(network)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from augment.adversary import Adversary, Result
from augment.outputs import OutputAdapter
from augment.search import Network


def adversarial_loss(
    network: Network,
    image: Tensor,
    supervised: Callable[[object], Tensor | float],
    *,
    adversary: Adversary,
    spacing: Sequence[float],
    weight: float = 1.0,
    reference: object = None,
) -> tuple[Tensor, object, Result | None]:
    """Return ``supervised(f(x)) + weight * disagreement``, the output f(x), and the search.

    Args:
        network: gives an output that the adversary's adapter understands.
        image: ``(B, C, *S)``.
        supervised: loss ``()`` of the output; constantly 0 for images without labels.
        adversary: what searches; with ``steps=0`` its transforms are random.
        spacing: mm per axis.
        weight: of the disagreement; 0 leaves it out, and the search and the teacher too.
        reference: what to agree with, a teacher's output for ``image`` or the teacher itself (see
            ``Adversary.consistency_loss``); None is the network's own output.

    Raises:
        ValueError: for a weight that is negative or not finite, and a supervised loss that is
            neither one number nor a tensor of one.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must not be negative or infinite, got {weight}")
    output = network(image)
    loss = _learnable(supervised(output), output, adversary.output)
    if weight == 0:
        return loss, output, None
    result = adversary.consistency_loss(
        network, image, spacing=spacing, reference=output if reference is None else reference
    )
    return loss + weight * result.loss, output, result


def _learnable(loss: Tensor | float, output: object, adapter: OutputAdapter) -> Tensor:
    """Return a loss as a tensor that ``backward`` may be called on."""
    count = loss.numel() if isinstance(loss, Tensor) else 1
    if not isinstance(loss, Tensor | float | int) or count != 1:
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"supervised must return one number or a tensor of one, got {found}; take the mean, "
            "or return 0.0 for images without labels"
        )
    if isinstance(loss, Tensor) and loss.requires_grad:
        return loss
    # Zero gradients instead of none: gradient scalers and distributed networks want some.
    return loss + 0.0 * sum(head.probs.sum() for head in adapter(output))
