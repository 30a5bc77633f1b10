"""Algebra of displacements: compose, exponentiate, invert.

Convention: ``a_to_b`` lives on grid a, in voxels, and sends points of a to b; all fields of one
chain share one lattice. Outside the lattice a field keeps the value of its border. Results are
float32 or wider: half precision would lose the small steps.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cardiogen.ops.check import check_batch, check_field, check_same
from cardiogen.ops.jacobian import column_determinant
from cardiogen.ops.kernels import choose
from cardiogen.ops.sample import sample
from cardiogen.ops.warp import displaced_coords, warp

# Bound of the first step in automatic exponentiation, voxels. At 7 voxels of velocity it gives 7
# squarings; with more, interpolation error outweighs what the smaller step gains.
_FIRST_STEP = 1 / 16
_SMALLEST_DETERMINANT = 0.01


def compose(a_to_b: Tensor, b_to_c: Tensor) -> Tensor:
    """Return ``a_to_c(x) = a_to_b(x) + b_to_c(x + a_to_b(x))``.

    ``warp(warp(image_c, b_to_c), a_to_b)`` equals ``warp(image_c, compose(a_to_b, b_to_c))`` up to
    interpolation.

    Args:
        a_to_b: ``(B, d, *S)``, voxels.
        b_to_c: ``(B, d, *S)``, voxels. Either batch may be 1 and is then shared.

    Returns:
        ``a_to_c`` ``(B, d, *S)``, voxels.
    """
    shape = check_field(a_to_b, "a_to_b")
    check_same(check_field(b_to_c, "b_to_c"), shape, "b_to_c", "a_to_b")
    check_batch(b_to_c.shape[0], a_to_b.shape[0], "b_to_c", "a_to_b")

    first, second = _widened(a_to_b), _widened(b_to_c)

    return choose(_compose, first, second)(first, second)


def exponentiate(velocity: Tensor, *, steps: int | Literal["auto"] = "auto") -> Tensor:
    """Return the displacement of a stationary velocity by scaling and squaring.

    ``u_0 = v / 2^steps``, then ``steps`` times ``u <- u o u`` (Arsigny et al., MICCAI 2006). The
    error of the first step falls as ``2^-steps``. ``"auto"`` takes for every sample the fewest
    steps for which no voxel's first step ``|v| / 2^steps`` exceeds 1/16 voxel, so a sample's
    result does not depend on its batch.

    Args:
        velocity: ``(B, d, *S)``, voxels per unit of time.
        steps: number of squarings, or ``"auto"``.

    Returns:
        Displacement at time 1, ``(B, d, *S)``, voxels; ``exponentiate(-velocity)`` is its inverse.
    """
    check_field(velocity, "velocity")
    if steps == "auto":
        counts = automatic_steps(velocity)
    elif isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0:
        counts = [steps] * velocity.shape[0]
    else:
        raise ValueError(f"steps must be 'auto' or a whole number from 0, got {steps!r}")

    velocity = _widened(velocity)

    return choose(_exponentiate, velocity)(velocity, counts)


def automatic_steps(velocity: Tensor) -> list[int]:
    """Return the squarings that ``exponentiate`` takes for every sample under ``"auto"``.

    ``max(0, ceil(log2(16 max_x |v(x)|)))``; 0 where the velocity is not finite, which then
    propagates.
    """
    # A sum of squares along the components is fifty times faster than vector_norm(dim=1).
    longest = velocity.detach().double().square().sum(dim=1).flatten(1).amax(dim=1).sqrt()

    return [
        max(0, math.ceil(math.log2(norm / _FIRST_STEP))) if 0 < norm < math.inf else 0
        for norm in longest.tolist()
    ]


class Inversion(NamedTuple):
    """An inverse displacement and how well it inverts.

    Attributes:
        displacement: ``b_to_a`` ``(B, d, *S)``, voxels.
        residual: largest ``|b_to_a(x) + a_to_b(x + b_to_a(x))|`` of every sample ``(B,)``, voxels.
        iterations: iterations that every sample took ``(B,)``.
    """

    displacement: Tensor
    residual: Tensor
    iterations: Tensor


def invert(
    displacement: Tensor,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 50,
    require_convergence: bool = True,
) -> Inversion:
    """Return the inverse w of a displacement u: the solution of ``w(x) + u(x + w(x)) = 0``.

    Newton's method per voxel on the interpolated field, halving a step that does not help. Unlike
    the fixed point ``w <- -u(x + w)`` (Chen et al., Med. Phys. 2008) it does not need u to change
    by less than a voxel per voxel, which exponentials often do. Every sample stops on its own.
    Two more differentiable Newton steps carry first and second derivatives.

    Args:
        displacement: ``a_to_b`` ``(B, d, *S)``, voxels.
        tolerance: largest residual to accept, voxels.
        max_iterations: most iterations.
        require_convergence: raise where the tolerance is not met; otherwise the caller reads
            ``residual``.

    Raises:
        ValueError: if a sample does not converge, with its residual.
    """
    check_field(displacement, "displacement")
    displacement = _widened(displacement)
    with torch.no_grad():
        inverse, residual, iterations = _newton(displacement, tolerance, max_iterations)
    if require_convergence and not (residual <= tolerance).all():
        raise ValueError(
            f"displacement must be invertible to {tolerance} voxels in {max_iterations} "
            f"iterations, got a residual of {residual.max().item():.3g} voxels; it may fold: "
            "see folding"
        )
    if torch.is_grad_enabled() and displacement.requires_grad:
        for _ in range(2):
            inverse = inverse - _newton_step(displacement, inverse, compose(inverse, displacement))

    return Inversion(inverse, residual, iterations)


def _newton(field: Tensor, tolerance: float, max_iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    inverse = -field
    mismatch = compose(inverse, field)
    share = torch.ones_like(field[:, :1])
    iterations = torch.zeros(field.shape[0], dtype=torch.long, device=field.device)
    for _ in range(max_iterations):
        # Written so that NaN counts as still going: it must not pass for converged.
        going = ~(_largest_norm(mismatch) <= tolerance)
        if not going.any():
            break
        iterations = iterations + going
        trial = inverse - share * _newton_step(field, inverse, mismatch)
        trial_mismatch = compose(trial, field)
        better = _norm(trial_mismatch) < _norm(mismatch)
        accepted = better & going.view(-1, *[1] * (field.ndim - 1))
        inverse = torch.where(accepted, trial, inverse)
        mismatch = torch.where(accepted, trial_mismatch, mismatch)
        share = torch.where(better, (2 * share).clamp(max=1), share / 2)

    return inverse, _largest_norm(mismatch), iterations


def _newton_step(field: Tensor, inverse: Tensor, mismatch: Tensor) -> Tensor:
    """Solve ``(I + Du(x + w)) step = mismatch`` by Cramer's rule."""
    columns = _interpolant_columns(field, inverse)
    determinant = column_determinant(columns)
    # In a fold the linear model is useless; the plain fixed-point step is then as good as any.
    usable = determinant > _SMALLEST_DETERMINANT
    safe = torch.where(usable, determinant, 1)
    steps = [
        column_determinant([*columns[:axis], mismatch, *columns[axis + 1 :]]) / safe
        for axis in range(len(columns))
    ]

    return torch.where(usable.unsqueeze(1), torch.stack(steps, dim=1), mismatch)


def _interpolant_columns(field: Tensor, inverse: Tensor) -> list[Tensor]:
    """Return the columns of ``I + Du`` at ``x + w``, exact for linear interpolation.

    In its cell the interpolant is linear along each axis, so its slope there is the difference
    between the two faces of the cell; beyond the border the field is constant and the slope 0.
    """
    coords = displaced_coords(inverse)
    columns = []
    for axis, size in enumerate(field.shape[2:]):
        position = coords[:, axis].detach()
        lower = position.floor().clamp(0, max(size - 2, 0))
        inside = ((position >= 0) & (position <= size - 1)).unsqueeze(1)
        before, after = coords[:, :axis], coords[:, axis + 1 :]
        faces = [
            sample(field, torch.cat([before, face.unsqueeze(1), after], dim=1))
            for face in (lower, (lower + 1).clamp(max=size - 1))
        ]
        unit = torch.zeros(1, field.shape[1], *[1] * (field.ndim - 2)).to(field)
        unit[:, axis] = 1
        columns.append(torch.where(inside, faces[1] - faces[0], 0) + unit)

    return columns


def _compose(a_to_b: Tensor, b_to_c: Tensor) -> Tensor:
    return a_to_b + warp(b_to_c, a_to_b)


def _exponentiate(velocity: Tensor, counts: list[int]) -> Tensor:
    trailing = [1] * (velocity.ndim - 1)
    scales = [2.0**-steps for steps in counts]
    displacement = velocity * velocity.new_tensor(scales).view(-1, *trailing)
    for step in range(max(counts, default=0)):
        squared = _compose(displacement, displacement)
        going = [steps > step for steps in counts]
        if all(going):
            displacement = squared
        else:
            mask = torch.tensor(going, device=velocity.device).view(-1, *trailing)
            displacement = torch.where(mask, squared, displacement)

    return displacement


def _widened(field: Tensor) -> Tensor:
    return field.to(torch.promote_types(field.dtype, torch.float32))


def _norm(field: Tensor) -> Tensor:
    return torch.linalg.vector_norm(field, dim=1, keepdim=True)


def _largest_norm(field: Tensor) -> Tensor:
    return _norm(field).flatten(1).amax(dim=1)
