"""Patches of slices, real and synthetic, as a function of their number and a generator."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

import torch
from torch import Tensor

from augment.segmentation.arms import Batch
from augment.segmentation.config import ImageConfig
from augment.segmentation.prepare import Frame, indicator_channels
from cardiogen.base import CardiogenError
from cardiogen.engine.fit import FitConfig


@dataclass(frozen=True, eq=False)
class SliceExamples:
    """The slices of some frames; one slice is one example.

    Attributes:
        frames: with labels, all of one in-plane spacing.
        config: how patches are placed.
        places: frame and slice of every example.
    """

    frames: tuple[Frame, ...]
    config: ImageConfig
    places: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        if any(frame.structures is None for frame in self.frames):
            raise ValueError("frames must have labels, got one without")
        places = [(f, d) for f, frame in enumerate(self.frames) for d in range(len(frame.image))]
        object.__setattr__(self, "places", places)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def spacing(self) -> tuple[float, float]:
        """Distance of the pixels of a patch, mm."""
        return (self.config.spacing_mm, self.config.spacing_mm)

    def patch(self, index: int, generator: torch.Generator) -> Batch:
        """Return a random patch: a batch of one, with ``(1, 1, P, P)`` and ``(1, 4, P, P)``."""
        number, depth = self.places[index]
        frame = self.frames[number]
        size = self.config.patch
        start = _start(frame, self.config, generator)
        image = cut(frame.image[depth][None], start, size, value=float(frame.image.min()))
        shares = cut(frame.structures[:, depth], start, size, value=0.0)
        shift = torch.eye(4, dtype=torch.float64)
        shift[:3, 3] = torch.tensor([depth, *start], dtype=torch.float64)
        return Batch(image[None], indicator_channels(shares[None]), (frame.to_heart @ shift)[None])

    def fingerprint(self) -> str:
        """Return a hash of images, labels and their places."""
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(f"{frame.subject_id}/{frame.number}/{frame.image.shape}".encode())
            digest.update(frame.image.numpy().tobytes())
            digest.update(frame.structures.numpy().tobytes())
        return digest.hexdigest()


def cut(planes: Tensor, start: tuple[int, int], size: int, *, value: float) -> Tensor:
    """Return the window ``(C, size, size)`` of ``(C, H, W)`` at ``start``, ``value`` outside."""
    (top, left), (height, width) = start, planes.shape[1:]
    bottom, right = min(top + size, height), min(left + size, width)
    inside = planes[:, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if inside.shape[1:] == (size, size):
        return inside
    window = planes.new_full((len(planes), size, size), value)
    rows, columns = max(-top, 0), max(-left, 0)
    height, width = inside.shape[1:]
    window[:, rows : rows + height, columns : columns + width] = inside
    return window


def _start(frame: Frame, config: ImageConfig, generator: torch.Generator) -> tuple[int, int]:
    """Draw the first row and column of a patch."""
    chance, rows, columns = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    shift = torch.randn(2, generator=generator, dtype=torch.float64) * config.jitter_mm
    shift = (shift / config.spacing_mm).tolist()
    starts = []
    for n, middle, part, away in zip(
        frame.image.shape[1:], frame.center, (rows, columns), shift, strict=True
    ):
        spare = n - config.patch
        # Where a patch is larger than the slice, the slice lies anywhere within it.
        low, high = min(spare, 0), max(spare, 0)
        if chance < config.heart_share:
            wanted = round(middle + away - (config.patch - 1) / 2)
            starts.append(min(max(wanted, low), high))
        else:
            starts.append(low + min(int(part * (high - low + 1)), high - low))
    return starts[0], starts[1]


def mix(
    indices: Listing[int],
    real: SliceExamples | None,
    synthetic: SliceExamples | None,
    share: float,
    generator: torch.Generator,
) -> Batch:
    """Return patches ``(B, 1, P, P)`` and shares of classes ``(B, 4, P, P)``.

    Args:
        indices: of examples of ``real``, or of ``synthetic`` if there are no real ones.
        real: examples of patients.
        synthetic: examples that take the place of real ones.
        share: probability of that.
        generator: on the CPU.
    """
    patches = []
    for index in indices:
        chance, which = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if real is None or (synthetic is not None and chance < share):
            # Without real hearts the order of the epoch is that of the synthetic ones.
            number = index if real is None else int(which * len(synthetic))
            patches.append(synthetic.patch(number, generator))
        else:
            patches.append(real.patch(index, generator))
    return Batch(*(torch.cat(parts) for parts in zip(*patches, strict=True)))


def require_validation(config: FitConfig, count: int) -> None:
    """Refuse (C28) a training that is to be validated on no heart.

    Args:
        config: of the training.
        count: hearts, or frames of them, that it may be validated on.
    """
    if config.validate_every and not count:
        raise CardiogenError(
            "C28", "data.validation",
            found=f"no heart to validate on, with fit.validate_every = {config.validate_every}",
            expected="a subject of a cohort at least",
            remedy="data.validation = 1 or more, or fit.validate_every = 0 and no fit.keep_best",
        )  # fmt: skip


def require_examples(real: SliceExamples | None, synthetic: SliceExamples | None) -> None:
    """Refuse a training without any heart (C28)."""
    if not (real or synthetic):
        raise CardiogenError(
            "C28", "data", found="no heart to learn from",
            expected="a cohort, synthetic hearts, or both",
            remedy="data.cohort or data.synthetic in the settings",
        )  # fmt: skip
