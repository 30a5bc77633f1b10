"""Quadratic smoothness in the cosine transform, where diffusion and bending are diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.losses import Bending, Diffusion, Weighted


class Spectrum:
    """``lambda L`` of a field ``(B, n, *S)``, voxels, with free borders, as numbers per wave.

    ``mean_x lambda |grad u|^2 = sum_k a_k |c_k|^2 / N`` with c the orthonormal cosine transform
    of u and ``a_k = lambda s_i^2 w_k``, ``w_k = sum_j (2 - 2 cos(pi k_j / n_j)) / s_j^2``; bending
    takes ``w_k^2`` (equal to ``losses.Bending`` up to its border terms).

    Args:
        shape: ``S``.
        spacing: mm per axis.
        axes: axes along which the field's components point, e.g. (1, 2) in plane.
        terms: weighted regularizers; any but diffusion and bending are refused.
        through_plane_mm: l, see ``StageConfig``: the component along axis 0 pays ``l^2 w_k`` times
            as much; 0 treats all components alike.
        device: where fields lie.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        spacing: tuple[float, ...],
        axes: tuple[int, ...],
        terms: dict[str, Weighted],
        through_plane_mm: float = 0.0,
        device: torch.device,
    ) -> None:
        waves = torch.zeros(shape, dtype=torch.float64)
        for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
            angle = torch.arange(size, dtype=torch.float64) * (math.pi / size)
            along = [1] * len(shape)
            along[axis] = size
            waves = waves + ((2 - 2 * angle.cos()) / step**2).view(along)
        price = torch.zeros_like(waves)
        for entry in terms.values():
            if entry.term.kind == "field":
                price = price + float(entry.weight) * waves ** _power(entry)
        prices = [spacing[axis] ** 2 * price for axis in axes]
        if through_plane_mm > 0 and 0 in axes:
            prices[0] = prices[0] * waves * through_plane_mm**2
        self.price = torch.stack(prices).unsqueeze(0).float().to(device)
        self._cosines = [_cosines(size).float().to(device) for size in shape]
        self._back = [matrix.T.contiguous() for matrix in self._cosines]

    def forward(self, field: Tensor) -> Tensor:
        """Return the orthonormal cosine transform of ``(B, n, *S)``."""
        return _along_axes(field, self._cosines, self._back)

    def backward(self, waves: Tensor) -> Tensor:
        """Return the field of its cosine transform."""
        return _along_axes(waves, self._back, self._cosines)

    def energy(self, waves: Tensor) -> Tensor:
        """Return the mean price of a field per voxel, ``(B,)``, from its transform."""
        voxels = waves[0, 0].numel()

        return (self.price * waves.square()).flatten(1).sum(dim=1) / voxels


def _power(entry: Weighted) -> int:
    if isinstance(entry.term, Diffusion):
        return 1
    if isinstance(entry.term, Bending):
        return 2
    raise CardiogenError(
        "M07", "solver gauss_newton", found=f"the regularizer {type(entry.term).__name__}",
        expected="diffusion or bending", remedy="solver adam or lbfgs",
    )  # fmt: skip


def _cosines(size: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II), rows the frequencies."""
    frequency = torch.arange(size, dtype=torch.float64).unsqueeze(1)
    place = torch.arange(size, dtype=torch.float64) + 0.5
    matrix = torch.cos(math.pi / size * frequency * place) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5

    return matrix


def _along_axes(field: Tensor, matrices: list[Tensor], transposed: list[Tensor]) -> Tensor:
    """Multiply every axis of ``(B, n, *S)`` by its matrix, without moving axes about."""
    shape = field.shape
    field = field @ transposed[-1]
    field = matrices[-2] @ field
    if len(shape) == 5:
        field = matrices[0] @ field.reshape(shape[0], shape[1], shape[2], -1)

    return field.reshape(shape)
