"""Reconstruction: label maps at ED and ES, fitted by the posterior and rendered again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cardiogen.base import CardiogenError, progress
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.completion import observe
from cardiogen.evaluate.lines import Array, Band, Line, Result, mean_line
from cardiogen.evaluate.settings import Size
from cardiogen.measure.overlap import dice
from cardiogen.models.protocol import AnyModel, encode_condition
from cardiogen.population.heart import PopulationHeart
from cardiogen.synthesis import decode_sequence, nearest_phases

STRUCTURES = (Structure.LV, Structure.MYO, Structure.RV)
_POPULATION_ED: dict[str, Band] = {"LV": (0.97, None), "MYO": (0.92, None), "RV": (0.95, None)}
PATIENTS: dict[str, Band] = {"LV": (0.94, None), "MYO": (0.86, None), "RV": (0.90, None)}


def reconstruction(
    truth: Sequence[PopulationHeart],
    models: Mapping[str, AnyModel],
    size: Size,
    *,
    seed: int,
) -> Result:
    """Return Dice at ED and ES of population hearts whose two maps are given."""
    truth = truth[: size.completed]
    observed = [observe(heart, [0.0, heart.timing.systole]) for heart in truth]
    lines: list[Line] = []
    for name, model in models.items():
        scores = np.stack(
            [overlap(model, o, healthy=True) for o in progress(observed, "reconstructing")]
        )
        bars = {"ED": _POPULATION_ED, "ES": {}}
        lines += overlap_lines(scores, name, bars, size, seed)

    return Result(tuple(lines))


def overlap(model: AnyModel, observed: Heart, *, healthy: bool) -> Array:
    """Return the Dice of every frame and structure ``(T, 3)``; NaN where the model refuses."""
    known = encode_condition(observed.factors or Factors())
    scores = np.full((len(observed), len(STRUCTURES)), np.nan)
    try:
        posterior = model.posterior(observed, known, healthy=healthy)
        model, latent = posterior.own or model, posterior.latents.mean
        if not model.is_possible(latent):
            return scores
        fitted = decode_sequence(
            model, latent, nearest_phases(model, observed.phases), pose=posterior.pose,
            grid=observed.grid,
        )  # fmt: skip
    except CardiogenError:
        return scores
    for row, labels, again in zip(scores, observed.labels, fitted.labels, strict=True):
        row[:] = [dice(again == s, labels == s) for s in STRUCTURES]
    return scores


def overlap_lines(
    scores: Array, method: str, bars: Mapping[str, Mapping[str, Band]], size: Size, seed: int
) -> Iterator[Line]:
    """Return the mean Dice of ``scores (N, 2, 3)`` at ED and ES."""
    for end, (frame, wanted) in enumerate(bars.items()):
        for k, structure in enumerate(STRUCTURES):
            yield mean_line(
                "Dice", method, scores[:, end, k], of=f"{structure.name} at {frame}",
                resamples=size.resamples, seed=seed, wanted=wanted.get(structure.name),
            )  # fmt: skip
