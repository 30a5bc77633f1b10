"""Random chains as a dictionary transform of MONAI, and the adversary as a step of its engine.

MONAI's tensors are ``(C, X, Y, Z)``; slices, which lie along Z, come first in here. The spacing is
that of a MetaTensor's affine. Draws follow ``set_random_state``, as all of MONAI.

Example::

    from monai.transforms import Compose
    transform = Compose([ChainD(["image"], ["label"], classic_chain(), spacing=(1.4, 1.4, 8.0))])
    transform.set_random_state(seed=0)
    sample = {"image": torch.rand(1, 40, 32, 9), "label": torch.zeros(1, 40, 32, 9).byte()}
    moved = transform(sample)

and, with pytorch-ignite installed, for ``monai.engines.SupervisedTrainer``::

    SupervisedTrainer(..., iteration_update=AdversarialUpdate(adversary, spacing=(1.4, 1.4, 8.0)))
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from augment.adapters.codes import apply_draw, draw_for, image_of, move_codes, reversed_axes
from augment.adapters.monai_step import AdversarialUpdate
from augment.chain import Applied, Chain

__all__ = ["AdversarialUpdate", "ChainD"]

_SEEDS = 2**31 - 1


class ChainD(RandomizableTransform, MapTransform):
    """Change images by a random chain, and move label maps with them.

    Args:
        keys: of images, all of one shape; the same draw acts on all.
        label_keys: of label maps of whole numbers.
        chain: what to draw from.
        spacing: mm along X, Y[, Z]; None takes it from the first image's MetaTensor.
        probability: of a sample to be changed.
        allow_missing_keys: whether keys may be absent.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_keys: KeysCollection,
        chain: Chain,
        *,
        spacing: Sequence[float] | None = None,
        probability: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        images, labels = _names(keys), _names(label_keys)
        MapTransform.__init__(self, (*images, *labels), allow_missing_keys)
        RandomizableTransform.__init__(self, probability)
        self.label_keys, self.chain, self.spacing = frozenset(labels), chain, spacing
        self._seed = 0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to act, and the seed of the chain."""
        super().randomize(None)
        self._seed = int(self.R.randint(_SEEDS))

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Return a sample with changed images and moved label maps."""
        moved = dict(data)
        self.randomize()
        if not self._do_transform:
            return moved
        applied: Applied | None = None
        # Images first: labels move by what has been made of them.
        for key in sorted(self.key_iterator(moved), key=lambda key: key in self.label_keys):
            tensor = reversed_axes(torch.as_tensor(_plain(moved[key])))
            if key in self.label_keys:
                if applied is None:
                    raise ValueError(f"labels {key!r} need an image beside them, got none")
                result = move_codes(applied, tensor)
            else:
                applied = self._applied(tensor, moved[key])
                result = image_of(applied, tensor)
            moved[key] = _like(reversed_axes(result), moved[key])
        return moved

    def _applied(self, image: Tensor, given: Tensor) -> Applied:
        spacing = self.spacing if self.spacing is not None else _spacing(given)
        draw = draw_for(self.chain, image.shape, tuple(spacing)[::-1], seed=self._seed)
        return apply_draw(draw, self.chain, image)


def _names(keys: KeysCollection) -> tuple[Hashable, ...]:
    return (keys,) if isinstance(keys, str) else tuple(keys)


def _plain(tensor: Any) -> Any:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _like(tensor: Tensor, given: Any) -> Tensor:
    """Return a tensor with the metadata of the given one."""
    if isinstance(given, MetaTensor):
        return MetaTensor(
            tensor.contiguous(), meta=given.meta, applied_operations=given.applied_operations
        )
    return tensor.contiguous()


def _spacing(image: Any) -> tuple[float, ...]:
    if not isinstance(image, MetaTensor):
        raise ValueError("spacing must be given for images that are no MetaTensor, got None")
    return tuple(float(step) for step in image.pixdim[: image.ndim - 1])
