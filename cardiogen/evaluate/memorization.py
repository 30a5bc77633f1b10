"""Memorization: are hearts of a model nearer to its training hearts than new hearts are?

Hearts are drawn with all factors unknown: given the factors of held-out hearts they would lie
nearer to those than to the training set for that reason alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.factors import Factors
from cardiogen.evaluate.hearts import Hearts, held_out, model_hearts, population_hearts
from cardiogen.evaluate.lines import Line, Result, estimated, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure.distribution import memorization as signs_of
from cardiogen.measure.distribution import vertex_distances
from cardiogen.models.protocol import AnyModel, gives_labels
from cardiogen.population.heart import PopulationHeart, training_heart

# Name of a method -> what its bundle says of its training data.
TrainingData = Mapping[str, Mapping[str, int | float | str]]


def memorization(
    truth: Hearts,
    models: Mapping[str, AnyModel],
    training: TrainingData,
    size: Size,
    *,
    seed: int,
) -> Result:
    """Return distances to training and to held-out hearts at end diastole."""
    lines: list[Line] = []
    fresh = [held_out(seed, "fresh", i) for i in range(size.hearts)]
    for name, model in models.items():
        if gives_labels(model):
            reason = "label maps have no vertices that could be compared"
            lines.append(missing("nearest training over nearest held-out", name, reason))
            continue
        trained = _training_hearts(training.get(name, {}), size.hearts)
        if trained is None:
            reason = "the bundle does not say which population hearts it was trained on"
            lines.append(missing("nearest training over nearest held-out", name, reason))
            continue
        shapes = population_hearts(trained, "training hearts").ed
        drawn = model_hearts(model, [Factors()] * size.hearts, seed=seed, purpose="memorization")
        lines += _signs(drawn, shapes, truth.ed, name, size, seed)
        real = population_hearts(fresh, "fresh hearts")
        lines += _signs(real, shapes, truth.ed, f"real, for {name}", size, seed)

    return Result(tuple(lines))


def _training_hearts(
    facts: Mapping[str, int | float | str], most: int
) -> list[PopulationHeart] | None:
    """Return the first training hearts of a bundle of the population."""
    if facts.get("cohort") != "population" or not {"n", "seed"} <= set(facts):
        return None
    seed, count = int(facts["seed"]), min(int(facts["n"]), most)

    return [training_heart(seed, index) for index in range(count)]


def _signs(
    hearts: Hearts, trained: NDArray, held: NDArray, method: str, size: Size, seed: int
) -> Iterator[Line]:
    made = hearts.ed[hearts.made]
    facts = {"count": len(made), "failures": hearts.failures}
    if len(made) < 2:
        yield missing("nearest training over nearest held-out", method, "too few hearts", **facts)
        return
    found = signs_of(
        vertex_distances(made, trained), vertex_distances(made, held),
        vertex_distances(held, trained), draws=size.resamples, seed=seed,
    )  # fmt: skip
    yield estimated("nearest training over nearest held-out", method, found.distance_ratio,
                    wanted=(0.95, None), **facts)  # fmt: skip
    limit = float(np.round(found.threshold, 3))
    # No bar: the threshold is itself a tail of few distances; real hearts show what to expect.
    yield estimated("near duplicates of training hearts", method, found.duplicate_share,
                    of=f"within {limit:g} mm", **facts)  # fmt: skip
    yield estimated("membership AUC", method, found.membership_auc, wanted=(0.45, 0.55), **facts)
