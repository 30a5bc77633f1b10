"""Validity: written rules of anatomy over whole cycles, without rejecting any draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from cardiogen.base import keyed_seed, progress
from cardiogen.data.factors import Factors
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.hearts import Array
from cardiogen.evaluate.lines import Line, Result, estimated, mean_line, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure import check_sequence
from cardiogen.measure.distribution import share_interval
from cardiogen.models.protocol import AnatomyModel, encode_condition, frame_phases
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.pose import typical_pose
from cardiogen.synthesis import draw_latent, with_labels

# Phases -> meshes (T, V, 3) in mm; None where the draw is no heart.
Motion = Callable[[Array], Array] | None


def validity(
    truth: Sequence[PopulationHeart],
    models: Mapping[str, AnatomyModel],
    size: Size,
    *,
    seed: int,
) -> Result:
    """Return violations and closure errors of hearts over the cycle."""
    truth = truth[: size.beating]
    lines = list(_examine([_of_population(h) for h in truth], "real", size, seed))
    for name, model in models.items():
        hearts = [_of_model(model, h.factors, seed, i) for i, h in enumerate(truth)]
        lines += _examine(hearts, name, size, seed)
        # The protocol gives meshes at phases; fields, where a model has any, stay inside it.
        reason = "the protocol shows no fields; crossing faces of meshes are among the violations"
        lines.append(missing("folds of fields", name, reason))

    return Result(tuple(lines))


def _of_population(heart: PopulationHeart) -> tuple[Motion, Topology]:
    from cardiogen.population.template import template_topology

    return lambda phases: heart_vertices(heart.coordinates(phases)), template_topology()


def _of_model(
    model: AnatomyModel, factors: Factors, seed: int, index: int
) -> tuple[Motion, Topology]:
    key = keyed_seed(seed, "evaluate/validity")
    latent = draw_latent(model, encode_condition(factors), seed=key, index=index)
    if not model.is_possible(latent):
        return None, model.topology
    return lambda phases: model.decode(latent, phases), model.topology


def _examine(
    hearts: Sequence[tuple[Motion, Topology]], method: str, size: Size, seed: int
) -> Iterator[Line]:
    rules: Counter[str] = Counter()
    violations, closures = [], []
    for motion, topology in progress(hearts, "checking cycles"):
        if motion is None:
            violations.append(np.nan)
            closures.append(np.nan)
            continue
        broken = check_sequence(_sequence(motion, topology, size))
        rules.update(v.rule for v in broken)
        violations.append(len(broken))
        ends = motion(np.array([0.0, 1.0]))
        closures.append(float(np.linalg.norm(ends[1] - ends[0], axis=-1).max()))
    made = np.isfinite(violations)
    facts = {"count": int(made.sum()), "failures": int((~made).sum())}
    yield mean_line("violations per heart", method, violations, wanted=(0, 0),
                    resamples=size.resamples, seed=seed)  # fmt: skip
    if not made.any():
        return
    bad = int((np.array(violations)[made] > 0).sum())
    share = share_interval(bad, int(made.sum()))
    yield estimated("hearts with a violation", method, share, **facts)
    for rule, count in sorted(rules.items()):
        yield Line("violations of a rule", method, count, of=rule, unit="findings", **facts)
    yield Line("largest closure error", method, float(np.nanmax(closures)), unit="mm",
               wanted=(0, 0), **facts)  # fmt: skip


def _sequence(motion: Callable[[Array], Array], topology: Topology, size: Size) -> Heart:
    """Return the meshes, and label maps where wanted, over one cycle."""
    phases, pose = np.array(frame_phases(size.frames)), typical_pose()
    heart = Heart(phases=phases, vertices=pose.to_world(motion(phases)), topology=topology)
    if size.label_mm is None:
        return heart
    return with_labels(heart, pose, spacing_mm=size.label_mm)
