"""Random chains as a transform of TorchIO, with history, replay and the inverse of geometry.

TorchIO's tensors are ``(C, X, Y, Z)``; slices, which lie along Z, come first in here. The spacing
is the image's own. Seeds come from torch's global generator, as in all of TorchIO.

Example::

    import torchio
    subject = torchio.Subject(
        cine=torchio.ScalarImage(tensor=torch.rand(1, 40, 32, 9)),
        heart=torchio.LabelMap(tensor=torch.zeros(1, 40, 32, 9, dtype=torch.uint8)),
    )
    moved = RandomChain(classic_chain())(subject)
    again = moved.history[-1](subject)
    back = moved.apply_inverse_transform()
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchio import LabelMap, SpatialTransform, Subject
from torchio.transforms.augmentation import RandomTransform

from augment.adapters.codes import apply_draw, draw_for, image_of, move_codes, reversed_axes
from augment.chain import Applied, Chain


class RandomChain(RandomTransform, SpatialTransform):
    """Change the images of a subject by one random chain, label maps by its geometry.

    Args:
        chain: what to draw from.
        options: ``p``, ``include``, ``exclude`` and the like, of all transforms of TorchIO.
    """

    def __init__(self, chain: Chain, **options: Any) -> None:
        super().__init__(**options)
        self.chain = chain

    def apply_transform(self, subject: Subject) -> Subject:
        """Draw a seed and apply its chain."""
        transform = SeededChain(self.chain, self._get_random_seed(), **self._get_base_args())
        return transform(subject)


class SeededChain(SpatialTransform):
    """Change the images of a subject by the chain of a seed.

    Args:
        chain: what to draw from.
        seed: of the draw.
        invert: bring images and labels back instead; intensities stay as they are.
        options: as in ``RandomChain``. Images that ``keep`` puts aside never move.
    """

    def __init__(self, chain: Chain, seed: int, *, invert: bool = False, **options: Any) -> None:
        if options.get("keep") and options.get("include") is None:
            # They join the subject unmoved; a history, which forgets keep, would take them along.
            options["exclude"] = [*(options.get("exclude") or ()), *options["keep"].values()]
        super().__init__(**options)
        self.chain, self.seed, self.invert = chain, seed, invert
        self.args_names = ["chain", "seed", "invert"]

    def apply_transform(self, subject: Subject) -> Subject:
        """Apply the draw to every image; all have one shape and spacing."""
        subject.check_consistent_space()
        for image in self.get_images(subject):
            tensor = reversed_axes(image.data)
            draw = draw_for(self.chain, tensor.shape, image.spacing[::-1], seed=self.seed)
            labels = isinstance(image, LabelMap)
            # The geometry of a draw does not depend on intensities.
            applied = apply_draw(draw, self.chain, tensor)
            moved = (
                move_codes(applied, tensor, back=self.invert)
                if labels
                else self._image(applied, tensor)
            )
            image.set_data(reversed_axes(moved).contiguous())
        return subject

    def _image(self, applied: Applied, tensor: Tensor) -> Tensor:
        if not self.invert:
            return image_of(applied, tensor)
        if not applied.geometry.moves:
            return tensor
        with torch.no_grad():
            return applied.geometry.back(tensor[None].float(), exclusive=False)[0]

    def is_invertible(self) -> bool:
        """Geometry is; intensities stay changed."""
        return True

    def inverse(self) -> SeededChain:
        """Return the transform that brings the same images and labels back."""
        # What was kept is in the subject by now: to keep again would replace it.
        options = self._get_base_args() | {"keep": None}
        return SeededChain(self.chain, self.seed, invert=not self.invert, **options)
