"""What label maps are taken for: template fits beside the truth, of hearts of the population."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.sequence import Sequence
from cardiogen.engine.fit_template import fit_frames
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import training_heart
from cardiogen.population.pose import rigid_pose
from cardiogen.population.render import render_sequence, short_axis_grid
from cardiogen.population.template import template_topology

Array = NDArray[np.float64]

_SPACING_MM = (2.0, 2.0, 2.0)


@dataclass(frozen=True, eq=False)
class FittedMeshes:
    """Meshes that were fitted to label maps of hearts with known truth.

    Attributes:
        phases: of the frames ``(N, T)``, end diastole first.
        meshes: ``(N, T, P)`` mm, in the frame of the truth at end diastole.
        rms_mm: distance of contours from the fitted surfaces ``(N, T)``.
    """

    phases: Array
    meshes: Array
    rms_mm: Array


def fitted_population(count: int, seed: int, *, first: int, jobs: int = 1) -> FittedMeshes:
    """Return what label maps of training hearts ``first`` to ``first + count`` are taken for.

    At ED and ES, with voxels of 2 mm.

    Args:
        count: number of hearts.
        seed: of the population.
        first: number of the first heart.
        jobs: processes; they do not change a bit.
    """
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, return_as="generator", max_nbytes=None)
    found = pool(delayed(_fitted)(seed, number) for number in range(first, first + count))
    columns = zip(*progress(found, "fitting label maps", total=count), strict=True)

    return FittedMeshes(*(np.stack(column) for column in columns))


def _fitted(seed: int, index: int) -> tuple[Array, Array, Array]:
    """Render and fit one heart: phases, meshes and distances."""
    heart, topology = training_heart(seed, index), template_topology()
    phases = np.array([0.0, heart.timing.systole])
    truth = heart_vertices(heart.coordinates(phases))
    world = heart.pose.to_world(truth)
    grid = short_axis_grid(world, heart.pose, _SPACING_MM)
    seen = Sequence(phases=phases, grid=grid, labels=render_sequence(world, topology, grid))
    meshes, fits = fit_frames(seen)
    # One pose for both frames, as a posterior has: that of end diastole, which shows it best.
    found = rigid_pose(truth[0], meshes[0]).to_heart(meshes)

    return phases, found.reshape(len(phases), -1), np.array([fit.rms_mm for fit in fits])
