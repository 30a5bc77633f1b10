"""The reference population: conditions to phenotypes, anatomy, motion, label maps and cines.

It is a statistical model of healthy hearts written from published figures. Every heart is a pure
function of (seed, index), and everything about it is known exactly.
"""

from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.annulus import (
    Annulus,
    RingStrain,
    annulus_displacement,
    annulus_grid,
)
from cardiogen.population.annulus_cine import AnnulusCine, annulus_cine, annulus_labels
from cardiogen.population.cine import CineOptions, render_cine
from cardiogen.population.conditions import sample_conditions
from cardiogen.population.coordinates import COORDINATE_COUNT, COORDINATES
from cardiogen.population.heart import PopulationHeart, sample_heart, training_heart
from cardiogen.population.material import displacement_field, heart_frame, move_points
from cardiogen.population.motion import Timing, sample_timing
from cardiogen.population.phenotypes import (
    Phenotypes,
    marginal,
    phenotype_distribution,
    sample_phenotypes,
)
from cardiogen.population.pose import Pose, typical_pose
from cardiogen.population.render import render_labels, render_sequence, short_axis_grid
from cardiogen.population.template import template_topology

__all__ = [
    "COORDINATES",
    "COORDINATE_COUNT",
    "Annulus",
    "AnnulusCine",
    "CineOptions",
    "Phenotypes",
    "PopulationHeart",
    "Pose",
    "RingStrain",
    "Timing",
    "annulus_cine",
    "annulus_displacement",
    "annulus_grid",
    "annulus_labels",
    "displacement_field",
    "heart_frame",
    "heart_vertices",
    "marginal",
    "move_points",
    "phenotype_distribution",
    "render_cine",
    "render_labels",
    "render_sequence",
    "sample_conditions",
    "sample_heart",
    "sample_phenotypes",
    "sample_timing",
    "short_axis_grid",
    "template_topology",
    "training_heart",
    "typical_pose",
]
