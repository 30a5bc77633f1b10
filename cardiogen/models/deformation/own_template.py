"""Templates of a user's own: one heart as its label map shows it, or the mean of many.

Whatever the template, its vertices mean the same as in the population: velocities carry the
population's template onto the heart (``codes`` and ``label_codes``), and what they make of it is
the new one. So models of different templates are trained, compared and drawn alike.

A mean is learned by folding the mean velocity at end diastole into the template,

    T <- exp(1/N sum_n v_n)(T),    exp(v_n)(T) = Y_n,

until velocities are centered: no heart is nearer to the template than its distance from the others
makes it (Joshi et al., NeuroImage 2004, with one mean velocity instead of a mean image).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, Note, progress
from cardiogen.data.sequence import Sequence
from cardiogen.engine.chirality import settle_chirality
from cardiogen.engine.fit_template import fit_template
from cardiogen.measure.mesh_validity import check_mesh
from cardiogen.measure.overlap import dice
from cardiogen.measure.vertex_distance import vertex_rmse
from cardiogen.measure.volumes import STRUCTURES
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.label_codes import LabelFitter
from cardiogen.models.deformation.template import (
    DeformationTemplate,
    population_template,
)
from cardiogen.ops.threads import one_thread
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import training_heart
from cardiogen.population.pose import Pose
from cardiogen.population.render import render_labels

Array = NDArray[np.float64]

_GROUP = 16
# Ten times those of one heart's code: vertices lie where those of other hearts do, and not where
# voxels are followed best (.9 instead of 2.3 mm off in a heart of the population).
_SMOOTHNESS, _RIDGE = 0.1, 0.03
# Until no faces cross; those of two ACDC patients always do.
_SMOOTHER = (1.0, 10.0, 100.0)
_LEAST_DICE = 0.75  # of 25 ACDC patients 22 reach .83, one .59; three of ten slices of one .58
_CENTERED_MM = 0.05  # of the vertices that a mean velocity moves: voxels are thirty times as large


class LabelTemplate(NamedTuple):
    """A template that was made of a label map.

    Attributes:
        template: what is deformed.
        overlap: Dice of every structure with the map.
        mirrored: whether the map's header mirrors the heart.
        notes: what was decided on the way.
    """

    template: DeformationTemplate
    overlap: dict[str, float]
    mirrored: bool
    notes: tuple[Note, ...]


def label_template(seen: Sequence) -> LabelTemplate:
    """Return the heart of a label map as a template.

    The wall of its right ventricle narrows to nothing where it is inserted, as in the population:
    a wedge that stood open in the template alone would be closed by every velocity.

    Args:
        seen: label map of end diastole, beside which other frames are not looked at.

    Raises:
        CardiogenError: L37, L60, L61, L66 for labels without a whole heart, M51 for a part of a
            heart, or one whose mesh breaks a rule of ``check_mesh`` however smooth it is.
    """
    start, labels = population_template(), seen.labels[seen.ed]
    (seen,), _ = settle_chirality([seen])
    found = fit_template(labels, seen.grid, orientation=seen.orientation)
    mesh = torch.from_numpy(heart_vertices(found.z[None])).float()
    code = CodeFitter(start).fit_ed(mesh)[0]
    for factor in _SMOOTHER:
        follower = replace(
            LabelFitter.of(start), smoothness=factor * _SMOOTHNESS, ridge=factor * _RIDGE
        )
        followed = follower.fit(labels, seen.grid, found.pose, code)
        template = replace(start, vertices=_carried(start, start.vertices, followed))
        faults = check_mesh(template.opened()[None], template.topology)
        if not faults:
            break
    else:
        raise _no_template(seen, f"a mesh that breaks a rule: {faults[0]}")
    overlap = _overlap(template, found.pose, seen)
    if min(overlap.values()) < _LEAST_DICE:
        told = ", ".join(f"{name} {value:.2f}" for name, value in overlap.items())
        raise _no_template(seen, f"a template that follows its map badly (Dice {told})")

    return LabelTemplate(template, overlap, found.pose.mirrored, seen.notes)


def _no_template(seen: Sequence, found: str) -> CardiogenError:
    return CardiogenError(
        "M51", seen.subject_id, found=found,
        expected="the label map of one whole heart at end diastole, from apex to base",
        remedy="another heart, or a mean of many (template_rounds with template = population)",
    )  # fmt: skip


def mean_template(
    start: DeformationTemplate, meshes: Array, *, rounds: int
) -> tuple[DeformationTemplate, float]:
    """Return the mean of hearts as a template, and how far it still is from it, mm.

    Args:
        start: any template.
        meshes: of the hearts at end diastole, in their own frame ``(N, V, 3)`` mm.
        rounds: how often the mean velocity is folded in, at most; fewer where velocities are
            centered to .05 mm before.

    Returns:
        The template, and the root mean square by which the mean velocity that was left before the
        last round moves its vertices, mm.
    """
    template, away = start, np.inf
    for _ in range(rounds):
        if away <= _CENTERED_MM:
            break
        with one_thread():
            mean = _mean_velocity(template, meshes)
            vertices = _carried(template, template.vertices, mean)
        away = vertex_rmse(vertices, template.vertices)
        template = replace(template, vertices=vertices)

    return template, away


def population_meshes(count: int, seed: int) -> Array:
    """Return the meshes ``(N, V, 3)`` mm of the first training hearts at end diastole."""
    hearts = (training_heart(seed, index) for index in range(count))

    return np.stack([heart_vertices(heart.coordinates([0.0]))[0] for heart in hearts])


def _mean_velocity(template: DeformationTemplate, meshes: Array) -> torch.Tensor:
    """Return the mean velocity ``(3, A)`` mm that carries a template onto hearts."""
    fitter, total = CodeFitter(template), torch.zeros(3, template.size, dtype=torch.float64)
    for first in progress(range(0, len(meshes), _GROUP), "centering the template"):
        group = torch.from_numpy(meshes[first : first + _GROUP]).float()
        total += fitter.fit_ed(group).double().sum(dim=0)

    return (total / len(meshes)).float()


def _overlap(template: DeformationTemplate, pose: Pose, seen: Sequence) -> dict[str, float]:
    """Return the Dice of every structure of a template with a label map."""
    topology = template.topology.mirrored() if pose.mirrored else template.topology
    again = render_labels(pose.to_world(template.vertices), topology, seen.grid)

    return {s.name: dice(again == s, seen.labels[seen.ed] == s) for s in STRUCTURES}


@torch.no_grad()
def _carried(template: DeformationTemplate, vertices: Array, velocity: torch.Tensor) -> Array:
    """Return vertices ``(V, 3)`` moved by the exponential of a velocity ``(3, A)``."""
    points = torch.from_numpy(vertices).float()[None]

    return template.move(points, template.displacement(velocity[None]))[0].double().numpy()
