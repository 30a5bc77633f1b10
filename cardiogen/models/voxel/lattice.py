"""The heart-frame lattice: where label maps of all hearts lie in one pose.

Convention: heart frame of ``population.pose`` (origin at the base of the left ventricle, z from
apex to base, x to the right ventricle), as ``measure.frame`` finds it in labels; axes as in short
axis: D towards the apex, H to the inferior wall, W away from the right ventricle.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.engine.contours import require_heart
from cardiogen.engine.map_estimate import initial_pose
from cardiogen.models.protocol import encode_condition
from cardiogen.population.pose import Pose

# Middle of the box that holds the reference population over the whole cycle, heart frame mm:
# x -40 to 82, y -58 to 62, z -118 to 17.
_CENTER = np.array([20.0, 2.0, -50.0])
_MOST_OUTSIDE = 0.01
# Their places are computed once; many frames at once would take much memory.
_FRAMES_AT_ONCE = 8
CLASSES = len(Structure)


def heart_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """Return the lattice ``(D, H, W)`` around the middle of a typical heart, in its own frame."""
    axes = -np.eye(3)[:, ::-1]
    half = axes @ (np.asarray(spacing_mm) * (np.asarray(shape) - 1) / 2)
    return Grid.regular(shape, spacing_mm, origin=_CENTER - half, axes=axes)


def posed_grid(grid: Grid, pose: Pose) -> Grid:
    """Return a heart-frame lattice in the world of ``pose``: labels on it need no resampling."""
    to_world = np.eye(4)
    to_world[:3, :3], to_world[:3, 3] = pose.axes, pose.origin
    return Grid(grid.shape, to_world @ grid.affine)


def find_pose(sequence: Sequence) -> tuple[Pose, float | None]:
    """Return the pose that the frame nearest to end diastole shows.

    Only where the header's world is ``assumed`` both chiralities are tried, by the posterior of
    the shipped model over all frames, in some seconds.

    Returns:
        The pose, and by how much (minus two log posterior) it fits better than its mirror image;
        None if they were not compared.

    Raises:
        CardiogenError: L37, L60, L61 for a frame without a whole heart.
    """
    labels = sequence.labels[sequence.ed]
    require_heart(labels, sequence.subject_id)
    mirrored, margin = sequence.orientation == "mirrored", None
    if sequence.orientation == "assumed":
        mirrored, margin = _chirality(sequence)
    return initial_pose(labels, sequence.grid, mirrored=mirrored), margin


def _chirality(sequence: Sequence) -> tuple[bool, float]:
    """Return whether a sequence is mirrored, and by how much that fits better.

    The template alone, with shapes of any kind, was seen to choose wrongly from one ED frame; the
    linear model knows what hearts look like and how they move.
    """
    from cardiogen.models.store import load_model

    condition = encode_condition(sequence.factors or Factors())
    found = load_model("linear").model.posterior(sequence, condition)
    return found.pose.mirrored, found.margin


def to_heart(
    labels: NDArray[np.uint8], grid: Grid, pose: Pose, lattice: Grid, *, where: str
) -> NDArray[np.uint8]:
    """Bring label maps from a patient's world to the heart frame.

    One-hot channels are read with linear interpolation; the most probable structure stays.

    Args:
        labels: structures ``(T, D, H, W)``.
        grid: their lattice.
        pose: from the heart frame to their world.
        lattice: of the result, heart frame.
        where: name for error messages.

    Returns:
        Structures ``(T, *lattice.shape)``.

    Raises:
        CardiogenError: L48 if more than 1 % of the heart lies outside ``lattice``.
    """
    posed = posed_grid(lattice, pose)
    found = []
    for frame in labels:
        voxels = posed.to_voxel(grid.to_world(np.argwhere(frame)))
        require_inside(voxels, lattice, where)
        hot = ops.one_hot(torch.from_numpy(frame[None, None].astype(np.int64)), CLASSES)
        found.append(most_probable(hot, grid, posed)[0])
    return np.stack(found)


def most_probable(probs: Tensor, grid: Grid, wanted: Grid) -> NDArray[np.uint8]:
    """Return the most probable structures ``(T, D, H, W)`` on another lattice of the same world.

    Probabilities are read with linear interpolation; all is background outside their lattice.

    Args:
        probs: one-hot or between, ``(T, 4, D', H', W')``.
        grid: their lattice.
        wanted: lattice of the result.
    """
    found = np.zeros((len(probs), *wanted.shape), np.uint8)
    box = _reach(ops.argmax_labels(probs)[:, 0].any(dim=0).numpy(), grid, wanted)
    if box is None:
        return found
    window = wanted.cropped(tuple(s.start for s in box), tuple(s.stop - s.start for s in box))
    for first in range(0, len(probs), _FRAMES_AT_ONCE):
        part = slice(first, first + _FRAMES_AT_ONCE)
        inside = ops.resample(probs[part, 1:], grid, window, padding="zeros")
        background = 1 - inside.sum(dim=1, keepdim=True)
        labels = ops.argmax_labels(torch.cat([background, inside], dim=1))[:, 0]
        found[(part, *box)] = labels.numpy()
    return found


def _reach(
    heart: NDArray[np.bool_], grid: Grid, wanted: Grid
) -> tuple[slice, slice, slice] | None:
    """Return the box of ``wanted`` that can show what ``heart`` marks on ``grid``; None if none.

    Linear interpolation reaches less than a voxel: where all neighbors are likeliest background,
    so is all between them.
    """
    marked = np.argwhere(heart)
    if not len(marked):
        return None
    ends = np.stack([marked.min(axis=0) - 1, marked.max(axis=0) + 1])
    corners = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)
    voxels = wanted.to_voxel(grid.to_world(corners))
    low = np.clip(np.floor(voxels.min(axis=0)).astype(int), 0, wanted.shape)
    high = np.clip(np.ceil(voxels.max(axis=0)).astype(int) + 1, 0, wanted.shape)
    if (low >= high).any():
        return None
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def require_inside(voxels: NDArray[np.float64], lattice: Grid, where: str) -> None:
    """Refuse (L48) a heart of whose voxels or vertices ``(N, 3)`` over 1 % lie outside."""
    inside = (voxels >= -0.5) & (voxels <= np.array(lattice.shape) - 0.5)
    outside = 1.0 - inside.all(axis=1).mean()
    if outside > _MOST_OUTSIDE:
        size = " x ".join(
            f"{n * s:.0f}" for n, s in zip(lattice.shape, lattice.spacing, strict=True)
        )
        raise CardiogenError(
            "L48", where, found=f"{outside:.1%} of the heart outside the model's lattice",
            expected=f"a heart that fits into {size} mm (D x H x W)",
            remedy="a model with a larger shape, or checking the label map and its spacing",
        )  # fmt: skip
