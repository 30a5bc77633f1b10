"""What goes wrong with stacks of slices: breaths between them, missing ends, thick slices.

Convention: slices lie along D of ``(B, C, D, H, W)``; which end is the base is not assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.axes import apply_along, blur_matrix
from augment.transforms.base import (
    Geometric,
    Params,
    Photometric,
    check_bound,
    need_slices,
    uniform,
)

# Full width at half maximum of a Gaussian to its standard deviation.
_FWHM_TO_SIGMA = 0.42466090014400953


@dataclass(frozen=True, kw_only=True)
class SliceShift(Geometric):
    """Shift every slice in its plane: each was acquired in another breath-hold.

    In a chain it acts after all other geometry, wherever it was drawn: slices of the result move,
    and predictions on them are moved back one by one before anything is read between slices.

    Attributes:
        shift_mm: largest shift along each of H and W.
    """

    slicewise: ClassVar[bool] = True
    shift_mm: float = 5.0

    def __post_init__(self) -> None:
        check_bound(self.shift_mm, "shift_mm")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw the shifts ``(B, 2, D)`` uniformly."""
        need_slices(lattice, self.name)

        return Params(free=uniform((lattice.batch, 2, lattice.shape[0]), generator=generator))

    def pull_back(self, params: Params, lattice: Lattice, *, inverse: bool = False) -> Tensor:
        """Return the shifts as a displacement u; no point changes its slice, so -u inverts it."""
        steps = params.free.new_tensor(lattice.spacing[1:]).view(1, 2, 1)
        shifts = params.free * (-self.shift_mm if inverse else self.shift_mm) / steps
        along = torch.cat([torch.zeros_like(shifts[:, :1]), shifts], dim=1)

        return along[..., None, None].expand(-1, -1, *lattice.shape).contiguous()


@dataclass(frozen=True, kw_only=True)
class SliceCut(Photometric):
    """Lose slices at both ends: stacks often stop short of the base or the apex.

    What is lost gets the darkest value of its image and leaves the valid region.

    Attributes:
        cut_mm: most that is lost at each end, never more than a third of the stack.
    """

    low: ClassVar[float] = 0.0
    cut_mm: float = 20.0

    def __post_init__(self) -> None:
        check_bound(self.cut_mm, "cut_mm")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw what is lost at the first and at the last slice ``(B, 2)``."""
        need_slices(lattice, self.name)

        return Params(free=uniform((lattice.batch, 2), generator=generator, low=0.0))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the image with its ends darkened, linearly over one slice."""
        kept = self.coverage(params, lattice).to(image)
        dark = image.flatten(2).amin(dim=2).view(*image.shape[:2], *[1] * lattice.ndim)

        return torch.where(kept < 1, dark + kept * (image - dark), image)

    def coverage(self, params: Params, lattice: Lattice) -> Tensor:
        """Return the share of every slice that is left, ``(B, 1, D, H, W)``."""
        depth = lattice.shape[0]
        # A single slice has no ends.
        most = min(self.cut_mm / lattice.spacing[0], depth / 3) if depth > 1 else 0.0
        first, last = (params.free * most).unsqueeze(2).unbind(1)
        slices = torch.arange(depth, dtype=first.dtype, device=first.device)
        kept = (slices + 1 - first).clamp(0, 1) * (depth - slices - last).clamp(0, 1)

        return kept.view(len(kept), 1, depth, 1, 1).expand(-1, -1, *lattice.shape)


@dataclass(frozen=True, kw_only=True)
class SliceThickness(Photometric):
    """Make slices thicker: average through the plane.

    A Gaussian of width ``0.4247 sqrt(t^2 - s^2)`` takes a slice profile of full width s at half
    maximum to one of t.

    Attributes:
        thickness_mm: largest thickness t; s is the spacing. Thinner than s changes nothing.
    """

    low: ClassVar[float] = 0.0
    thickness_mm: float = 12.0

    def __post_init__(self) -> None:
        check_bound(self.thickness_mm, "thickness_mm")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw the share of the added thickness ``(B, 1)``."""
        need_slices(lattice, self.name)

        return Params(free=uniform((lattice.batch, 1), generator=generator, low=0.0))

    def apply(self, image: Tensor, params: Params, lattice: Lattice) -> Tensor:
        """Return the image averaged along D."""
        step, share = lattice.spacing[0], params.free[:, 0]
        added = max(self.thickness_mm - step, 0.0) * share
        # t^2 - s^2 with t = s + added, which needs no root of a difference of squares.
        variance = _FWHM_TO_SIGMA**2 * added * (added + 2 * step) / step**2
        matrix = blur_matrix(variance, lattice.shape[0])

        return apply_along(image, [matrix, None, None])
