"""Loss of resolution: blur, and acquisition with larger voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.axes import apply_along, blur_matrix, coarse_matrix
from augment.transforms.base import Params, Photometric, check_bound, uniform

# Standard deviation that takes voxels (full width at half maximum 1) to voxels of f is
# 0.4247 sqrt(f^2 - 1) (Cardoso et al., MICCAI 2015).
_FWHM_TO_SIGMA = 0.42466090014400953


@dataclass(frozen=True, kw_only=True)
class Blur(Photometric):
    """Smooth by a Gaussian that is as wide along every axis, in mm.

    Attributes:
        sigma_mm: largest standard deviation.
    """

    low: ClassVar[float] = 0.0
    sigma_mm: float = 1.5

    def __post_init__(self) -> None:
        check_bound(self.sigma_mm, "sigma_mm")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw the widths ``(B, 1)`` uniformly."""
        return Params(free=uniform((lattice.batch, 1), generator=generator, low=0.0))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the smoothed image."""
        sigma = params.free[:, 0] * self.sigma_mm
        matrices = [
            blur_matrix((sigma / step).square(), size)
            for size, step in zip(lattice.shape, lattice.spacing, strict=True)
        ]

        return apply_along(image, matrices)


@dataclass(frozen=True, kw_only=True)
class LowResolution(Photometric):
    """Acquire with larger voxels in the plane and interpolate back: blur, then fewer samples.

    Attributes:
        voxel_mm: largest voxel; images with larger ones stay as they are.
    """

    low: ClassVar[float] = 0.0
    voxel_mm: float = 3.0

    def __post_init__(self) -> None:
        check_bound(self.voxel_mm, "voxel_mm")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw the share of the added size ``(B, 1)``."""
        return Params(free=uniform((lattice.batch, 1), generator=generator, low=0.0))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the image at the resolution of larger voxels."""
        share = params.free[:, 0]
        matrices: list[Tensor | None] = [None] * (lattice.ndim - 2)
        for size, step in zip(lattice.shape[-2:], lattice.spacing[-2:], strict=True):
            added = max(self.voxel_mm / step - 1, 0.0) * share
            blur = blur_matrix(_FWHM_TO_SIGMA**2 * added * (added + 2), size)
            matrices.append(coarse_matrix(1 + added, size) @ blur)

        return apply_along(image, matrices)
