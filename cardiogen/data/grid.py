"""Grid: the voxel lattice of an image, as shape and voxel-to-world affine.

Convention: axes are (d, h, w); ``affine @ [d, h, w, 1]`` is world RAS mm (+x right, +y anterior,
+z superior), at the voxel's center.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape ``(D, H, W)`` and 4 x 4 float64 affine (voxel to world RAS mm)."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be three positive numbers (D, H, W), got {self.shape}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"affine must be a finite 4 x 4 matrix, got shape {affine.shape}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise ValueError("affine must be invertible, got a singular matrix")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def regular(
        cls,
        shape: tuple[int, int, int],
        spacing: ArrayLike,
        origin: ArrayLike = (0.0, 0.0, 0.0),
        axes: ArrayLike | None = None,
    ) -> Grid:
        """Return a grid from spacing (mm), world position of voxel 0 and unit axes (columns)."""
        affine = np.eye(4)
        affine[:3, :3] = (np.eye(3) if axes is None else np.asarray(axes)) * np.asarray(spacing)
        affine[:3, 3] = origin
        return cls(shape, affine)

    @classmethod
    def around(
        cls, points: ArrayLike, spacing: float | ArrayLike, *, margin_mm: float = 10.0
    ) -> Grid:
        """Return the smallest grid with axes D=z, H=y, W=x that holds ``points`` (V, 3) + margin.

        Voxel 0 lies on a multiple of the spacing, so that equal hearts give equal grids.
        """
        points = np.asarray(points, dtype=np.float64)[..., ::-1].reshape(-1, 3)
        step = np.broadcast_to(np.asarray(spacing, dtype=np.float64), (3,))
        first = np.floor((points.min(axis=0) - margin_mm) / step)
        last = np.ceil((points.max(axis=0) + margin_mm) / step)
        shape = tuple(int(n) for n in last - first + 1)
        return cls.regular(shape, step, origin=(first * step)[::-1], axes=np.eye(3)[:, ::-1])

    @cached_property
    def inverse(self) -> NDArray[np.float64]:
        """World-to-voxel affine, 4 x 4."""
        return np.linalg.inv(self.affine)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbors along (d, h, w), mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)

    def to_world(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """Map voxel positions ``(..., 3)`` to world mm ``(..., 3)``."""
        return np.asarray(voxels, np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxel(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map world points ``(..., 3)`` in mm to voxel positions ``(..., 3)``."""
        return np.asarray(points, np.float64) @ self.inverse[:3, :3].T + self.inverse[:3, 3]

    def corners(self) -> NDArray[np.float64]:
        """Return the world positions of the eight corner voxels, ``(8, 3)`` mm."""
        ends = [(0, n - 1) for n in self.shape]
        return self.to_world(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3))

    def distance_mm(self, other: Grid) -> float:
        """Return the largest distance between equal corners of two grids; inf if shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners() - other.corners(), axis=-1).max())

    def matches(self, other: Grid, *, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have one shape and corners equal within ``tolerance_mm``."""
        return self.distance_mm(other) <= tolerance_mm

    def permuted(self, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Grid:
        """Return the grid of ``array.transpose(order)`` flipped along new axes where told."""
        columns = self.affine[:3, list(order)].copy()
        shape = tuple(self.shape[axis] for axis in order)
        origin = self.affine[:3, 3].copy()
        for axis, flip in enumerate(flips):
            if flip:
                origin = origin + columns[:, axis] * (shape[axis] - 1)
                columns[:, axis] = -columns[:, axis]
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = columns, origin
        return Grid(shape, affine)

    def cropped(self, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """Return the grid of ``array[start : start + shape]``; negative starts pad."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world(start)
        return Grid(shape, affine)

    def resized(self, shape: tuple[int, int, int]) -> Grid:
        """Return the grid of another shape with the same corner voxels (align-corners rule)."""
        scale = [(old - 1) / (new - 1) if new > 1 else 1.0
                 for old, new in zip(self.shape, shape, strict=True)]  # fmt: skip
        affine = self.affine.copy()
        affine[:3, :3] = affine[:3, :3] * scale
        return Grid(shape, affine)
