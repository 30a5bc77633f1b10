"""Smoothness of fields with Gaussian priors: diffusion and bending, with normalizer and prox.

Convention: see ``ops.energy`` for the differences, their units and the free border. Both energies
are quadratic forms ``sum_i s_i^2 u_i' A u_i`` of the components; where A is diagonal in the cosine
transform its determinant and inverse cost one transform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import torch
from torch import Tensor

from cardiogen.losses.masks import mean_inside
from cardiogen.losses.term import FieldTerm, Reduction, Weight, gaussian_log_normalizer
from cardiogen.ops import bending_energy, bending_map, diffusion_energy, diffusion_map
from cardiogen.ops.check import check_field, check_spacing

# Eigenvalues of a dense matrix of so many rows take about a second and 100 MB.
_DENSE_VOXELS = 2048


@dataclass(frozen=True, kw_only=True)
class Diffusion(FieldTerm):
    """Squared gradient ``|grad u|^2`` (mm per mm): membrane energy, the prior of VoxelMorph."""

    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the squared gradient at every voxel, ``(B, 1, *S)``."""
        return diffusion_map(displacement, spacing=spacing)

    def mean(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the mean of the map over the mask, ``(B,)``."""
        if mask is None:
            return diffusion_energy(displacement, spacing=spacing)

        return mean_inside(self.map(displacement, spacing=spacing), mask)

    def log_normalizer(
        self,
        shape: tuple[int, ...],
        *,
        spacing: tuple[float, ...],
        weight: Weight = 1.0,
        reduction: Reduction = "sum",
    ) -> Tensor:
        """Return ``log Z`` of the Gaussian Markov field, translations left out.

        A constant costs nothing, so the density is normalized on the fields whose components have
        mean 0: the d zero eigenvalues of the cosine transform are dropped.
        """
        components, *sizes = shape
        lengths = check_spacing(spacing, components)
        values = _laplacian_spectrum(tuple(sizes), lengths).flatten()[1:]
        precisions = torch.cat([length**2 * values for length in lengths])
        voxels = torch.Size(sizes).numel()

        return gaussian_log_normalizer(precisions, voxels, weight=weight, reduction=reduction)

    def prox(
        self, displacement: Tensor, *, spacing: tuple[float, ...], step: float | Tensor
    ) -> Tensor:
        """Return the field w that minimizes ``step * sum map(w) + |w - displacement|^2 / 2``.

        ``(I + 2 step s_i^2 A) w_i = u_i`` is solved exactly by the cosine transform. It is also a
        smoother: it keeps the mean and damps what is shorter than ``sqrt(2 step) s_i`` mm.

        Args:
            displacement: u, ``(B, d, *S)``, voxels; the squared distance is in voxels too.
            spacing: mm per axis.
            step: positive, a number or ``(B,)``.
        """
        shape = check_field(displacement, "displacement")
        lengths = displacement.new_tensor(check_spacing(spacing, len(shape)))
        spectrum = _laplacian_spectrum(shape, tuple(spacing)).to(displacement)
        step = torch.as_tensor(step, dtype=displacement.dtype, device=displacement.device)
        scale = (2 * step.reshape(-1, 1) * lengths.square()).view(
            -1, len(shape), *[1] * len(shape)
        )
        cosines = [_cosines(size).to(displacement) for size in shape]
        waves = _along_axes(displacement, cosines) / (1 + scale * spectrum)

        return _along_axes(waves, [matrix.T for matrix in cosines])


@dataclass(frozen=True, kw_only=True)
class Bending(FieldTerm):
    """Squared second derivatives ``|grad grad u|^2`` (1/mm^2); affine motion is free."""

    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the squared second derivatives at every voxel, ``(B, 1, *S)``."""
        return bending_map(displacement, spacing=spacing)

    def mean(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the mean of the map over the mask, ``(B,)``."""
        if mask is None:
            return bending_energy(displacement, spacing=spacing)

        return mean_inside(self.map(displacement, spacing=spacing), mask)

    def log_normalizer(
        self,
        shape: tuple[int, ...],
        *,
        spacing: tuple[float, ...],
        weight: Weight = 1.0,
        reduction: Reduction = "sum",
    ) -> Tensor:
        """Return ``log Z`` of the Gaussian field, affine fields left out.

        Second differences with free borders have no common eigenvectors, so this takes the
        eigenvalues of the dense operator.

        Raises:
            ValueError: for more than 2,048 voxels.
        """
        components, *sizes = shape
        lengths = check_spacing(spacing, components)
        voxels = torch.Size(sizes).numel()
        if voxels > _DENSE_VOXELS:
            raise ValueError(
                f"log_normalizer of Bending is known for up to {_DENSE_VOXELS} voxels, got "
                f"{voxels}; its dependence on the weight is -log(weight) / 2 per free value, of "
                "which an affine field has none"
            )
        free = 1 + sum(size > 1 for size in sizes)
        values = torch.linalg.eigvalsh(_bending_matrix(tuple(sizes), lengths))[free:]
        precisions = torch.cat([length**2 * values for length in lengths])

        return gaussian_log_normalizer(precisions, voxels, weight=weight, reduction=reduction)


def _laplacian_spectrum(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Tensor:
    """Return the eigenvalues of ``sum_j D_j' D_j / s_j^2`` on the grid of frequencies."""
    total = torch.zeros(shape, dtype=torch.float64)
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        wave = torch.arange(size, dtype=torch.float64) * (torch.pi / size)
        along = [1] * len(shape)
        along[axis] = size
        total = total + ((2 - 2 * wave.cos()) / step**2).view(along)

    return total


def _cosines(size: int) -> Tensor:
    """Return the orthonormal cosine transform (DCT-II), rows the frequencies."""
    frequency = torch.arange(size, dtype=torch.float64).unsqueeze(1)
    place = torch.arange(size, dtype=torch.float64) + 0.5
    matrix = torch.cos(torch.pi / size * frequency * place) * (2 / size) ** 0.5
    matrix[0] /= 2**0.5

    return matrix


def _along_axes(field: Tensor, matrices: list[Tensor]) -> Tensor:
    for axis, matrix in enumerate(matrices, start=2):
        field = torch.movedim(torch.movedim(field, axis, -1) @ matrix.T, -1, axis)

    return field


def _bending_matrix(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Tensor:
    """Return the dense A of one component, in 1/mm^4."""
    total = torch.zeros(torch.Size(shape).numel(), dtype=torch.float64).diag()
    eyes = [torch.eye(size, dtype=torch.float64) for size in shape]
    first = [_gram(eye.diff(dim=0)) for eye in eyes]
    second = [_gram(eye.diff(n=2, dim=0) if len(eye) > 2 else eye[:0]) for eye in eyes]
    for axis, step in enumerate(spacing):
        factors = [*eyes]
        factors[axis] = second[axis]
        total = total + reduce(torch.kron, factors) / step**4
    for low, high in combinations(range(len(shape)), 2):
        factors = [*eyes]
        factors[low], factors[high] = first[low], first[high]
        total = total + 2 * reduce(torch.kron, factors) / (spacing[low] * spacing[high]) ** 2

    return total


def _gram(rows: Tensor) -> Tensor:
    return rows.T @ rows
