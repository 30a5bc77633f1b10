"""Completion of whole cycles from subsets of frames: what is known of a heart that was seen badly.

Held-out population hearts of 20 frames are observed on label maps at some of them. Every model
gives its posterior; the mean heart and 20 draws are compared with the true cycle. A draw that is
no heart is not drawn again: its subject counts as a failure of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, keyed_rng, keyed_seed, progress
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.completion import observe
from cardiogen.evaluate.lines import Array, Line, Result, mean_line, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure.vertex_distance import vertex_rmse
from cardiogen.measure.volumes import mesh_volumes, sequence_volumes
from cardiogen.models.protocol import AnyModel, Posterior, encode_condition, gives_labels
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.template import template_topology
from cardiogen.synthesis import decode_sequence

FRAMES, SAMPLES = 20, 20
_INTERVAL = (5.0, 95.0)
_CHAMBERS = (Structure.LV, Structure.RV)
_PHASES = np.arange(FRAMES) / FRAMES

# Metric and unit of every column of a table of hearts.
COLUMNS = (
    ("vertex RMSE over the cycle", "mm"),
    ("vertex RMSE of draws, mean of 20", "mm"),
    ("vertex RMSE of draws, best of 20", "mm"),
    ("LV volume curve MAE", "mL"),
    ("RV volume curve MAE", "mL"),
    ("ES time error", "frames of 20"),
    ("LVEF MAE over the cycle", "EF points"),
    ("RVEF MAE over the cycle", "EF points"),
    ("coverage of 90 % intervals of EFs", "1"),
)
_OF_VERTICES = (0, 1, 2)


def cycle_completion(
    truth: Sequence[PopulationHeart], models: Mapping[str, AnyModel], size: Size, *, seed: int
) -> Result:
    """Return errors over the cycle, of its volumes and of ES, for every subset of frames."""
    lines: list[Line] = []
    hearts = truth[: size.cycled]
    for name, model in models.items():
        if gives_labels(model) and model.known_phases:
            reason = "knows hearts at single phases, no cycles"
            lines.append(missing(COLUMNS[0][0], name, reason, unit=COLUMNS[0][1]))
            continue
        for seen_at, choose in SUBSETS.items():
            rows = [
                _row(model, heart, choose(heart, seed), seed)
                for heart in progress(hearts, f"cycles from {seen_at}")
            ]
            lines += _lines(name, seen_at, np.array(rows), size, seed, gives_labels(model))

    return Result(tuple(lines))


def _end_systole(heart: PopulationHeart) -> int:
    return round(heart.timing.systole * FRAMES)


def _random_three(heart: PopulationHeart, seed: int) -> list[int]:
    rng = keyed_rng(seed, "evaluate/frames", heart.index)

    return sorted(rng.choice(FRAMES, size=3, replace=False).tolist())


SUBSETS: Mapping[str, Callable[[PopulationHeart, int], list[int]]] = {
    "ED": lambda _heart, _seed: [0],
    "ED and ES": lambda heart, _seed: [0, _end_systole(heart)],
    "every 4th frame": lambda _heart, _seed: list(range(0, FRAMES, 4)),
    "3 random frames": _random_three,
    "mid-systole": lambda heart, _seed: [_end_systole(heart) // 2],
}


def _row(model: AnyModel, heart: PopulationHeart, frames: list[int], seed: int) -> Array:
    """Return the ``COLUMNS`` of one heart seen in some frames; NaN where there is no number."""
    row = np.full(len(COLUMNS), np.nan)
    meshes = heart.vertices(_PHASES)
    real = _curves(mesh_volumes(meshes, template_topology()))
    try:
        posterior = model.posterior(
            _observed(heart, frames), encode_condition(heart.factors), healthy=True
        )
        own = posterior.own or model
        mean = _cycle(own, posterior, posterior.latents.mean)
        if mean is None:
            return row
        draws = [_cycle(own, posterior, posterior.latents.sample(_generator(seed, heart, k)))
                 for k in range(SAMPLES)]  # fmt: skip
    except CardiogenError:
        return row
    curves = _curves(sequence_volumes(mean))
    row[0] = _apart(mean.vertices, meshes)
    row[3:5] = np.abs(curves - real).mean(axis=1)
    row[5] = abs(int(curves[0].argmin()) - int(real[0].argmin()))
    row[6:8] = np.abs(_ejections(curves) - _ejections(real))
    whole = [draw for draw in draws if draw is not None]
    if len(whole) == SAMPLES:
        away = [_apart(draw.vertices, meshes) for draw in whole]
        row[1:3] = np.mean(away), np.min(away)
        drawn = np.array([_ejections(_curves(sequence_volumes(draw))) for draw in whole])
        low, high = np.percentile(drawn, _INTERVAL, axis=0)
        row[8] = np.mean((low <= _ejections(real)) & (_ejections(real) <= high))

    return row


def _observed(heart: PopulationHeart, frames: list[int]) -> Heart:
    phases = _PHASES[frames]
    nearest = int(np.argmin(np.minimum(phases, 1.0 - phases)))

    return observe(heart, phases.tolist()).with_(ed=nearest, es=None)


def _generator(seed: int, heart: PopulationHeart, number: int) -> torch.Generator:
    key = keyed_seed(seed, f"evaluate/cycle/{heart.index}", number)

    return torch.Generator().manual_seed(key)


def _cycle(model: AnyModel, posterior: Posterior, latent: torch.Tensor) -> Heart | None:
    """Return the cycle of a latent in the world; None where it is no heart."""
    if not model.is_possible(latent):
        return None

    return decode_sequence(model, latent, _PHASES, pose=posterior.pose)


def _curves(volumes: Mapping[Structure, Array]) -> Array:
    """Return left and right volumes ``(2, T)`` mL."""
    return np.stack([volumes[chamber] for chamber in _CHAMBERS])


def _ejections(curves: Array) -> Array:
    """Return LVEF and RVEF of curves ``(2, T)``, %, ED being frame 0."""
    return 100.0 * (1.0 - curves.min(axis=1) / curves[:, 0])


def _apart(found: NDArray | None, real: Array) -> float:
    """Return how far vertices lie from the true ones, mm; NaN of label maps, which have none."""
    return float("nan") if found is None else vertex_rmse(found, real)


def _lines(
    method: str, seen_at: str, table: Array, size: Size, seed: int, labels: bool
) -> Iterator[Line]:
    for number, (metric, unit) in enumerate(COLUMNS):
        facts = {"unit": unit, "of": f"from {seen_at}"}
        if labels and number in _OF_VERTICES:
            continue
        yield mean_line(
            metric, method, table[:, number], resamples=size.resamples, seed=seed, **facts
        )
