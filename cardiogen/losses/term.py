"""The contract of every energy term: a map over voxels, its mean or sum, its normalizer.

Convention: a term is a frozen record of its constants and holds no tensors, so that one object
serves a pyramid level, a batch and a network alike. Every term is the mean of a map over voxels,
also where the usual formula is not written so (correlation, information, overlap), hence masks,
spatial weights and sums mean the same for all. Energies are smaller for better matches.

A mask ``(B or 1, 1, *S)``, bool or in [0, 1], says which voxels count. What images and labels
hold outside is never read. A field is defined everywhere, so the differences of a field term at
the mask's border do read across it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from cardiogen.losses.masks import check_map, count, mean_inside

Kind = Literal["image", "label", "field", "sequence"]
Reduction = Literal["mean", "sum"]
Weight = float | Tensor


class EnergyTerm(ABC):
    """What solvers, networks and samplers know of a term.

    Attributes:
        kind: what the term takes: ``image`` and ``label`` terms a fixed and a moved tensor,
            ``field`` terms a displacement or velocity, ``sequence`` terms one field per frame.
    """

    kind: ClassVar[Kind]

    @abstractmethod
    def map(
        self, *inputs: Tensor, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the energy of every voxel, ``(B, 1, *S)``; its mean over the mask is ``mean``."""

    def mean(
        self, *inputs: Tensor, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the mean of the map over the mask, ``(B,)``; 0 where the mask is empty."""
        return mean_inside(self.map(*inputs, spacing=spacing, mask=mask), mask)

    def value(
        self,
        *inputs: Tensor,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
        weight: Weight = 1.0,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Return ``mean_x weight(x) map(x)`` or the sum over x, for every sample ``(B,)``.

        Args:
            inputs: see ``kind``; the batch of the fixed one may be 1.
            spacing: mm per axis of the inputs' grid.
            mask: ``(B or 1, 1, *S)``; means and sums run over it. None counts all voxels.
            weight: a number, ``()`` or ``(B,)``, or a map ``(B or 1, 1, *S)``.
            reduction: ``"sum"`` is the mean times the number of voxels of the mask.
        """
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be mean or sum, got {reduction!r}")
        if isinstance(weight, Tensor) and weight.ndim > 1:
            voxels = self.map(*inputs, spacing=spacing, mask=mask)
            check_map(weight, voxels, "weight")
            mean = mean_inside(voxels * weight, mask)
        else:
            mean = self.mean(*inputs, spacing=spacing, mask=mask) * weight
        if reduction == "mean":
            return mean

        return mean * count(mask, inputs[-1].shape[-len(spacing) :]).to(mean.dtype)

    def log_normalizer(
        self,
        shape: tuple[int, ...],
        *,
        spacing: tuple[float, ...],
        weight: Weight = 1.0,
        reduction: Reduction = "sum",
    ) -> Tensor:
        """Return ``log Z`` of the Gibbs density ``exp(-value) / Z`` over the last input.

        Args:
            shape: ``(C, *S)`` of one sample of that input.
            spacing: mm per axis.
            weight: a number, ``()`` or ``(B,)``; ``Z`` differentiates with respect to it.
            reduction: that of ``value``.

        Returns:
            Shape of ``weight``, float64.

        Raises:
            ValueError: if ``Z`` has no known closed form.
        """
        raise ValueError(
            f"log_normalizer of {type(self).__name__} is not known in closed form; "
            "MSE, Diffusion and (on small grids) Bending have one"
        )


class ImageTerm(EnergyTerm):
    """A distance of a fixed and a moved image, both ``(B, C, *S)``; mean over channels."""

    kind: ClassVar[Kind] = "image"

    @abstractmethod
    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the distance at every voxel, ``(B, 1, *S)``."""


class LabelTerm(EnergyTerm):
    """A distance of one-hot or probability maps, both ``(B, K, *S)``; mean over the K labels."""

    kind: ClassVar[Kind] = "label"

    @abstractmethod
    def map(
        self,
        fixed: Tensor,
        moved: Tensor,
        *,
        spacing: tuple[float, ...],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the distance at every voxel, ``(B, 1, *S)``."""


class FieldTerm(EnergyTerm):
    """A price of a displacement or velocity ``(B, d, *S)``, voxels, measured in mm."""

    kind: ClassVar[Kind] = "field"

    @abstractmethod
    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the price at every voxel, ``(B, 1, *S)``."""


class SequenceTerm(EnergyTerm):
    """A price of the fields of all frames ``(B, T, d, *S)``, voxels; mean over the frames."""

    kind: ClassVar[Kind] = "sequence"

    @abstractmethod
    def map(
        self, displacements: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the price at every voxel, ``(B, 1, *S)``."""


def gaussian_log_normalizer(
    precisions: Tensor, voxels: int, *, weight: Weight, reduction: Reduction
) -> Tensor:
    """Return ``sum_k log sqrt(pi / (w a_k))``: ``log Z`` of ``exp(-w sum_k a_k x_k^2)``.

    Args:
        precisions: all ``a_k``, positive, float64.
        voxels: what a mean divides by.
        weight: w, see ``EnergyTerm.log_normalizer``.
        reduction: that of the energy.
    """
    weight = torch.as_tensor(weight, dtype=torch.float64)
    if weight.ndim > 1:
        raise ValueError(
            "log_normalizer is not known for a weight map; give a number or one weight a sample"
        )
    share = 1 / voxels if reduction == "mean" else 1.0
    constant = 0.5 * torch.log(torch.pi / (share * precisions)).sum()

    return constant - 0.5 * precisions.numel() * torch.log(weight)
