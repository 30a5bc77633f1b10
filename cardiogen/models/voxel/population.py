"""Training examples from the reference population, rendered in the heart frame."""

from __future__ import annotations

import numpy as np

from cardiogen.base import keyed_rng, progress
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.engine.map_estimate import initial_pose
from cardiogen.models.voxel.examples import LabelExample, LabelExamples, pack
from cardiogen.models.voxel.lattice import require_inside
from cardiogen.models.voxel.slots import Slots
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import PopulationHeart, sample_heart
from cardiogen.population.pose import Pose
from cardiogen.population.render import render_labels, render_sequence
from cardiogen.population.template import template_topology

_DENSE = np.arange(100) / 100.0
_POSE_SPACING_MM = 2.5


def training_heart(seed: int, index: int) -> PopulationHeart:
    """Return heart ``index`` at an age drawn evenly from the covered range."""
    age = keyed_rng(seed, "voxel/age", index).uniform(*AGE_RANGE)
    return sample_heart(seed, index, Factors(age=float(age)))


def population_example(seed: int, index: int, lattice: Grid, slots: Slots) -> LabelExample:
    """Render heart ``index``: a pure function of the arguments.

    It is posed as its own ED labels show it, not as the population knows it: patients can only be
    posed by their labels, and the right ventricle's centroid lies some 12 degrees off the
    population's x axis.

    Raises:
        CardiogenError: L48 if the heart does not fit into the lattice.
    """
    heart = training_heart(seed, index)
    es_phase = float(_DENSE[np.argmax(heart.timing.emptied(_DENSE))])
    vertices = heart_vertices(heart.coordinates(slots.phases(es_phase)))
    pose = shown_pose(heart)
    vertices = pose.to_heart(vertices)
    name = f"population_{index:06d}"
    for frame in vertices:
        require_inside(lattice.to_voxel(frame), lattice, name)
    labels = render_sequence(vertices, template_topology(), lattice)
    return LabelExample(
        frames=tuple(pack(frame) for frame in labels),
        factors=heart.factors,
        es_phase=es_phase,
        subject_id=name,
    )


def shown_pose(heart: PopulationHeart) -> Pose:
    """Return the pose that the ED labels show, in the population's own heart frame."""
    vertices = heart_vertices(heart.coordinates([0.0]))[0]
    grid = Grid.around(vertices, _POSE_SPACING_MM)
    labels = render_labels(vertices, template_topology(), grid)
    return initial_pose(labels, grid, mirrored=False)


def population_examples(
    count: int, seed: int, lattice: Grid, slots: Slots, *, first: int = 0, jobs: int = 1
) -> LabelExamples:
    """Return examples ``first .. first + count - 1`` of the reference population.

    Args:
        count: number of hearts.
        seed: same seed, same hearts.
        lattice: heart-frame lattice, see ``heart_grid``.
        slots: frames wanted.
        first: number of the first heart; later ones serve as held-out subjects.
        jobs: processes that render; the result does not depend on it.
    """
    numbers = progress(range(first, first + count), "rendering population")
    if jobs == 1:
        found = [population_example(seed, i, lattice, slots) for i in numbers]
    else:
        from joblib import Parallel, delayed

        make = delayed(population_example)
        found = Parallel(n_jobs=jobs)(make(seed, i, lattice, slots) for i in numbers)
    return LabelExamples(lattice, slots, tuple(found))
