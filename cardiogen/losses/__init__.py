"""Energies: similarities, label distances and regularizers behind one contract.

Every term has ``map`` (voxel-wise), ``value`` (mean or sum, masked and weighted, per sample) and,
where it is known, ``log_normalizer`` and ``prox``. ``Energy`` is their weighted sum.
"""

from cardiogen.losses.deformation import (
    Divergence,
    Elastic,
    Folding,
    Incompressibility,
    TotalVariation,
)
from cardiogen.losses.energy import TERMS, Energy, EnergyValue, Weighted, make_term
from cardiogen.losses.images import LNCC, MSE, NCC
from cardiogen.losses.information import MI, NMI
from cardiogen.losses.labels import CrossEntropy, Dice, Jaccard, MultiScaleDice
from cardiogen.losses.regularizers import Bending, Diffusion
from cardiogen.losses.sequences import CycleClosure, TemporalSmoothness
from cardiogen.losses.structure import MIND, NGF
from cardiogen.losses.term import (
    EnergyTerm,
    FieldTerm,
    ImageTerm,
    Kind,
    LabelTerm,
    Reduction,
    SequenceTerm,
    Weight,
)

__all__ = [
    "LNCC",
    "MI",
    "MIND",
    "MSE",
    "NCC",
    "NGF",
    "NMI",
    "TERMS",
    "Bending",
    "CrossEntropy",
    "CycleClosure",
    "Dice",
    "Diffusion",
    "Divergence",
    "Elastic",
    "Energy",
    "EnergyTerm",
    "EnergyValue",
    "FieldTerm",
    "Folding",
    "ImageTerm",
    "Incompressibility",
    "Jaccard",
    "Kind",
    "LabelTerm",
    "MultiScaleDice",
    "Reduction",
    "SequenceTerm",
    "TemporalSmoothness",
    "TotalVariation",
    "Weight",
    "Weighted",
    "make_term",
]
