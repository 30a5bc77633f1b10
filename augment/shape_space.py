"""Adversaries inside the latent space of a model of anatomy: hearts that there might be.

A model says how a mean heart changes along each of its latents. ``ShapeModes`` turns that into
smooth velocities around the mean heart, once; ``ShapeSpace`` combines them for each image and
moves image and labels with the exponential, one field for both. What it finds lies within a number
of standard deviations of the model's prior.

No model is imported: anything that decodes a latent to vertices will do. Heart frame (mm), as in
``cardiogen.population.pose``: origin at the center of the left base, z from apex to base, x from
the left ventricle to the right one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augment.lattice import Lattice
from augment.transforms.base import (
    Geometric,
    Params,
    at_strength,
    check_bound,
    in_ball,
    normal,
    uniform,
)
from augment.transforms.morph import calmed, steepest_slope
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure import rv_insertions
from cardiogen.measure.frame import lv_frame
from cardiogen.ops import check_shape, exponentiate, gaussian, identity_coords, push, sample
from cardiogen.population.pose import Pose

# Latent (Z,) to vertices (V, 3) in the heart frame, mm: for models of cardiogen
# ``lambda z: model.decode(z, [0.0])[0]``.
Decoder = Callable[[Tensor], NDArray[np.float64]]

# From x to the middle of the septum, rad: mean of 24 population hearts at ED and ES, SD 5 degrees.
_SEPTUM = np.radians(5.6)
# Rounds in which what smoothing took from the vertices is given back.
_ROUNDS = 12
# Below this share of the densest vertices a velocity fades out.
_THIN = 0.02
_SQUARINGS = 7


@dataclass(frozen=True, eq=False)
class ShapeModes:
    """How hearts differ, as velocities: one for each direction of the latent space.

    Attributes:
        fields: velocities in mm along x, y, z of one standard deviation, ``(K, 3, D, H, W)``.
        grid: their lattice in the heart frame.
        mean: latent of the heart they start from, ``(Z,)``.
        directions: change of the latent of one standard deviation along each, ``(K, Z)``.
    """

    fields: Tensor
    grid: Grid
    mean: Tensor
    directions: Tensor

    @classmethod
    def from_decoder(
        cls,
        decode: Decoder,
        mean: Tensor,
        factor: Tensor,
        *,
        count: int = 12,
        spacing_mm: float = 5.0,
        reach_mm: float = 8.0,
    ) -> ShapeModes:
        """Return the modes of a model around its mean heart.

        The decoder is differenced at one standard deviation to both sides along every column of
        the covariance's factor; a rotation of these columns, which keeps their variance 1, sorts
        them by how far they move vertices.

        Args:
            decode: latent ``(Z,)`` to vertices ``(V, 3)``, heart frame mm.
            mean: of the prior ``(Z,)``.
            factor: F of the prior's covariance ``F F^T``, ``(Z, R)``.
            count: most modes to keep.
            spacing_mm: of the velocities' lattice.
            reach_mm: standard deviation of the smoothing off the surfaces.
        """
        check_shape(factor, "Z R", "factor", Z=len(mean))
        vertices = torch.from_numpy(np.asarray(decode(mean), dtype=np.float64))
        moves = torch.stack([_difference(decode, mean, column) for column in factor.T])
        turn, sizes, _ = torch.linalg.svd(moves.flatten(1), full_matrices=False)
        kept = min(count, int((sizes > 1e-9 * sizes[0]).sum()))
        moves = torch.einsum("rk,rvc->kvc", turn[:, :kept], moves)
        grid = Grid.around(vertices.numpy(), spacing_mm, margin_mm=3 * reach_mm)
        fields = _spread(moves, vertices, grid, reach_mm)

        return cls(fields.float(), grid, mean, (factor.double() @ turn[:, :kept]).T)

    def latents(self, shares: Tensor) -> Tensor:
        """Return latents ``(B, Z)`` at ``shares`` ``(B, K)`` standard deviations along modes."""
        return self.mean + shares.to(self.directions) @ self.directions


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapeSpace(Geometric):
    """Move hearts towards others of a model's prior; needs ``Lattice.to_heart``.

    Free parameters ``(B, K)`` are the share of ``sds`` along every mode. They lie in a ball: the
    latent stays within ``sds`` standard deviations (Mahalanobis). Where a velocity is steeper than
    ``steepest`` it is scaled down further, so that nothing folds. Samples whose ``to_heart`` is
    NaN, images without a heart, are left alone.

    Attributes:
        modes: of the model.
        sds: radius of the ball.
        steepest: largest slope of the velocity on the image's lattice, mm per mm.
        calm_mm: reach of the borders of an image, across which nothing moves.
    """

    modes: ShapeModes
    sds: float = 2.0
    steepest: float = 0.4
    calm_mm: float = 10.0

    def __post_init__(self) -> None:
        check_bound(self.sds, "sds")
        check_bound(self.steepest, "steepest", least=1e-3, most=0.5)
        check_bound(self.calm_mm, "calm_mm")

    def sample(self, lattice: Lattice, *, generator: torch.Generator) -> Params:
        """Draw a direction and how far to go along it, uniform in [0, 1] of the bound."""
        self._placement(lattice)
        free = normal((lattice.batch, len(self.modes.fields)), generator=generator)
        wanted = uniform((lattice.batch,), generator=generator, low=0.0)
        free = at_strength(free, torch.linalg.vector_norm(free, dim=1), wanted)

        return self.project(Params(free=free), lattice)

    def project(self, params: Params, lattice: Lattice) -> Params:
        """Return the parameters scaled down until both bounds hold."""
        return in_ball(params, self.strength(params.free, lattice))

    def strength(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return the larger of radius and slope in units of their bounds, ``(B,)``."""
        radius = torch.linalg.vector_norm(free, dim=1)
        velocity = self.velocity(free, lattice) * _steps(lattice, free)

        return torch.maximum(radius, steepest_slope(velocity, lattice) / self.steepest)

    def unit(self, direction: Tensor, lattice: Lattice) -> Tensor:
        """Return a direction of radius 1."""
        return at_strength(direction, torch.linalg.vector_norm(direction, dim=1))

    def pull_back(self, params: Params, lattice: Lattice, *, inverse: bool = False) -> Tensor:
        """Return ``exp(-v)``: points of the heart move by ``exp(v)``, so images are read back."""
        velocity = self.velocity(params.free, lattice)

        return exponentiate(velocity if inverse else -velocity, steps=_SQUARINGS)

    def latents(self, params: Params) -> Tensor:
        """Return the latents ``(B, Z)`` of the model that parameters stand for."""
        return self.modes.latents(params.free.detach().cpu() * self.sds)

    def velocity(self, free: Tensor, lattice: Lattice) -> Tensor:
        """Return how anatomy moves, ``(B, d, *S)``, voxels; a 2D slice keeps what is in it."""
        place, known = self._placement(lattice)
        place, known = place.to(free.device), known.to(free)
        fields = self.modes.fields.to(free)
        in_heart = torch.einsum("bk,kcdhw->bcdhw", free * self.sds, fields)
        shape = lattice.shape if lattice.ndim == 3 else (1, *lattice.shape)
        to_template = torch.from_numpy(self.modes.grid.inverse).to(place) @ place
        coords = _affine_coords(to_template, shape).to(free)
        moved = sample(in_heart, coords, padding="zeros")
        # Millimeters along x, y, z to voxels along d, h, w of the image.
        to_voxels = torch.linalg.inv(place[:, :3, :3]).to(free)
        velocity = torch.stack(
            [sum(to_voxels[:, a, c].view(-1, 1, 1, 1) * moved[:, c] for c in range(3))
             for a in range(3)],
            dim=1,
        )  # fmt: skip
        if lattice.ndim == 2:
            velocity = velocity[:, 1:, 0]
        velocity = velocity * known.view(-1, *[1] * (velocity.ndim - 1))

        return calmed(velocity, lattice, self.calm_mm)

    def _placement(self, lattice: Lattice) -> tuple[Tensor, Tensor]:
        """Return voxel to heart frame ``(B, 4, 4)``, float64, and which samples have one."""
        if lattice.to_heart is None:
            raise ValueError(
                "lattice.to_heart must say where the heart lies for ShapeSpace, got None; see "
                "voxel_to_heart"
            )
        place = lattice.to_heart.double()
        known = place.isfinite().flatten(1).all(dim=1)
        eye = torch.eye(4, dtype=place.dtype, device=place.device)

        return torch.where(known.view(-1, 1, 1), place, eye), known


def voxel_to_heart(
    labels: NDArray[np.uint8], grid: Grid, *, mirrored: bool = False
) -> NDArray[np.float64]:
    """Return the matrix from voxels to the heart frame of a label map, ``(4, 4)``, mm.

    The long axis is that of the left ventricle. About it the frame follows the middle of the
    septum, from insertion to insertion of the right ventricle in the middle third, which the
    template has 5.6 degrees in front of x. For the slice d of a stack, multiply by a shift of d:
    ``matrix @ translation(d, 0, 0)``.

    Args:
        labels: structures ``(D, H, W)``.
        grid: their lattice.
        mirrored: the header's world shows the heart as in a mirror.

    Raises:
        CardiogenError: L60 or L61 if the left ventricle cannot be recognized, L62 if the right one
            does not touch it.
        ValueError: if there is no right ventricle.
    """
    if not (labels == Structure.RV).any():
        raise ValueError("labels must hold a right ventricle, which says where x points; got none")
    frame = lv_frame(labels, grid)
    found = rv_insertions(labels, grid, frame, orientation="mirrored" if mirrored else "trusted")
    angle = np.mean(found.mid) - _SEPTUM
    right = np.cos(angle) * found.septal + np.sin(angle) * found.anterior
    origin = frame.center + frame.base * (frame.axis + frame.drift)
    pose = Pose.from_directions(frame.axis, right, origin, mirrored=mirrored)
    to_heart = np.eye(4)
    to_heart[:3, :3] = pose.axes.T
    to_heart[:3, 3] = -pose.axes.T @ pose.origin

    return to_heart @ grid.affine


def _difference(decode: Decoder, mean: Tensor, step: Tensor) -> Tensor:
    """Return how vertices move along a step of the latent, by central differences ``(V, 3)``."""
    both = [np.asarray(decode(mean + sign * step), dtype=np.float64) for sign in (1, -1)]

    return torch.from_numpy((both[0] - both[1]) / 2)


def _spread(moves: Tensor, vertices: Tensor, grid: Grid, reach_mm: float) -> Tensor:
    """Return smooth fields ``(K, 3, *S)`` that have the moves ``(K, V, 3)`` at the vertices.

    Normalized convolution of the vertices' moves, and of what is still missing at them, again.
    """
    count, points, _ = moves.shape
    coords = torch.from_numpy(grid.to_voxel(vertices.numpy())).T.unsqueeze(0)
    wanted = moves.movedim(1, 2).reshape(1, count * 3, points)

    def spread(values: Tensor) -> Tensor:
        return gaussian(push(values, coords, grid.shape), reach_mm, spacing=grid.spacing)

    density = spread(torch.ones(1, 1, points, dtype=torch.float64))
    density = density + _THIN * density.max()
    fields = spread(wanted) / density
    for _ in range(_ROUNDS):
        fields = fields + spread(wanted - sample(fields, coords)) / density

    return fields.view(count, 3, *grid.shape)


def _affine_coords(matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return ``M x`` of every voxel x, ``(B, 3, *S)``."""
    places = identity_coords(shape, dtype=matrix.dtype, device=matrix.device)
    linear = matrix[:, :3, :3].view(-1, 3, 3, 1, 1, 1)

    return (linear * places.unsqueeze(1)).sum(dim=2) + matrix[:, :3, 3].view(-1, 3, 1, 1, 1)


def _steps(lattice: Lattice, like: Tensor) -> Tensor:
    return like.new_tensor(lattice.spacing).view(1, -1, *[1] * lattice.ndim)
