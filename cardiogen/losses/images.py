"""Image distances of one modality: squared differences, global and local correlation.

Convention: the three ignore nothing, an affine change of intensity, and a slowly varying one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cardiogen.losses.masks import channel_means, paired, standardized
from cardiogen.losses.term import ImageTerm, Reduction, Weight, gaussian_log_normalizer
from cardiogen.losses.windows import reach_voxels, window_means
from cardiogen.ops import box, gaussian


@dataclass(frozen=True, kw_only=True)
class MSE(ImageTerm):
    """Squared difference ``(f - m)^2``, or ``(f - m)^2 / (2 sigma^2)`` if a noise is given.

    Attributes:
        sigma: standard deviation of Gaussian noise, in units of intensity; None for the plain
            square, which is ``sigma = sqrt(1/2)``.
    """

    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and not self.sigma > 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}")

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the squared difference at every voxel, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)

        return self._precision() * (fixed - moved).square().mean(dim=1, keepdim=True)

    def log_normalizer(
        self,
        shape: tuple[int, ...],
        *,
        spacing: tuple[float, ...],
        weight: Weight = 1.0,
        reduction: Reduction = "sum",
    ) -> Tensor:
        """Return ``log Z`` of the Gaussian density of the moved image given the fixed one."""
        channels, *sizes = shape
        voxels = torch.Size(sizes).numel()
        precisions = torch.full(
            (channels * voxels,), self._precision() / channels, dtype=torch.float64
        )

        return gaussian_log_normalizer(precisions, voxels, weight=weight, reduction=reduction)

    def prox(self, fixed: Tensor, moved: Tensor, *, step: float | Tensor) -> Tensor:
        """Return the image y that minimizes ``step * sum map(fixed, y) + |y - moved|^2 / 2``.

        Args:
            fixed: ``(B, C, *S)``.
            moved: ``(B, C, *S)``.
            step: positive, a number or broadcastable to ``moved``.
        """
        pull = 2 * self._precision() / moved.shape[1] * step

        return (moved + pull * fixed) / (1 + pull)

    def prox_linearized(
        self, displacement: Tensor, residual: Tensor, slope: Tensor, *, step: float | Tensor
    ) -> Tensor:
        """Return the displacement u that minimizes the linearized data term near another one.

        ``min_u step * a (r + g . (u - v))^2 + |u - v|^2 / 2`` at every voxel, with a = 1 (or
        ``1 / (2 sigma^2)``), solved by ``u = v - g k r / (1 + k |g|^2)``, ``k = 2 a step``: the
        data step of Thirion's demons and of VR-Net (Jia et al., IEEE Trans. Med. Imaging 2022).

        Args:
            displacement: v, ``(B, d, *S)``, voxels.
            residual: r = moved - fixed at v, ``(B, 1, *S)``.
            slope: g, gradient of the moved image per voxel, ``(B, d, *S)``.
            step: positive, a number or broadcastable to ``residual``.
        """
        pull = 2 * self._precision() * step
        power = slope.square().sum(dim=1, keepdim=True)

        return displacement - slope * (pull * residual / (1 + pull * power))

    def _precision(self) -> float:
        return 1.0 if self.sigma is None else 0.5 / self.sigma**2


@dataclass(frozen=True, kw_only=True)
class NCC(ImageTerm):
    """Global correlation: ``1 - r``, or ``1 - r^2`` where contrast may be inverted.

    With ``f`` and ``m`` standardized over the mask, ``1 - r`` is the mean of ``(f - m)^2 / 2``
    and ``1 - r^2`` that of ``(f - r m)^2``. An image that is flat over the mask has r = 0.

    Attributes:
        squared: whether the sign of the correlation is ignored.
    """

    squared: bool = False

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the share of every voxel in ``1 - r`` or ``1 - r^2``, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        fixed, moved = standardized(fixed, mask), standardized(moved, mask)
        if not self.squared:
            return (fixed - moved).square().mean(dim=1, keepdim=True) / 2
        correlation = channel_means(fixed * moved, mask)

        return (fixed - correlation * moved).square().mean(dim=1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class LNCC(ImageTerm):
    """Local correlation ``1 - c^2`` in windows around every voxel, c a cosine with a floor.

    ``c = (cov + n) / sqrt((var_f + n) (var_m + n))``: the windowed moments of images that are
    first standardized over the mask, and ``n = noise^2`` the variance below which a window counts
    as flat. Two flat windows match (0), a flat and a textured one do not (1), equal images have
    exactly 0, and by Cauchy and Schwarz no window can do better. The offset is taken out before
    anything is squared and the floor is a hundred times the rounding of float32, so that bright
    flat backgrounds are safe. Five moments are filtered, three of them again for the gradient.

    Attributes:
        radius_mm: half width of the window; the finest axis has at least three voxels.
        window: ``"box"``, or ``"gaussian"`` of the same variance as that box.
        noise: share of the image's standard deviation.
        squared: whether the sign of the correlation is ignored (else ``1 - c``).
    """

    radius_mm: float = 6.0
    window: Literal["box", "gaussian"] = "box"
    noise: float = 0.03
    squared: bool = True

    def __post_init__(self) -> None:
        if self.window not in ("box", "gaussian"):
            raise ValueError(f"window must be box or gaussian, got {self.window!r}")
        if not (self.radius_mm > 0 and self.noise > 0):
            raise ValueError(
                f"radius_mm and noise must be positive, got {self.radius_mm} and {self.noise}"
            )

    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the mismatch of the window around every voxel, ``(B, 1, *S)``."""
        fixed, moved = paired(fixed, moved, spacing, mask)
        f, m = standardized(fixed, mask), standardized(moved, mask)
        # Two calls, so that a fixed image without gradient is not filtered backwards either.
        mean_f, ff = self._window_means([f, f * f], spacing, mask)
        mean_m, mm, fm = self._window_means([m, m * m, f * m], spacing, mask)

        floor = self.noise**2
        var_f = (ff - mean_f * mean_f).clamp(min=0) + floor
        var_m = (mm - mean_m * mean_m).clamp(min=0) + floor
        cov = fm - mean_f * mean_m + floor
        cosine = cov * cov / (var_f * var_m)
        if not self.squared:
            cosine = cov * (var_f * var_m).rsqrt()

        return 1 - cosine.mean(dim=1, keepdim=True)

    def _window_means(
        self, images: list[Tensor], spacing: tuple[float, ...], mask: Tensor | None
    ) -> tuple[Tensor, ...]:
        stacked = torch.cat(images, dim=1)
        means = window_means(stacked, mask, lambda image: self._smooth(image, spacing))

        return means.chunk(len(images), dim=1)

    def _smooth(self, image: Tensor, spacing: tuple[float, ...]) -> Tensor:
        shape = image.shape[2:]
        radii = reach_voxels(self.radius_mm, shape, spacing, at_least=1)
        if self.window == "box":
            return box(image, radii)
        finest = min(s for s, size in zip(spacing, shape, strict=True) if size > 1)

        return gaussian(image, max(self.radius_mm, finest) / 3**0.5, spacing=spacing)
