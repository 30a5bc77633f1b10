"""Affine maps: from parameters, through the Lie algebra, on points and as displacements.

Convention: a matrix is homogeneous, ``(B, d + 1, d + 1)``, and acts on columns ``[x, 1]``. Whether
that is world mm or voxels is said by every function that cares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cardiogen.ops.check import GridLike, check_shape

# Five roots bring any logarithm of norm up to about 19 into the series, whose 25th power is then
# below float64's resolution; a root converges quadratically, from near a half turn in about 12.
_ROOTS, _ROOT_ITERATIONS, _SERIES_TERMS, _SERIES_BOUND = 5, 16, 13, 0.3


def affine_matrix(
    translation: Tensor,
    *,
    rotation: Tensor | None = None,
    scale: Tensor | None = None,
    shear: Tensor | None = None,
    center: Tensor | None = None,
) -> Tensor:
    """Return ``x -> R K S (x - center) + center + translation``.

    S scales the axes, K is unit upper triangular, R rotates; parts left out are the identity.

    Args:
        translation: ``(B, d)``, in the unit of the points it will act on.
        rotation: rotation vector ``(B, 3)`` (axis times angle, radians, right-handed in the order
            of the axes), or the angle ``(B, 1)`` from axis 0 to axis 1 in 2D.
        scale: factors ``(B, d)``.
        shear: entries (0,1), (0,2), (1,2) of K ``(B, 3)``, or (0,1) ``(B, 1)`` in 2D.
        center: fixed point of the linear part ``(B, d)``.

    Returns:
        Matrices ``(B, d + 1, d + 1)``.
    """
    batch, ndim = translation.shape
    if ndim not in (2, 3):
        raise ValueError(f"translation must have shape (B, 2) or (B, 3), got {(batch, ndim)}")
    linear = torch.eye(ndim, dtype=translation.dtype, device=translation.device)
    if rotation is not None:
        linear = torch.linalg.matrix_exp(_skew(rotation, ndim, batch))
    if shear is not None:
        linear = linear @ _unit_upper(shear, ndim, batch)
    if scale is not None:
        check_shape(scale, f"B {ndim}", "scale", B=batch)
        linear = linear * scale.unsqueeze(1)
    linear = linear.expand(batch, ndim, ndim)
    offset = translation
    if center is not None:
        check_shape(center, f"B {ndim}", "center", B=batch)
        offset = offset + center - (linear * center.unsqueeze(1)).sum(dim=-1)

    return _homogeneous(linear, offset, corner=1.0)


def affine_exp(generator: Tensor) -> Tensor:
    """Return the affine matrix of a Lie algebra element: ``exp([[G, t], [0, 0]])``.

    Args:
        generator: ``[G | t]`` ``(B, d, d + 1)``.

    Returns:
        Matrices ``(B, d + 1, d + 1)``; their linear parts have positive determinants.
    """
    _check_generator(generator)
    bottom = torch.zeros_like(generator[:, :1])

    return torch.linalg.matrix_exp(torch.cat([generator, bottom], dim=1))


def affine_log(matrix: Tensor) -> Tensor:
    """Return the Lie algebra element ``[G | t]`` whose exponential is ``matrix``.

    The linear part L goes through five square roots (Denman and Beavers, Appl. Math. Comput.
    1976), then ``log(A) = 2 artanh((A - I)(A + I)^-1)``; t solves ``V t = translation`` with
    ``V = int_0^1 exp(s G) ds``. Computed in float64.

    Args:
        matrix: ``(B, d + 1, d + 1)``.

    Returns:
        ``(B, d, d + 1)`` in the dtype of ``matrix``.

    Raises:
        ValueError: where no real logarithm is found: reflections, singular matrices, and turns of
            (nearly) half a circle.
    """
    ndim = _check_matrix(matrix)
    work = matrix.double()
    linear, translation = work[:, :ndim, :ndim], work[:, :ndim, ndim:]
    generator = _linear_log(linear)
    eye = torch.eye(ndim, dtype=work.dtype, device=work.device).expand_as(generator)
    # The exponential of [[G, I], [0, 0]] has V as its upper right block.
    block = torch.nn.functional.pad(torch.cat([generator, eye], dim=2), (0, 0, 0, ndim))
    integral = torch.linalg.matrix_exp(block)[:, :ndim, ndim:]

    return torch.cat([generator, torch.linalg.solve(integral, translation)], 2).to(matrix.dtype)


def transform_points(points: Tensor, matrix: Tensor) -> Tensor:
    """Apply affine matrices to points ``(B, V, d)``: ``L x + t``, in the wider of both dtypes.

    Args:
        points: ``(B, V, d)``.
        matrix: ``(d + 1, d + 1)`` or ``(B, d + 1, d + 1)``.
    """
    ndim = points.shape[-1]
    check_shape(points, f"B V {ndim}", "points")
    matrix = matrix if matrix.ndim == 3 else matrix.unsqueeze(0)
    check_shape(matrix, f"B {ndim + 1} {ndim + 1}", "matrix")
    dtype = torch.promote_types(points.dtype, matrix.dtype)
    matrix = matrix.to(dtype=dtype, device=points.device)
    # Sums of products instead of a matrix product: autocast and TF32 leave these alone. Components
    # come first, for loops over three numbers are several times slower than those over points.
    columns = points.to(dtype).movedim(-1, 1)
    moved = matrix[:, :ndim, ndim:]
    for axis in range(ndim):
        moved = moved + columns[:, axis : axis + 1] * matrix[:, :ndim, axis : axis + 1]

    return moved.movedim(1, -1)


def grid_to_world(grid: GridLike) -> Tensor:
    """Return the voxel-to-world matrix of a grid, float64 ``(d + 1, d + 1)``."""
    matrix = torch.tensor(grid.affine, dtype=torch.float64)
    size = len(grid.shape) + 1
    check_shape(matrix, f"{size} {size}", "grid.affine")

    return matrix


def world_to_grid(grid: GridLike) -> Tensor:
    """Return the world-to-voxel matrix of a grid, float64 ``(d + 1, d + 1)``."""
    return torch.linalg.inv(grid_to_world(grid))


def affine_to_displacement(
    matrix: Tensor, grid: GridLike, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return a world affine as a displacement on a grid: ``u(x) = A^-1 M A x - x``.

    Args:
        matrix: M ``(B, d + 1, d + 1)``, world mm to world mm.
        grid: shape and affine A of the displacement.
        dtype: of the result; the computation is in float64.

    Returns:
        ``(B, d, *S)``, voxels.
    """
    _check_matrix(matrix)
    device = matrix.device
    to_grid, to_world = world_to_grid(grid).to(device), grid_to_world(grid).to(device)
    in_voxels = to_grid @ matrix.double() @ to_world

    return voxel_affine_to_displacement(in_voxels, grid.shape).to(dtype)


def voxel_affine_to_displacement(matrix: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an affine map of voxels as a displacement: ``u(x) = (L - I) x + t``.

    Args:
        matrix: ``(B, d + 1, d + 1)``, voxels to voxels.
        shape: spatial shape S.

    Returns:
        ``(B, d, *S)``, voxels, dtype of ``matrix``.
    """
    ndim = _check_matrix(matrix)
    if len(shape) != ndim:
        raise ValueError(f"shape must have {ndim} numbers, one per axis, got {tuple(shape)}")
    change = matrix - torch.eye(ndim + 1, dtype=matrix.dtype, device=matrix.device)
    trailing = [1] * ndim
    field = change[:, :ndim, ndim].reshape(-1, ndim, *trailing)
    for axis, size in enumerate(shape):
        steps = torch.arange(size, dtype=matrix.dtype, device=matrix.device)
        steps = steps.view([-1 if other == axis else 1 for other in range(ndim)])
        field = field + change[:, :ndim, axis].reshape(-1, ndim, *trailing) * steps

    return field


def _homogeneous(linear: Tensor, offset: Tensor, *, corner: float) -> Tensor:
    top = torch.cat([linear, offset.unsqueeze(-1)], dim=-1)
    bottom = torch.zeros_like(top[:, :1])
    bottom[..., -1] = corner

    return torch.cat([top, bottom], dim=1)


def _skew(rotation: Tensor, ndim: int, batch: int) -> Tensor:
    check_shape(rotation, "B 3" if ndim == 3 else "B 1", "rotation", B=batch)
    if ndim == 2:
        zero = torch.zeros_like(rotation)
        return torch.cat([zero, -rotation, rotation, zero], dim=1).unflatten(1, (2, 2))
    x, y, z = rotation.unbind(1)
    zero = torch.zeros_like(x)

    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).unflatten(1, (3, 3))


def _unit_upper(shear: Tensor, ndim: int, batch: int) -> Tensor:
    check_shape(shear, "B 3" if ndim == 3 else "B 1", "shear", B=batch)
    rows, columns = torch.triu_indices(ndim, ndim, offset=1)
    eye = torch.eye(ndim, dtype=shear.dtype, device=shear.device).expand(batch, -1, -1)

    return eye.index_put((torch.arange(batch).unsqueeze(1), rows, columns), shear)


def _linear_log(linear: Tensor) -> Tensor:
    eye = torch.eye(linear.shape[-1], dtype=linear.dtype, device=linear.device).expand_as(linear)
    if not (torch.linalg.det(linear) > 0).all():
        raise ValueError("matrix must have a positive determinant to have a logarithm")
    root = linear
    for _ in range(_ROOTS):
        root = _square_root(root, eye)
    ratio = torch.linalg.solve(root + eye, root - eye)
    if not (torch.linalg.matrix_norm(ratio) < _SERIES_BOUND).all():
        raise ValueError("matrix must have a real logarithm, got one too near a half turn or 0")
    power, total = ratio, ratio
    for term in range(1, _SERIES_TERMS):
        power = power @ ratio @ ratio
        total = total + power / (2 * term + 1)

    return total * (2 * 2**_ROOTS)


def _square_root(matrix: Tensor, eye: Tensor) -> Tensor:
    root, inverse_root = matrix, eye
    for _ in range(_ROOT_ITERATIONS):
        try:
            change = torch.linalg.inv(inverse_root), torch.linalg.inv(root)
        except torch.linalg.LinAlgError as error:
            raise ValueError("matrix must have a real logarithm, got a half turn") from error
        root, inverse_root = (root + change[0]) / 2, (inverse_root + change[1]) / 2
    error = torch.linalg.matrix_norm(root @ root - matrix) / torch.linalg.matrix_norm(matrix)
    if not (error < 1e-9).all():
        raise ValueError("matrix must have a real logarithm, got one too near a half turn or 0")

    return root


def _check_matrix(matrix: Tensor) -> int:
    ndim = matrix.shape[-1] - 1
    check_shape(matrix, f"B {ndim + 1} {ndim + 1}", "matrix")
    if ndim not in (2, 3):
        raise ValueError(f"matrix must have shape (B, 3, 3) or (B, 4, 4), got {matrix.shape}")

    return ndim


def _check_generator(generator: Tensor) -> None:
    ndim = generator.shape[-1] - 1
    if generator.ndim != 3 or ndim not in (2, 3) or generator.shape[1] != ndim:
        raise ValueError(
            f"generator must have shape (B, 2, 3) or (B, 3, 4), got {tuple(generator.shape)}"
        )
