"""Linear operators that act axis by axis, as small matrices.

A filter, a B-spline expansion or a prefilter along an axis of n voxels is an (m, n) matrix. That
is exact at the borders, has the transposed matrix as its adjoint and any derivative for free.
Matrices are made once, in float64, and applied in the tensor's own precision, float32 or wider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, wraps
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from cardiogen.ops.kernels import choose, transformed

# Matrices kept of each kind: blurs of random width would else fill the memory.
_KEPT = 64
Made = TypeVar("Made")


class Bands(NamedTuple):
    """A matrix whose rows are 0 but for a stretch.

    Attributes:
        first: where the stretch of every row begins ``(m,)``, int32.
        weights: its values ``(m, taps)``, float32; no stretch reaches beyond the last column.
    """

    first: Tensor
    weights: Tensor


class AxisMatrix:
    """A linear operator along one axis.

    Attributes:
        dense: its matrix ``(m, n)``, float64.
    """

    def __init__(self, dense: Tensor) -> None:
        self.dense = dense
        self._placed: dict[tuple, object] = {}

    @cached_property
    def transposed(self) -> AxisMatrix:
        """The adjoint operator."""
        return AxisMatrix(self.dense.T.contiguous())

    def matrix(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the dense matrix in a precision and place."""
        return self._at((dtype, device), lambda: self.dense.to(dtype=dtype, device=device))

    def bands(self, device: torch.device) -> Bands:
        """Return the stretches of the rows that are not 0."""
        return self._at(device, lambda: _bands(self.dense, device))

    @cached_property
    def taps(self) -> int:
        """The length of the stretches."""
        return self.bands(torch.device("cpu")).weights.shape[1]

    @cached_property
    def is_steady(self) -> bool:
        """Whether most rows begin one voxel after the one before, as those of a filter do."""
        first = self.bands(torch.device("cpu")).first

        return int((first.diff() == 1).sum()) >= len(first) // 2

    def product(self, tensor: Tensor, axis: int) -> Tensor:
        """Apply the operator to one spatial axis of ``(B, C, *S)`` as a matrix product."""
        dense = self.matrix(tensor.dtype, tensor.device)
        # Autocast would take products of coordinates down to half precision.
        with torch.autocast(tensor.device.type, enabled=False):
            return torch.movedim(torch.movedim(tensor, axis + 2, -1) @ dense.T, -1, axis + 2)

    def _at(self, key: object, make: Callable) -> object:
        if key not in self._placed:
            self._placed[key] = _made_to_keep(make)
        return self._placed[key]


def axis_matrix(build: Callable[..., Tensor]) -> Callable[..., AxisMatrix]:
    """Make a function of plain values that returns a dense matrix return a kept ``AxisMatrix``."""

    @lru_cache(maxsize=_KEPT)
    def kept(*values: object) -> AxisMatrix:
        return _made_to_keep(lambda: AxisMatrix(build(*values)))

    @wraps(build)
    def matrix(*values: object) -> AxisMatrix:
        # What a tracer makes is of use to that tracer alone.
        traced = torch.compiler.is_compiling() or transformed()

        return AxisMatrix(build(*values)) if traced else kept(*values)

    return matrix


def _made_to_keep(make: Callable[[], Made]) -> Made:
    """Make tensors that can be saved for gradients later, on CPU whatever the default device."""
    if torch.compiler.is_compiling():
        return make()
    with torch.inference_mode(False), torch.device("cpu"):
        return make()


def apply_separable(tensor: Tensor, matrices: Sequence[AxisMatrix | None]) -> Tensor:
    """Apply one operator ``(m, n)`` to each spatial axis of ``(B, C, *S)``; None leaves it."""
    return choose(_apply_separable, tensor)(tensor, matrices)


def _apply_separable(tensor: Tensor, matrices: Sequence[AxisMatrix | None]) -> Tensor:
    work = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    for axis, matrix in enumerate(matrices):
        if matrix is not None:
            work = matrix.product(work, axis)

    return work.to(tensor.dtype)


def _bands(dense: Tensor, device: torch.device) -> Bands:
    used = dense != 0
    columns = dense.shape[1]
    first = used.int().argmax(dim=1)
    last = columns - 1 - used.flip(1).int().argmax(dim=1)
    last = torch.where(used.any(dim=1), last, first)
    taps = int((last - first).max()) + 1
    first = first.clamp(max=columns - taps)
    weights = dense.gather(1, first.unsqueeze(1) + torch.arange(taps))

    return Bands(first.int().to(device), weights.float().to(device))


@axis_matrix
def tap_matrix(weights: tuple[float, ...], size: int) -> Tensor:
    """Return the ``(size, size)`` filter of odd-length ``weights``, borders repeated outwards."""
    reach = len(weights) // 2
    rows = torch.arange(size).unsqueeze(1).expand(size, len(weights))
    columns = (rows + torch.arange(-reach, reach + 1)).clamp(0, size - 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    values = torch.tensor(weights, dtype=torch.float64).expand(size, -1)

    return matrix.index_put_((rows, columns), values, accumulate=True)


@axis_matrix
def linear_matrix(size: int, new_size: int) -> Tensor:
    """Return the linear interpolation ``(new_size, size)`` that keeps first and last voxels."""
    matrix = torch.zeros(new_size, size, dtype=torch.float64)
    step = (size - 1) / (new_size - 1) if new_size > 1 else 0.0
    position = torch.arange(new_size, dtype=torch.float64) * step
    lower = position.floor().clamp(max=max(size - 2, 0)).long()
    rows = torch.arange(new_size)
    matrix[rows, lower] += 1 - (position - lower)
    matrix[rows, (lower + 1).clamp(max=size - 1)] += position - lower

    return matrix


def cubic_weights(share: Tensor) -> list[Tensor]:
    """Return the four uniform cubic B-spline weights at ``share`` in [0, 1] of a cell."""
    rest = 1 - share

    return [
        rest**3 / 6,
        2 / 3 - share**2 * (2 - share) / 2,
        2 / 3 - rest**2 * (2 - rest) / 2,
        share**3 / 6,
    ]


def mirrored(index: Tensor, size: int) -> Tensor:
    """Fold integer positions into [0, size) by reflection at the centers of the end voxels."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    folded = index.remainder(period)

    return torch.minimum(folded, period - folded)


@axis_matrix
def cubic_prefilter_matrix(size: int) -> Tensor:
    """Return the matrix from values to the cubic B-spline coefficients that interpolate them.

    The samples ``(c[k-1] + 4 c[k] + c[k+1]) / 6`` with mirrored ends are inverted (Unser, Aldroubi
    and Eden, IEEE Trans. Signal Process. 1993), which is what scipy's ``mode="mirror"`` means.
    """
    rows = torch.arange(size).unsqueeze(1).expand(size, 3)
    columns = mirrored(rows + torch.arange(-1, 2), size)
    weights = torch.tensor([1.0, 4.0, 1.0], dtype=torch.float64) / 6
    samples = torch.zeros(size, size, dtype=torch.float64)
    samples.index_put_((rows, columns), weights.expand(size, 3), accumulate=True)

    return torch.linalg.inv(samples)
