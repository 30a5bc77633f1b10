"""What a batch of images is read on: how many, their channels, voxels and millimeters.

Convention: axes in the order of the tensor, ``(D, H, W)`` or ``(H, W)``; spacing is in mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from cardiogen.ops import check_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """The sizes that transforms need of a batch ``(B, C, *S)``.

    Attributes:
        shape: voxels per axis S, two or three.
        spacing: mm per axis.
        batch: samples B.
        channels: C.
        to_heart: voxel ``(d, h, w)`` to heart frame (mm) of every sample, ``(B, 4, 4)``; only what
            moves by a model of the heart needs it. A 2D image is the slice d = 0.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    batch: int = 1
    channels: int = 1
    to_heart: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "spacing", tuple(float(s) for s in self.spacing))
        if len(self.shape) not in (2, 3) or min(self.shape) < 1:
            raise ValueError(f"shape must be 2 or 3 positive numbers, got {self.shape}")
        if len(self.spacing) != len(self.shape) or not all(
            0 < s < float("inf") for s in self.spacing
        ):
            raise ValueError(
                f"spacing must be {len(self.shape)} positive numbers (mm per axis), "
                f"got {self.spacing}"
            )
        if self.batch < 1 or self.channels < 1:
            raise ValueError(
                "image must have at least one sample and one channel, "
                f"got {self.batch} and {self.channels}"
            )
        if self.to_heart is not None:
            check_shape(self.to_heart, "B 4 4", "to_heart", B=self.batch)

    @classmethod
    def of(
        cls, image: Tensor, *, spacing: Sequence[float], to_heart: Tensor | None = None
    ) -> Lattice:
        """Return the lattice of a batch ``(B, C, *S)``.

        Raises:
            ValueError: for integers, another number of axes, and empty batches.
        """
        if image.ndim not in (4, 5) or not image.is_floating_point():
            raise ValueError(
                "image must be floating point of shape (B, C, H, W) or (B, C, D, H, W), "
                f"got {image.dtype} of shape {tuple(image.shape)}"
            )
        batch, channels, *shape = image.shape

        return cls(
            shape=tuple(shape), spacing=tuple(spacing), batch=batch, channels=channels,
            to_heart=to_heart,
        )  # fmt: skip

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    @property
    def extent_mm(self) -> tuple[float, ...]:
        """Distance between the first and last voxels, per axis."""
        return tuple((n - 1) * s for n, s in zip(self.shape, self.spacing, strict=True))

    def part(self, index: Tensor) -> Lattice:
        """Return the lattice of some of the samples, given by their numbers ``(K,)``."""
        to_heart = None if self.to_heart is None else self.to_heart[index.to(self.to_heart.device)]

        return replace(self, batch=len(index), to_heart=to_heart)
