"""Mechanics of fields: elasticity, divergence, incompressibility, total variation, folding.

Convention: derivatives are in mm per mm. Energies of slopes are means over the corners of a
voxel, that is over all combinations of its slopes before and after: along every axis a central
slope c and half the jump j between both sides, so that squares have the mean ``c^2 + j^2`` and
products of different slopes ``c c'``. Linear fields are exact up to the borders, and unlike with
central differences alone no checkerboard is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cardiogen.losses.term import FieldTerm
from cardiogen.losses.windows import neighbor_slopes
from cardiogen.ops import folding_determinants, jacobian_determinant
from cardiogen.ops.check import check_field, check_spacing

# Below this volume ratio the logarithm goes on as its tangent, so that folds are still undone.
_LOG_FLOOR = 0.05


@dataclass(frozen=True, kw_only=True)
class Elastic(FieldTerm):
    """Linear elastic energy ``mu |e|^2 + lam / 2 (tr e)^2``, ``e = (grad u + grad u') / 2``.

    Small rotations are free, unlike with diffusion.

    Attributes:
        mu: shear modulus, relative to the other terms.
        lam: first Lame parameter.
    """

    mu: float = 1.0
    lam: float = 1.0

    def __post_init__(self) -> None:
        if not (self.mu >= 0 and self.lam >= 0):
            raise ValueError(f"mu and lam must not be negative, got {self.mu} and {self.lam}")

    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the elastic energy density, ``(B, 1, *S)``, without unit."""
        central, jump = _slopes(displacement, spacing)
        axes = range(displacement.shape[1])
        stretch = sum(central[j][:, j].square() + jump[j][:, j].square() for j in axes)
        shear = torch.zeros_like(stretch)
        for j, k in combinations(axes, 2):
            shear = shear + (central[k][:, j] + central[j][:, k]).square()
            shear = shear + jump[k][:, j].square() + jump[j][:, k].square()
        trace = _trace_square(central, jump)

        return (self.mu * (stretch + shear / 2) + self.lam / 2 * trace).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class Divergence(FieldTerm):
    """Squared divergence ``(div u)^2``: change of volume of small or stationary motion.

    The exponential of a velocity without divergence keeps volume exactly; give it a mask of the
    myocardium.
    """

    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the squared divergence, ``(B, 1, *S)``, without unit."""
        return _trace_square(*_slopes(displacement, spacing)).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class Incompressibility(FieldTerm):
    """Change of volume ``(det J - 1)^2`` or ``(log det J)^2``; give it a mask of the myocardium.

    Attributes:
        form: ``"square"``, or ``"log"``, in which halving and doubling cost the same.
    """

    form: Literal["square", "log"] = "square"

    def __post_init__(self) -> None:
        if self.form not in ("square", "log"):
            raise ValueError(f"form must be square or log, got {self.form!r}")

    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the price of the change of volume, ``(B, 1, *S)``, without unit."""
        check_spacing(spacing, len(check_field(displacement, "displacement")))
        ratio = jacobian_determinant(displacement)
        if self.form == "square":
            return (ratio - 1).square()
        safe = ratio.clamp(min=_LOG_FLOOR)

        return (safe.log() + (ratio - safe) / _LOG_FLOOR).square()


@dataclass(frozen=True, kw_only=True)
class TotalVariation(FieldTerm):
    """Smoothed total variation ``sqrt(|grad u|^2 + eps^2) - eps``: lets organs slide.

    Attributes:
        eps: slope in mm per mm below which the price is quadratic (Charbonnier).
    """

    eps: float = 1e-2

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps must be positive, got {self.eps}")

    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the length of the gradient, ``(B, 1, *S)``, without unit."""
        central, jump = _slopes(displacement, spacing)
        power = sum(
            (c.square() + j.square()).sum(dim=1, keepdim=True)
            for c, j in zip(central, jump, strict=True)
        )

        return (power + self.eps**2).sqrt() - self.eps


@dataclass(frozen=True, kw_only=True)
class Folding(FieldTerm):
    """Negative volume: the mean of ``max(0, margin - det)`` over all determinants of a cell.

    0 if and only if the interpolated map is one-to-one in every cell (margin 0); see
    ``ops.folding_determinants``. A cell gives equal parts of its price to its voxels.

    Attributes:
        margin: volume ratio below which a tetrahedron begins to cost.
    """

    margin: float = 0.0

    def map(
        self, displacement: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the negative volume at every voxel, ``(B, 1, *S)``, without unit."""
        shape = check_field(displacement, "displacement")
        check_spacing(spacing, len(shape))
        determinants = folding_determinants(displacement)
        shares = F.relu(self.margin - determinants).mean(dim=1, keepdim=True)
        for axis, size in enumerate(shape, start=2):
            if size > 1:
                inner = [0, 0] * (shares.ndim - 1 - axis)
                shares = (F.pad(shares, [*inner, 1, 0]) + F.pad(shares, [*inner, 0, 1])) / 2

        return shares


def _slopes(displacement: Tensor, spacing: tuple[float, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Return central slopes and half jumps along every axis, each ``(B, d, *S)``."""
    shape = check_field(displacement, "displacement")
    steps = check_spacing(spacing, len(shape))
    field = displacement.to(torch.promote_types(displacement.dtype, torch.float32))
    field = field * field.new_tensor(steps).view(1, -1, *[1] * len(shape))
    central, jump = [], []
    for axis, step in enumerate(steps, start=2):
        before, after, sides = neighbor_slopes(field, axis, step, None)
        central.append((before + after) / sides.clamp(min=1))
        jump.append((after - before) / 2 * (sides == 2))

    return central, jump


def _trace_square(central: list[Tensor], jump: list[Tensor]) -> Tensor:
    trace = sum(slope[:, j] for j, slope in enumerate(central))

    return trace.square() + sum(half[:, j].square() for j, half in enumerate(jump))
