"""A weighted sum of energy terms with names: what a solver minimizes and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cardiogen.base import CardiogenError
from cardiogen.losses.deformation import (
    Divergence,
    Elastic,
    Folding,
    Incompressibility,
    TotalVariation,
)
from cardiogen.losses.images import LNCC, MSE, NCC
from cardiogen.losses.information import MI, NMI
from cardiogen.losses.labels import CrossEntropy, Dice, Jaccard, MultiScaleDice
from cardiogen.losses.regularizers import Bending, Diffusion
from cardiogen.losses.sequences import CycleClosure, TemporalSmoothness
from cardiogen.losses.structure import MIND, NGF
from cardiogen.losses.term import EnergyTerm, Kind, Reduction, Weight

TERMS: dict[str, type[EnergyTerm]] = {
    "mse": MSE,
    "ncc": NCC,
    "lncc": LNCC,
    "mi": MI,
    "nmi": NMI,
    "ngf": NGF,
    "mind": MIND,
    "dice": Dice,
    "jaccard": Jaccard,
    "cross_entropy": CrossEntropy,
    "multiscale_dice": MultiScaleDice,
    "diffusion": Diffusion,
    "bending": Bending,
    "elastic": Elastic,
    "divergence": Divergence,
    "incompressibility": Incompressibility,
    "total_variation": TotalVariation,
    "folding": Folding,
    "temporal_smoothness": TemporalSmoothness,
    "cycle_closure": CycleClosure,
}


def make_term(name: str, options: Mapping[str, object] | None = None) -> EnergyTerm:
    """Return the term that a config names, with its options.

    Args:
        name: a key of ``TERMS``.
        options: attributes of the term by name; others keep their defaults.

    Raises:
        CardiogenError: M07 for unknown names and options and for values that the term refuses.
    """
    if name not in TERMS:
        raise _setting_error("energy term", repr(name), f"one of {', '.join(TERMS)}")
    kind, options = TERMS[name], dict(options or {})
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        expected = f"options {', '.join(known)}" if known else "no options"
        raise _setting_error(f"energy term {name}", ", ".join(unknown), expected)
    try:
        return kind(**options)
    except (ValueError, TypeError) as error:
        raise _setting_error(
            f"energy term {name}", str(error), "values in their ranges"
        ) from error


def _setting_error(where: str, found: str, expected: str) -> CardiogenError:
    return CardiogenError(
        "M07", where, found=found, expected=expected, remedy="correcting the setting"
    )


@dataclass(frozen=True, kw_only=True, eq=False)  # tensors have no truth value to compare by
class Weighted:
    """A term and its weight in an energy.

    Attributes:
        term: see ``TERMS``.
        weight: a number, ``()`` or ``(B,)``, or a map ``(B or 1, 1, *S)``.
        learnable: whether the energy makes the logarithm of the weight a parameter.
    """

    term: EnergyTerm
    weight: Weight = 1.0
    learnable: bool = False


class EnergyValue(NamedTuple):
    """An energy and what it is made of.

    Attributes:
        total: ``(B,)``, differentiable.
        terms: weighted value ``(B,)`` of every term by name, detached; they sum to the total.
    """

    total: Tensor
    terms: dict[str, Tensor]


class Energy(nn.Module):
    """A sum of weighted terms.

    Learnable weights are ``exp`` of parameters; so that they cannot shrink to 0, whoever learns
    them adds ``log_normalizer`` of the term or another price of theirs.

    Args:
        terms: weighted terms (or terms of weight 1) by name.

    Example:
        >>> energy = Energy({"similarity": LNCC(), "smooth": Weighted(term=Bending(), weight=5.0)})
        >>> images, field = torch.rand(2, 1, 7, 8, 9), torch.zeros(1, 3, 7, 8, 9)
        >>> found = energy(image=images.split(1), field=field, spacing=(8.0, 1.4, 1.4))
        >>> sorted(found.terms)
        ['similarity', 'smooth']
    """

    def __init__(self, terms: Mapping[str, Weighted | EnergyTerm]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("terms must name at least one term, got none")
        entries = {
            name: entry if isinstance(entry, Weighted) else Weighted(term=entry)
            for name, entry in terms.items()
        }
        self.terms: dict[str, EnergyTerm] = {n: entry.term for n, entry in entries.items()}
        self._numbers: dict[str, float] = {}
        for name, entry in entries.items():
            if isinstance(entry.term, nn.Module):  # a learned similarity moves and trains along
                self.add_module(f"term_{name}", entry.term)
            self._keep_weight(name, entry)

    def _keep_weight(self, name: str, entry: Weighted) -> None:
        if entry.learnable:
            initial = torch.as_tensor(entry.weight, dtype=torch.get_default_dtype())
            if not bool((initial > 0).all()):
                raise ValueError(f"weight of {name} must be positive to be learned, got {initial}")
            self.register_parameter(f"log_weight_{name}", nn.Parameter(initial.log()))
        elif isinstance(entry.weight, nn.Parameter):
            self.register_parameter(f"weight_{name}", entry.weight)
        elif isinstance(entry.weight, Tensor):
            self.register_buffer(f"weight_{name}", entry.weight)
        else:
            self._numbers[name] = float(entry.weight)

    @property
    def kinds(self) -> set[Kind]:
        """Inputs that the terms need."""
        return {term.kind for term in self.terms.values()}

    def weight(self, name: str) -> Weight:
        """Return the weight of a term, positive where it is learned."""
        if name in self._numbers:
            return self._numbers[name]
        if f"log_weight_{name}" in self._parameters:
            return getattr(self, f"log_weight_{name}").exp()

        return getattr(self, f"weight_{name}")

    def forward(
        self,
        *,
        spacing: tuple[float, ...],
        image: tuple[Tensor, Tensor] | None = None,
        label: tuple[Tensor, Tensor] | None = None,
        field: Tensor | None = None,
        sequence: Tensor | None = None,
        field_spacing: tuple[float, ...] | None = None,
        masks: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Weight] | None = None,
        reduction: Reduction = "mean",
    ) -> EnergyValue:
        """Return the weighted sum of all terms, per sample.

        Args:
            spacing: mm per axis of images and labels.
            image: fixed and moved image, ``(B, C, *S)``.
            label: fixed and moved one-hot or probability maps, ``(B, K, *S)``.
            field: displacement or velocity, ``(B, d, *S)``, voxels.
            sequence: fields of all frames, ``(B, T, d, *S)``, voxels.
            field_spacing: mm per axis of the fields' grid; None if it is that of the images.
            masks: ``(B or 1, 1, *S)`` by name of a term, or by kind for all terms of that kind.
            weights: replace the weights of the terms that they name, for this call.
            reduction: see ``EnergyTerm.value``.
        """
        given = {"image": image, "label": label, "field": field, "sequence": sequence}
        masks, weights = dict(masks or {}), dict(weights or {})
        self._check_names(masks, {*self.terms, *given}, "masks")
        self._check_names(weights, set(self.terms), "weights")
        values = {}
        for name, term in self.terms.items():
            if given[term.kind] is None:
                raise ValueError(f"{term.kind} must be given for the term {name}, got None")
            paired = term.kind in ("image", "label")
            inputs = given[term.kind] if paired else (given[term.kind],)
            values[name] = term.value(
                *inputs,
                spacing=spacing if paired or field_spacing is None else field_spacing,
                mask=masks.get(name, masks.get(term.kind)),
                weight=weights.get(name, self.weight(name)),
                reduction=reduction,
            )
        total = sum(values.values())

        return EnergyValue(total, {name: value.detach() for name, value in values.items()})

    def _check_names(self, given: Mapping[str, object], known: set[str], name: str) -> None:
        unknown = sorted(set(given) - known)
        if unknown:
            raise ValueError(f"{name} must name {', '.join(sorted(known))}, got {unknown}")
