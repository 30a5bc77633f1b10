"""Stages of the closed loop: cines are tracked, what is tracked is learned, what is learned is
generated, and what is generated teaches a network to segment cines that nobody has seen.

Nothing of a heart but its images, its label map at ED and its factors enters the loop; the truth
of the population is used to judge alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.tracking_cases import human_cine, long_axis_grid
from cardiogen.base import keyed_rng, progress
from cardiogen.data import Factors, Sequence, Structure
from cardiogen.engine.fit_template import fit_template
from cardiogen.measure import dice, mesh_volumes
from cardiogen.models.deformation.codes import CodeFitter
from cardiogen.models.deformation.heart_codes import HeartCodes, mesh_codes, population_codes
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.template import population_template
from cardiogen.models.deformation.training import fit_deformation
from cardiogen.models.fitted_meshes import fitted_population
from cardiogen.population import (
    CineOptions,
    render_cine,
    sample_heart,
    short_axis_grid,
    template_topology,
)
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import PopulationHeart
from registration.tracking import track

Array = NDArray[np.float64]

_SPACING_MM, _MARGIN_MM = (8.0, 2.0, 2.0), 14.0
_OPTIONS = CineOptions(slice_thickness_mm=4.0)
_LONG_AXES_DEG = (0.0, 90.0)
_UNSEEN = 1_000_000  # numbers of hearts that nothing is learned from
_GROUP = 16  # hearts whose velocities are found at once
_FITS = 8  # hearts whose label maps tell the noise of observations


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large a loop is.

    Attributes:
        hearts: cines that are tracked, women and men in turn; the model wants 20 of each.
        frames: of a cine.
        ed_modes, fields, motion_modes: of the model, see ``fit_modes``.
        generated: hearts that the model makes.
        test: cines that networks are judged on.
        few: tracked cines that a network learns from where it has few.
        steps: of every network.
        seed: of everything.
        jobs: processes.
    """

    hearts: int = 40
    frames: int = 10
    ed_modes: int = 20
    fields: int = 24
    motion_modes: int = 12
    generated: int = 40
    test: int = 6
    few: int = 3
    steps: int = 600
    seed: int = 0
    jobs: int = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Tracked:
    """What tracking makes of a cine.

    Attributes:
        sequence: images and tracked label maps.
        meshes: in the heart's frame, with the template's topology ``(T, V, 3)``.
        factors: of the subject.
        facts: how near it comes to the truth.
    """

    sequence: Sequence
    meshes: Array
    factors: Factors
    facts: dict[str, float]


def track_cines(plan: Plan) -> list[Tracked]:
    """Render and track the cines of the plan."""
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=plan.jobs, return_as="generator")
    found = pool(delayed(track_cine)(plan, index) for index in range(plan.hearts))

    return list(progress(found, "tracking cines", total=plan.hearts))


def loop_heart(plan: Plan, index: int) -> PopulationHeart:
    """Return heart ``index`` that is tracked."""
    age = float(keyed_rng(plan.seed, "loop/age", index).uniform(*AGE_RANGE))

    return sample_heart(plan.seed, index, Factors(age=age, sex="FM"[index % 2]))


def track_cine(plan: Plan, index: int) -> Tracked:
    """Render the cine of a population heart, with two long axes, and track it."""
    import torch

    torch.set_num_threads(1)
    heart = loop_heart(plan, index)
    phases = np.arange(plan.frames) / plan.frames
    shown = heart.vertices(phases)
    grid = short_axis_grid(shown, heart.pose, _SPACING_MM, margin_mm=_MARGIN_MM)
    truth = render_cine(heart, phases, grid, options=_OPTIONS)
    views = [
        _without_truth(render_cine(heart, phases, long_axis_grid(heart, shown, angle_deg=a),
                                   options=_OPTIONS))
        for a in _LONG_AXES_DEG
    ]  # fmt: skip
    found, vertices = carried(_without_truth(truth), truth.labels[0], views)
    es = truth.es
    facts = {
        f"dice_es_{s.name.lower()}": dice(found.sequence.labels[es] == s, truth.labels[es] == s)
        for s in (Structure.LV, Structure.MYO, Structure.RV)
    }
    away = np.linalg.norm(vertices[es] - shown[es], axis=1)
    facts |= {"mesh_es_mm": float(away.mean()), "lvef_true": ejection_fraction(shown)}

    return replace(found, factors=heart.factors, facts=found.facts | facts)


def carried(cine: Sequence, labels: NDArray, views: list[Sequence]) -> tuple[Tracked, Array]:
    """Fit the template to the labels of ED and carry its mesh and them through a cine.

    Returns:
        What tracking makes of it, and the meshes in the world ``(T, V, 3)`` mm.
    """
    fit = fit_template(labels, cine.grid, orientation=cine.orientation)
    mesh = fit.pose.to_world(heart_vertices(fit.z[None]))[0]
    result = track(cine, labels, mesh=(mesh, template_topology()), views=views)
    vertices = result.sequence.vertices

    found = Tracked(
        sequence=result.sequence.with_(vertices=None, topology=None),
        meshes=fit.pose.to_heart(vertices),
        factors=Factors(),
        facts={"lvef": ejection_fraction(vertices), "folds": float(result.folds.max())},
    )

    return found, vertices


def track_human(data: Path) -> Tracked:
    """Track the human cine from the labels of its fitted mesh at ED."""
    case = human_cine(data)
    found, _ = carried(case.sequence, case.labels, [])
    volumes = case.volumes
    truth = float(100 * (1 - volumes.min() / volumes[0]))

    return replace(found, facts=found.facts | {"lvef_true": truth})


def learn_model(plan: Plan, hearts: list[Tracked]) -> DeformationModel:
    """Learn modes from all tracked hearts, and what factors do from those that have them."""
    template = population_template()
    fitter = CodeFitter(template)
    by_frames: dict[int, list[Tracked]] = {}
    for heart in hearts:
        by_frames.setdefault(len(heart.meshes), []).append(heart)
    groups = [same[k : k + _GROUP] for same in by_frames.values()
              for k in range(0, len(same), _GROUP)]  # fmt: skip
    codes = HeartCodes.joined([_codes(fitter, g) for g in progress(groups, "velocity codes")])
    held = population_codes(_FITS, plan.seed, first=_UNSEEN)
    fitted = fitted_population(_FITS, plan.seed, first=_UNSEEN)

    return fit_deformation(
        codes, held, fitted, template, ed_modes=plan.ed_modes, fields=plan.fields,
        motion_modes=plan.motion_modes,
    )  # fmt: skip


def unseen_cines(plan: Plan) -> list[Sequence]:
    """Return cines at ED and ES of hearts that nothing is learned from, with their truth."""
    found = []
    for index in progress(range(_UNSEEN, _UNSEEN + plan.test), "cines of the test"):
        heart = sample_heart(plan.seed, index)
        phases = [0.0, float(heart.timing.systole)]
        grid = short_axis_grid(
            heart.vertices(phases), heart.pose, _SPACING_MM, margin_mm=_MARGIN_MM
        )
        cine = render_cine(heart, phases, grid, options=_OPTIONS)
        found.append(cine.with_(vertices=None, topology=None))

    return found


def ejection_fraction(vertices: Array) -> float:
    """Return the LVEF of meshes ``(T, V, 3)`` that begin at ED, %."""
    left = mesh_volumes(vertices, template_topology())[Structure.LV]

    return float(100 * (1 - left.min() / left[0]))


def _codes(fitter: CodeFitter, hearts: list[Tracked]) -> HeartCodes:
    frames = len(hearts[0].meshes)
    meshes = np.stack([heart.meshes for heart in hearts])

    return mesh_codes(
        fitter, meshes, np.arange(frames) / frames, [h.factors for h in hearts],
        shown=len(hearts),
    )  # fmt: skip


def _without_truth(sequence: Sequence) -> Sequence:
    return sequence.with_(labels=None, vertices=None, topology=None, es=None)
