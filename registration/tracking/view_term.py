"""What a further view adds to groupwise tracking: its own images along the one motion.

With x a voxel of the view at ED and A what it sees of a vector of the motion's lattice (turned
into its voxels; in a single plane without the component that leads out of it, which is invisible
there), the view adds

    w mean_t mean_x (J_t(x + A u_t(y)) - J_ED(x))^2,    y the position of x in that lattice,

where u is read between voxels: linearly, by S. Its Gauss-Newton terms are those of the cine behind
A and S, ``S' A' g g' A S``, and S' is the exact adjoint of reading. The weight is per area imaged:
w is ``view_weight`` times the area that the view shows of the region over that of the cine, so a
square millimeter of any plane counts the same, whatever its pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid
from registration.tracking.basis import TimeBasis
from registration.tracking.config import GroupwiseConfig
from registration.tracking.views import View, placed, pulled

# Levels of a view: enough for pixels eight times finer than those of the cine.
_MORE_LEVELS = 5


@dataclass(frozen=True, eq=False)
class SeenView:
    """A view as the motion of now brings it to ED.

    Attributes:
        residual: difference from ED of the frames that move at the voxels that count ``(T', V)``.
        slope: of the images, along the axes of the motion's lattice ``(T', 3, V)``.
        energy: the term's value.
    """

    residual: Tensor
    slope: Tensor
    energy: float


class ViewTerm:
    """The term of one view at one level.

    Args:
        view: its planes, phases and ED.
        images: at this level ``(T, 1, *S)``.
        grid: their lattice.
        lattice: of the motion.
        basis: functions of time.
        weight: ``view_weight``.
    """

    def __init__(
        self,
        view: View,
        images: Tensor,
        grid: Grid,
        lattice: Grid,
        basis: TimeBasis,
        weight: float,
    ) -> None:
        ed, frames = view.sequence.ed, len(images)
        moving = [t for t in range(frames) if t != ed]
        self.fixed, self.moving = images[ed : ed + 1], images[moving]
        self.mix = basis.at(view.phases)[moving].to(images)
        self.coords, self.turn = placed(grid, lattice, flat=view.flat, like=images)
        self.kept = view.inside(grid).to(images.device)
        self.places = self.coords[:, :, self.kept]
        self.shape = lattice.shape
        # Normal equations are those of the energy times the voxels of the motion's lattice.
        self.weight = weight * view.share / (frames * max(1, self.places.shape[-1]))
        self.voxels = math.prod(lattice.shape)

    def steady(self, displacement: Tensor, config: GroupwiseConfig) -> None:
        """Replace the ED image by one that all frames steady, as ``_System`` does."""
        moved = pulled(self.moving, displacement, self.coords, self.turn)
        share = config.reference_ed
        self.fixed = share * self.fixed + (1 - share) * moved.mean(dim=0, keepdim=True)

    def seen(self, displacement: Tensor) -> SeenView:
        """Return residual, slope and energy under ``ed_to_frame`` ``(T', 3, *lattice)``."""
        moved = pulled(self.moving, displacement, self.coords, self.turn)
        residual = (moved - self.fixed)[:, 0, self.kept]
        slope = ops.gradient((moved + self.fixed) / 2, spacing=(1.0, 1.0, 1.0))[:, 0]
        slope = torch.einsum("ij,tin->tjn", self.turn, slope[:, :, self.kept])
        energy = self.weight * float(residual.square().sum())

        return SeenView(residual, slope, energy)

    def pull(self, seen: SeenView) -> Tensor:
        """Return half the gradient of the term by the coefficients, ``(R, 3, *lattice)``."""
        return self._spread(seen.slope * seen.residual.unsqueeze(1))

    def curvature(self, seen: SeenView, coefficients: Tensor) -> Tensor:
        """Return the Gauss-Newton matrix times coefficients ``(R, 3, *lattice)``."""
        read = ops.sample(coefficients.flatten(0, 1).unsqueeze(0), self.places)[0]
        steps = (self.mix @ read.view(len(coefficients), -1)).view_as(seen.slope)
        rise = (seen.slope * steps).sum(dim=1, keepdim=True)

        return self._spread(seen.slope * rise)

    def typical(self, seen: SeenView) -> Tensor:
        """Return about the mean of the matrix' diagonal by component ``(3,)``."""
        return self.weight * seen.slope.square().sum(dim=(0, 2))

    def _spread(self, values: Tensor) -> Tensor:
        """Return values ``(T', 3, V)`` on the coefficients, the adjoint of how they are read."""
        flat = self.mix.T @ values.flatten(1) * (self.weight * self.voxels)
        flat = flat.view(1, -1, values.shape[-1])
        found = ops.push(flat, self.places, self.shape)

        return found.view(-1, 3, *self.shape)


class ViewLevels:
    """The images of a view from fine to coarse.

    Args:
        view: its planes, phases and ED.
        images: its ``prepared`` images ``(T, 1, *S)``.
    """

    def __init__(self, view: View, images: Tensor) -> None:
        self.view = view
        found = ops.pyramid(images, _MORE_LEVELS + 3, affine=view.grid.affine)
        self.images = images
        self.levels = [(x, Grid(tuple(x.shape[2:]), affine)) for x, affine in found]

    def at(self, lattice: Grid, basis: TimeBasis, weight: float) -> ViewTerm:
        """Return the term at the level whose pixels are most like those of a lattice."""
        wanted = math.log(min(lattice.spacing))
        images, grid = min(
            self.levels, key=lambda level: abs(math.log(min(level[1].spacing)) - wanted)
        )
        return ViewTerm(self.view, images, grid, lattice, basis, weight)
