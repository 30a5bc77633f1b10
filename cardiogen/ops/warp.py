"""Move images, labels and points by a displacement, and images between grids.

Convention: ``displacement`` ``(B, d, *S)`` is in voxels of the grid it lives on, component c along
spatial axis c, pull-back: ``moved(x) = moving(x + u(x))``. A field ``a_to_b`` lives on grid a, so
``warp(image_b, a_to_b)`` gives b seen on a, and ``warp_points(points_a, a_to_b, grid)`` moves
points of a to b.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cardiogen.ops.affine import grid_to_world, transform_points, world_to_grid
from cardiogen.ops.check import (
    GridLike,
    check_batch,
    check_field,
    check_floating,
    check_image,
    check_same,
    check_shape,
)
from cardiogen.ops.kernels import choose
from cardiogen.ops.sample import Padding, check_padding, sample, sample_linear


def identity_coords(
    shape: Sequence[int],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the position of every voxel, ``(1, d, *S)``: component c counts along axis c."""
    axes = [torch.arange(n, dtype=dtype, device=device) for n in shape]

    return torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)


def displaced_coords(displacement: Tensor) -> Tensor:
    """Return ``x + u(x)`` in voxels, ``(B, d, *S)``, float32 or wider."""
    shape = check_field(displacement, "displacement")
    dtype = torch.promote_types(displacement.dtype, torch.float32)
    identity = identity_coords(shape, dtype=dtype, device=displacement.device)

    return identity + displacement.to(dtype)


def warp(
    moving: Tensor, displacement: Tensor, *, order: int = 1, padding: Padding = "border"
) -> Tensor:
    """Pull a moving image onto the fixed grid: ``moved(x) = moving(x + u(x))``.

    Args:
        moving: image ``(B, C, *S)``.
        displacement: ``fixed_to_moving`` ``(B, d, *S)``, voxels; both share one grid (anything
            else goes through ``resample`` first). Either batch may be 1 and is then shared.
        order: 0 nearest, 1 linear, 3 cubic B-spline.
        padding: ``"border"`` for images and fields, ``"zeros"`` for masks.

    Returns:
        Moved image ``(B, C, *S)``, dtype of ``moving``.
    """
    shape = check_image(moving, "moving")
    check_same(check_field(displacement, "displacement"), shape, "displacement", "moving")
    check_batch(displacement.shape[0], moving.shape[0], "displacement", "moving")

    return _warp(moving, displacement, order, padding)


def warp_frames(
    moving: Tensor, displacement: Tensor, *, order: int = 1, padding: Padding = "border"
) -> Tensor:
    """Pull a moving image onto the grid of every frame of a sequence of displacements.

    Frames are folded into the batch as a view and a still image is read where it lies, so nothing
    is copied.

    Args:
        moving: one image ``(B, C, *S)`` for all frames, or one per frame ``(B, T, C, *S)``.
        displacement: ``frame_to_moving`` ``(B, T, d, *S)``, voxels.
        order: 0, 1 or 3, as in ``warp``.
        padding: as in ``warp``.

    Returns:
        ``(B, T, C, *S)``, dtype of ``moving``.
    """
    frames = displacement.shape[:2]
    fields = displacement.flatten(0, 1)
    per_frame = moving.ndim == displacement.ndim
    if per_frame:
        check_same(tuple(moving.shape[:2]), tuple(frames), "moving", "displacement")
        moving = moving.flatten(0, 1)
    shape = check_image(moving, "moving")
    check_same(check_field(fields, "displacement"), shape, "displacement", "moving")
    if not per_frame and moving.shape[0] != frames[0]:
        raise ValueError(
            f"moving must have the batch size of displacement ({frames[0]}), got {moving.shape[0]}"
        )

    return _warp(moving, fields, order, padding).unflatten(0, frames)


def _warp(moving: Tensor, displacement: Tensor, order: int, padding: Padding) -> Tensor:
    if order == 1:
        check_floating(moving, "moving")
        check_padding(padding)
        field = displacement.to(torch.promote_types(displacement.dtype, torch.float32))
        return choose(_warp_linear, moving, field)(moving, field, padding)
    return sample(moving, displaced_coords(displacement), order=order, padding=padding)


def _warp_linear(moving: Tensor, displacement: Tensor, padding: Padding) -> Tensor:
    return sample_linear(moving, displaced_coords(displacement), padding)


def one_hot(labels: Tensor, classes: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return indicator channels ``(B, classes, *S)`` of an integer map ``(B, 1, *S)``."""
    shape = check_image(labels, "labels")
    if labels.shape[1] != 1 or labels.is_floating_point():
        raise ValueError(
            "labels must be an integer map (B, 1, ...), "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if labels.numel() and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels must lie in 0 to {classes - 1}, got {int(labels.min())} to "
            f"{int(labels.max())}"
        )
    codes = torch.arange(classes, device=labels.device).view(1, -1, *[1] * len(shape))

    return (labels == codes).to(dtype)


def warp_labels(labels: Tensor, displacement: Tensor, *, classes: int | None = None) -> Tensor:
    """Return class probabilities of a warped label map, linear interpolation of one-hot channels.

    Channels 1 and up are structures: they are 0 outside the grid. Channel 0 is background and gets
    the complement, so the channels always sum to one.

    Args:
        labels: integer map ``(B, 1, *S)``, or one-hot or probabilities ``(B, C, *S)``.
        displacement: ``fixed_to_moving`` ``(B, d, *S)``, voxels.
        classes: number of classes with background; required for an integer map.

    Returns:
        Probabilities ``(B, C, *S)``; see ``argmax_labels``.
    """
    if not labels.is_floating_point():
        if classes is None:
            raise ValueError("classes must be given with an integer label map, got None")
        dtype = torch.promote_types(displacement.dtype, torch.float32)
        labels = one_hot(labels, classes, dtype=dtype)
    elif classes is not None and classes != labels.shape[1]:
        raise ValueError(
            f"classes must be the channels of labels, {labels.shape[1]}, got {classes}"
        )
    structures = warp(labels[:, 1:], displacement, padding="zeros")
    background = 1 - structures.sum(dim=1, keepdim=True)

    return torch.cat([background, structures], dim=1)


def argmax_labels(probs: Tensor) -> Tensor:
    """Return the most probable class, uint8 ``(B, 1, *S)``; of equal ones the lowest."""
    check_image(probs, "probs")

    # The indices of torch.max are those of the first largest too, and come six times sooner.
    return probs.max(dim=1, keepdim=True).indices.to(torch.uint8)


def sample_at_points(
    image: Tensor, points: Tensor, grid: GridLike, *, order: int = 1, padding: Padding = "border"
) -> Tensor:
    """Return an image or field read at world points, ``(B, V, C)``.

    Args:
        image: ``(B, C, *S)`` on ``grid``.
        points: world positions ``(B, V, d)``, mm.
        grid: shape and affine of ``image``.
        order: 0, 1 or 3.
        padding: what lies outside.
    """
    check_same(check_image(image, "image"), tuple(grid.shape), "image", "grid")
    voxels = _points_to_voxels(points, grid)

    return sample(image, voxels.movedim(-1, 1), order=order, padding=padding).movedim(1, -1)


def warp_points(points: Tensor, displacement: Tensor, grid: GridLike) -> Tensor:
    """Move world points of a to b: ``y = A (x + u(x))`` with ``x = A^-1 p``.

    Args:
        points: ``(B, V, d)`` world mm, on a.
        displacement: ``a_to_b`` ``(B, d, *S)``, voxels, extended from its border outwards.
        grid: shape and affine A of the displacement.

    Returns:
        Points ``(B, V, d)`` world mm, on b, dtype of ``points``.
    """
    shape = check_field(displacement, "displacement")
    check_same(shape, tuple(grid.shape), "displacement", "grid")
    check_batch(points.shape[0], displacement.shape[0], "points", "displacement")
    voxels = _points_to_voxels(points, grid)
    field = displacement.to(torch.promote_types(displacement.dtype, torch.float32))
    # Single points read a single field in single precision, where kernels are.
    coords = voxels.to(torch.promote_types(points.dtype, field.dtype))
    moved = voxels + sample(field, coords.movedim(-1, 1)).movedim(1, -1)

    return transform_points(moved, grid_to_world(grid)).to(points.dtype)


def resample(
    image: Tensor,
    from_grid: GridLike,
    to_grid: GridLike,
    *,
    order: int = 1,
    padding: Padding = "border",
) -> Tensor:
    """Read an image that lives on one grid at the voxels of another, both placed in one world.

    ``out(y) = image(A_from^-1 A_to y)``; nothing is smoothed, so shrink with ``pyramid`` first.

    Args:
        image: ``(B, C, *S)`` on ``from_grid``.
        from_grid: grid of ``image``.
        to_grid: wanted grid.
        order: 0, 1 or 3 (0 also takes integer images).
        padding: what lies outside ``from_grid``.

    Returns:
        ``(B, C, *S')`` on ``to_grid``.
    """
    check_same(check_image(image, "image"), tuple(from_grid.shape), "image", "from_grid")
    matrix = world_to_grid(from_grid) @ grid_to_world(to_grid)
    identity = identity_coords(to_grid.shape, dtype=torch.float64, device=image.device)
    coords = transform_points(identity.movedim(1, -1).flatten(1, -2), matrix).movedim(-1, 1)
    dtype = torch.float64 if image.dtype == torch.float64 else torch.float32

    return sample(
        image, coords.to(dtype).unflatten(2, tuple(to_grid.shape)), order=order, padding=padding
    )


def _points_to_voxels(points: Tensor, grid: GridLike) -> Tensor:
    check_shape(points, f"B V {len(grid.shape)}", "points")
    check_floating(points, "points")

    return transform_points(points.double(), world_to_grid(grid))
