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
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from augment.adversary import Adversary, Result
from augment.search import Network


def adversarial_loss(
    network: Network,
    image: Tensor,
    supervised: Callable[[object], Tensor],
    *,
    adversary: Adversary,
    spacing: Sequence[float],
    weight: float = 1.0,
) -> tuple[Tensor, object, Result | None]:
    """Return ``supervised(f(x)) + weight * disagreement``, the output f(x), and the search.

    Args:
        network: gives an output that the adversary's adapter understands.
        image: ``(B, C, *S)``.
        supervised: loss of the output; constantly 0 for images without labels.
        adversary: what searches; with ``steps=0`` its transforms are random.
        spacing: mm per axis.
        weight: of the disagreement; 0 leaves it out, and the search too.
    """
    if weight < 0:
        raise ValueError(f"weight must not be negative, got {weight}")
    output = network(image)
    loss = supervised(output)
    if weight == 0:
        return loss, output, None
    result = adversary.consistency_loss(network, image, spacing=spacing, reference=output)
    return loss + weight * result.loss, output, result
