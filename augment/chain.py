"""Chains of transforms: a random choice in a random order, all geometry in one resample.

A chain draws a ``Draw``: which transforms, in which order, with which parameters. A draw is data:
apply it again and the same bits come out. Intensities that precede the first geometric transform
change the image before the one resample, the others after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from augment.geometry import Geometry
from augment.lattice import Lattice
from augment.transforms.base import Geometric, Params, Photometric, Transform, uniform
from cardiogen.ops import Padding, one_hot

_SEEDS = 2**63 - 1
_ROUNDED = 1e-3  # of probabilities in half precision


@dataclass(frozen=True, eq=False)
class Draw:
    """Transforms in the order in which they act, with the parameters of every sample.

    Attributes:
        transforms: the chosen ones.
        params: theirs, in the same order.
        lattice: of the images that they were drawn for.
    """

    transforms: tuple[Transform, ...]
    params: tuple[Params, ...]
    lattice: Lattice

    def with_free(self, free: Sequence[Tensor]) -> Draw:
        """Return the draw with other free parameters."""
        params = (p.with_free(f) for p, f in zip(self.params, free, strict=True))

        return replace(self, params=tuple(params))

    def projected(self) -> Draw:
        """Return the draw with all parameters brought back into their bounds."""
        return self.with_free(
            [t.project(p, self.lattice).free
             for t, p in zip(self.transforms, self.params, strict=True)]
        )  # fmt: skip

    def chosen(self, other: Draw, where: Tensor) -> Draw:
        """Return these parameters where ``where`` ``(B,)`` is true, the other's elsewhere."""
        params = (a.chosen(b, where) for a, b in zip(self.params, other.params, strict=True))

        return replace(self, params=tuple(params))

    def detached(self) -> Draw:
        """Return the draw without gradients."""
        return self.with_free([p.free.detach() for p in self.params])

    def strengths(self) -> dict[str, Tensor]:
        """Return how much of its bound every transform uses, ``(B,)`` by name."""
        found: dict[str, Tensor] = {}
        for transform, params in zip(self.transforms, self.params, strict=True):
            used = transform.strength(params.free.detach(), self.lattice)
            found[transform.name] = torch.maximum(used, found.get(transform.name, used))

        return found

    def apply(self, image: Tensor, *, padding: Padding = "border") -> Applied:
        """Return the changed image with everything that moves along with it.

        Args:
            image: ``(B, C, *S)`` on the draw's lattice.
            padding: what lies outside the image.
        """
        own, lattice = Lattice.of(image, spacing=self.lattice.spacing), self.lattice
        if own.shape != lattice.shape or own.channels != lattice.channels:
            raise ValueError(
                "image must have the channels and shape of its draw, "
                f"{(lattice.channels, *lattice.shape)}, got {tuple(image.shape[1:])}"
            )
        # Coordinates in half precision would misplace voxels; intensities follow the image.
        with torch.autocast(image.device.type, enabled=False):
            return _applied(self, image, padding)


@dataclass(frozen=True, eq=False)
class Applied:
    """An image that a draw has changed.

    Attributes:
        image: ``(B, C, *S)``.
        geometry: how positions moved.
        covers: share of each voxel still imaged, before and after the resample, or None.
    """

    image: Tensor
    geometry: Geometry
    covers: tuple[Tensor | None, Tensor | None]

    @cached_property
    def valid(self) -> Tensor:
        """Voxels of the result that show the image, ``(B, 1, *S)`` in [0, 1]."""
        before, after = self.covers
        before = None if before is None else self.geometry.labels(before, exclusive=False)

        return self._product(self.geometry.in_view if self.geometry.moves else None, before, after)

    @cached_property
    def valid_back(self) -> Tensor:
        """Voxels of the original image that the result shows, ``(B, 1, *S)`` in [0, 1]."""
        before, after = self.covers
        after = None if after is None else self.geometry.back(after, exclusive=False)
        seen = self.geometry.inverse_in_view if self.geometry.moves else None

        return self._product(seen, before, after)

    def labels(self, labels: Tensor, *, exclusive: bool = True) -> Tensor:
        """Return the labels of the result: out of view is background.

        Args:
            labels: one-hot or probabilities ``(B, K, *S)``.
            exclusive: channels sum to one; False for overlapping regions.
        """
        with torch.autocast(labels.device.type, enabled=False):
            moved = self.geometry.labels(labels, exclusive=exclusive)
            if self.covers == (None, None):
                return moved
            kept = moved * self.valid.to(moved)
        if not exclusive or labels.shape[1] == 1:
            return kept

        return torch.cat([1 - kept[:, 1:].sum(dim=1, keepdim=True), kept[:, 1:]], dim=1)

    def back(self, probs: Tensor, *, exclusive: bool = True) -> Tensor:
        """Return probabilities on the result as probabilities on the original image."""
        with torch.autocast(probs.device.type, enabled=False):
            wide = probs.to(torch.promote_types(probs.dtype, torch.float32))
            return self.geometry.back(wide, exclusive=exclusive)

    def _product(self, *parts: Tensor | None) -> Tensor:
        lattice, total = self.geometry.lattice, None
        for part in parts:
            if part is not None:
                part = part.detach().to(self.image.device).float()
                total = part if total is None else total * part
        if total is None:
            return torch.ones(len(self.image), 1, *lattice.shape, device=self.image.device)

        return total


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A set of transforms to draw chains from.

    Attributes:
        transforms: what to choose from.
        least: fewest that act on a batch.
        most: most that act; None for all.
        shuffle: random order; otherwise that of ``transforms``.
        probability: of each chosen transform to act on a sample.
        padding: what lies outside of images.
    """

    transforms: tuple[Transform, ...]
    least: int = 1
    most: int | None = None
    shuffle: bool = True
    probability: float = 1.0
    padding: Padding = "border"

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))
        most = len(self.transforms) if self.most is None else self.most
        if not self.transforms or not all(isinstance(t, Transform) for t in self.transforms):
            raise ValueError(f"transforms must be one transform or more, got {self.transforms}")
        if not all(isinstance(n, int) for n in (self.least, most)):
            raise ValueError(f"least and most must be whole, got {self.least} and {self.most}")
        if not 0 <= self.least <= most <= len(self.transforms):
            raise ValueError(
                f"least and most must satisfy 0 <= least <= most <= {len(self.transforms)}, "
                f"got {self.least} and {most}"
            )
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {self.probability}")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Draw:
        """Draw transforms, their order, and parameters for every sample.

        Args:
            lattice: of the images, see ``Lattice.of``.
            generator: source of all randomness; the global one is neither read nor changed.
        """
        return self.sample_params(self._choice(generator), lattice, generator=generator)

    def sample_params(
        self, transforms: Sequence[Transform], lattice: Lattice, *, generator: torch.Generator
    ) -> Draw:
        """Draw parameters for transforms that are already chosen: another start of a search.

        Every transform draws from a generator of its own: what noise of more channels takes moves
        no other transform, so that images and label maps of any channels move alike.
        """
        params = []
        for transform in transforms:
            own = _offspring(generator)
            chance = uniform((lattice.batch,), generator=own, low=0.0)
            drawn = transform.sample(lattice, generator=own)
            params.append(
                drawn if self.probability == 1 else drawn.kept(chance < self.probability)
            )

        return Draw(tuple(transforms), tuple(params), lattice)

    def augment(
        self,
        image: Tensor,
        labels: Tensor | None = None,
        *,
        spacing: Sequence[float],
        generator: torch.Generator,
        classes: int | None = None,
        to_heart: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return randomly changed images and their labels: plain augmentation.

        Args:
            image: ``(B, C, *S)``, finite.
            labels: one-hot or probabilities ``(B, K, *S)``, an integer map ``(B, 1, *S)``, or
                None.
            spacing: mm per axis.
            generator: source of all randomness.
            classes: number of classes with background, for an integer map.
            to_heart: see ``Lattice``.

        Returns:
            Image, and probabilities ``(B, K, *S)`` (see ``ops.argmax_labels``) or None.
        """
        check_finite(image)
        lattice = Lattice.of(image, spacing=spacing, to_heart=to_heart)
        if labels is not None:
            labels = as_one_hot(labels, image, classes=classes)
        with torch.no_grad():
            draw = placed(self.sample(lattice, generator=generator), image)
            applied = draw.apply(image, padding=self.padding)
            moved = None if labels is None else applied.labels(labels)

        return applied.image, moved

    def _choice(self, generator: torch.Generator) -> list[Transform]:
        total = len(self.transforms)
        most = total if self.most is None else self.most
        device = generator.device
        span = (most - self.least + 1,)
        length = self.least + int(torch.randint(*span, (1,), generator=generator, device=device))
        order = torch.randperm(total, generator=generator, device=device)[:length].tolist()

        return [self.transforms[i] for i in (order if self.shuffle else sorted(order))]


def _offspring(generator: torch.Generator) -> torch.Generator:
    """Return a generator that is seeded by another, from which it takes one number."""
    device = generator.device
    seed = torch.randint(_SEEDS, (), generator=generator, device=device, dtype=torch.int64)

    return torch.Generator(device=device).manual_seed(int(seed))


def placed(draw: Draw, image: Tensor) -> Draw:
    """Return a draw with its parameters on the device of an image, float32 or wider."""
    dtype = torch.promote_types(image.dtype, torch.float32)
    params = (p.mapped(partial(_to, image.device, dtype)) for p in draw.params)

    return replace(draw, params=tuple(params))


def as_one_hot(labels: Tensor, image: Tensor, *, classes: int | None = None) -> Tensor:
    """Return labels as channels ``(B, K, *S)`` that belong to an image.

    Codes may be floats, as some loaders have them: one channel of whole numbers where ``classes``
    is given, and more than one.

    Raises:
        ValueError: for codes outside ``0 .. classes - 1``, probabilities outside [0, 1], NaN, and
            other sizes than the image's.
    """
    check_finite(labels, "labels")
    dtype = torch.promote_types(image.dtype, torch.float32)
    coded = not labels.is_floating_point()
    if coded and classes is None:
        raise ValueError("classes must be given with an integer label map, got None")
    if not coded and labels.shape[1] == 1 and classes is not None and classes > 1:
        if not torch.equal(labels, labels.round()):
            raise ValueError(
                f"labels of one channel must be codes 0 to {classes - 1}, got fractions: give "
                "probabilities of all classes, or no classes"
            )
        labels, coded = labels.long(), True
    if coded:
        labels = one_hot(labels, classes, dtype=dtype)
    elif labels.numel() and not (labels.min() >= -_ROUNDED and labels.max() <= 1 + _ROUNDED):
        raise ValueError(
            f"labels must be probabilities in [0, 1], got {labels.min():g} to {labels.max():g}; "
            "give codes as integers, with classes"
        )
    if len(labels) != len(image) or labels.shape[2:] != image.shape[2:]:
        raise ValueError(
            f"labels must have the batch and voxels of image, {tuple(image.shape)}, "
            f"got {tuple(labels.shape)}"
        )

    return labels


def check_finite(image: Tensor, name: str = "image") -> None:
    """Refuse NaN and infinities, and say which sample holds them."""
    # The sum is infinite or NaN if any value is, in one pass; a huge finite one is looked at.
    if math.isfinite(image.detach().sum(dtype=torch.float64).item()):
        return
    bad = ~image.detach().isfinite().flatten(1).all(dim=1)
    if bad.any():
        raise ValueError(
            f"{name} must be finite, got NaN or infinity in sample {int(bad.nonzero()[0])}"
        )


def _applied(draw: Draw, image: Tensor, padding: Padding) -> Applied:
    lattice = draw.lattice
    steps = list(zip(draw.transforms, draw.params, strict=True))
    moving = [(t, p) for t, p in steps if isinstance(t, Geometric)]
    smooth, slices = (
        [_pull_back(t, p, lattice) for t, p in moving if t.slicewise is slicewise]
        for slicewise in (False, True)
    )
    geometry = Geometry(smooth, lattice, slices=slices)
    covers: list[Tensor | None] = [None, None]
    resampled = False
    for transform, params in steps:
        if isinstance(transform, Photometric):
            image = transform.apply(image, params, lattice)
            cover = transform.coverage(params, lattice)
            if cover is not None:
                kept = covers[resampled]
                covers[resampled] = cover if kept is None else kept * cover
        elif not resampled:
            image, resampled = geometry.image(image, padding=padding), True

    return Applied(image, geometry, (covers[0], covers[1]))


def _pull_back(transform: Geometric, params: Params, lattice: Lattice) -> Callable[[bool], Tensor]:
    return lambda inverse: transform.pull_back(params, lattice, inverse=inverse)


def _to(device: torch.device, dtype: torch.dtype, tensor: Tensor) -> Tensor:
    return tensor.to(device=device, dtype=dtype)
