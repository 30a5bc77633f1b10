"""Affine maps and flips about the center of the image, in millimeters and degrees.

Convention: the matrix M acts on positions in mm along the axes of the image, measured from its
center, and says where the result reads the image; ``S^-1 M S`` with ``S = diag(spacing)`` is the
matrix of voxels. So a rotation is a rotation whatever the shape and spacing of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import Geometric, Params, check_bound, uniform
from cardiogen.ops import affine_matrix


@dataclass(frozen=True, kw_only=True)
class Affine(Geometric):
    """Rotation, scaling, shear and shift, each parameter uniform within its bound.

    Free parameters ``(B, 5 + 1)`` in 2D and ``(B, 12)`` in 3D: rotations, log scales, shears,
    shifts, all in units of their bounds. Those that would move a single slice out of itself do
    nothing: labels beside it would be background where images repeat.

    Attributes:
        rotation_deg: largest rotation in the plane of the slices (H, W).
        tilt_deg: largest rotation about each of H and W; 3D alone.
        scale: largest factor, of each axis by itself; its inverse is the smallest.
        shear: largest entry of the shear matrix.
        shift_mm: largest shift along each axis.
    """

    rotation_deg: float = 20.0
    tilt_deg: float = 5.0
    scale: float = 1.15
    shear: float = 0.05
    shift_mm: float = 10.0

    def __post_init__(self) -> None:
        check_bound(self.rotation_deg, "rotation_deg", most=180.0)
        check_bound(self.tilt_deg, "tilt_deg", most=180.0)
        check_bound(self.scale, "scale", least=1.0, most=10.0)
        check_bound(self.shear, "shear", most=1.0)
        check_bound(self.shift_mm, "shift_mm")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw every parameter uniformly."""
        size = 12 if lattice.ndim == 3 else 6

        return Params(free=uniform((lattice.batch, size), generator=generator))

    def pull_back(self, params: Params, lattice: Lattice, *, inverse: bool = False) -> Tensor:
        """Return the matrix of voxels ``(B, d + 1, d + 1)``, or its inverse."""
        # In float64: products of float32 matrices may run in TF32 on a GPU.
        free, ndim = params.free.double(), lattice.ndim
        turns = ndim * (ndim - 1) // 2
        free = free * _within(lattice).to(free)
        rotation, scale, shear, shift = free.split([turns, ndim, turns, ndim], dim=1)
        degrees = [self.rotation_deg, self.tilt_deg, self.tilt_deg][:turns]
        center = free.new_tensor(lattice.extent_mm).expand(len(free), -1) / 2
        matrix = affine_matrix(
            shift * self.shift_mm,
            rotation=rotation * free.new_tensor([math.radians(angle) for angle in degrees]),
            scale=torch.exp(scale * math.log(self.scale)),
            shear=shear * self.shear,
            center=center,
        )

        matrix = in_voxels(torch.linalg.inv(matrix) if inverse else matrix, lattice.spacing)

        return matrix.to(params.free.dtype)


@dataclass(frozen=True, kw_only=True)
class Flip(Geometric):
    """Mirror images along axes, each with a probability; nothing here is searched.

    Hearts are not symmetric: a flipped heart is one that no scanner shows, unless headers mirror
    it (see ``Sequence.orientation``).

    Attributes:
        axes: axes that may flip, from the last: 1 is W, 2 is H, 3 is D.
        probability: of each of them.
    """

    axes: tuple[int, ...] = (1, 2)
    probability: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", tuple(self.axes))
        check_bound(self.probability, "probability", most=1.0)
        if not self.axes or not set(self.axes) <= {1, 2, 3}:
            raise ValueError(f"axes must be some of 1 (W), 2 (H), 3 (D), got {self.axes}")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw which axes flip; ``fixed`` ``(B, d)`` is 1 where one does."""
        if max(self.axes) > lattice.ndim:
            raise ValueError(
                f"axes must be at most {lattice.ndim} for a 2D image, got {self.axes}"
            )
        chance = uniform((lattice.batch, lattice.ndim), generator=generator, low=0.0)
        may = torch.zeros(lattice.ndim, device=chance.device)
        may[[lattice.ndim - axis for axis in self.axes]] = self.probability
        flips = (chance < may).to(chance.dtype)

        return Params(free=flips[:, :0], fixed=flips)

    def pull_back(self, params: Params, lattice: Lattice, *, inverse: bool = False) -> Tensor:
        """Return ``x -> n - 1 - x`` along the flipped axes; a flip is its own inverse."""
        flips = params.fixed
        last = flips.new_tensor([float(n - 1) for n in lattice.shape])
        top = torch.cat([torch.diag_embed(1 - 2 * flips), (flips * last).unsqueeze(2)], dim=2)
        bottom = torch.zeros_like(top[:, :1])
        bottom[..., -1] = 1.0

        return torch.cat([top, bottom], dim=1)


def _within(lattice: Lattice) -> Tensor:
    """Return 1 for parameters that move along axes of more than one voxel alone, else 0."""
    wide = torch.tensor([float(n > 1) for n in lattice.shape])
    pairs = torch.stack([wide[i] * wide[j] for i, j in combinations(range(lattice.ndim), 2)])
    # A turn about an axis is one in the plane of the two others.
    return torch.cat([pairs.flip(0), wide, pairs, wide])


def in_voxels(matrix: Tensor, spacing: tuple[float, ...]) -> Tensor:
    """Return a matrix of mm along the image's axes ``(B, d + 1, d + 1)`` as one of voxels."""
    steps = matrix.new_tensor([*spacing, 1.0])

    return matrix * steps / steps.unsqueeze(1)
