"""Completion: end systole of held-out population hearts from their ED label map.

The rows ``copy ED`` and ``mean motion`` are given the true ED mesh, not a map of it; the latter
adds the mean displacement of as many other hearts, in the heart's frame. Dice is that of label
maps at ES on the observed grid: models of meshes and of label maps stand beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, keyed_seed, progress
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.contests import Contest, mean_of
from cardiogen.evaluate.ends import MEASURES, latent_ends, measures_of
from cardiogen.evaluate.hearts import Hearts, ends_of
from cardiogen.evaluate.lines import Array, Line, Result, estimated, mean_line, missing
from cardiogen.evaluate.settings import DRAWS, Size
from cardiogen.measure.distribution import bootstrap, interval_coverage
from cardiogen.measure.overlap import dice
from cardiogen.measure.vertex_distance import vertex_rmse
from cardiogen.measure.volumes import STRUCTURES
from cardiogen.models.protocol import AnyModel, encode_condition, gives_labels
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.render import render_labels, short_axis_grid
from cardiogen.population.template import template_topology
from cardiogen.synthesis import decode_sequence

EF = [MEASURES.index("LVEF (%)"), MEASURES.index("RVEF (%)")]
_SPACING_MM = (2.0, 2.0, 2.0)
_LEAST_PAIRS = 4  # for a correlation


@dataclass(frozen=True, eq=False)
class Completed:
    """One completed heart; NaN where there is none.

    Attributes:
        rmse: of vertices at ES, mm.
        ef: left and right ejection fraction, %.
        dice: of the structures at ES ``(3,)``.
        draws: of both ejection fractions ``(S, 2)``; None if there is no distribution.
    """

    rmse: float = np.nan
    ef: tuple[float, float] = (np.nan, np.nan)
    dice: Array = field(default_factory=lambda: np.full(3, np.nan))
    draws: Array | None = None


@dataclass(frozen=True, eq=False)
class Asked:
    """A heart to complete: the truth, its meshes at ED and ES, what is seen, and labels at ES."""

    heart: PopulationHeart
    ends: Array
    seen: Heart
    es_labels: NDArray[np.uint8]


def completion(
    truth: Sequence[PopulationHeart],
    others: Hearts,
    models: Mapping[str, AnyModel],
    size: Size,
    *,
    seed: int,
) -> Result:
    """Return errors of the predicted end systole and coverage of the predicted EFs."""
    asked = [_asked(heart) for heart in truth[: size.completed]]
    real = np.array([measures_of(a.ends, template_topology())[EF] for a in asked])
    motion = (others.es - others.ed)[others.made].mean(axis=0, dtype=np.float64)
    guesses = {
        "copy ED": [_guess(a.ends[0], a) for a in asked],
        "mean motion": [_guess(a.ends[0] + motion, a) for a in asked],
    }
    for name, model in models.items():
        guesses[name] = [_complete(model, a, seed) for a in progress(asked, "completing hearts")]
    lines = [line for n, found in guesses.items() for line in _lines(n, found, real, size, seed)]
    for name, model in models.items():
        if gives_labels(model) and np.isfinite([c.dice for c in guesses[name]]).any():
            reason = "label maps have no vertices that could be compared"
            lines.append(missing("vertex RMSE at ES", name, reason, unit="mm"))
    arrays = {"held-out": real} | {n: np.array([c.ef for c in f]) for n, f in guesses.items()}
    contests = _contests({n: f for n, f in guesses.items() if n in models}, real)

    return Result(tuple(lines), arrays={"ejection": arrays}, contests=tuple(contests))


def _contests(found: Mapping[str, Sequence[Completed]], real: Array) -> Iterator[Contest]:
    rmse = {n: np.array([c.rmse for c in f]) for n, f in found.items()}
    meshes = {n: errors for n, errors in rmse.items() if np.isfinite(errors).any()}
    yield Contest("completion", "vertex RMSE at ES", "mm", meshes, mean_of)
    dice = {n: np.array([1.0 - c.dice.mean() for c in f]) for n, f in found.items()}
    yield Contest("completion", "1 - mean Dice at ES", "1", dice, mean_of)
    for k, name in enumerate(("LVEF", "RVEF")):
        errors = {n: np.abs([c.ef[k] for c in f] - real[:, k]) for n, f in found.items()}
        yield Contest("completion", f"{name} MAE", "EF points", errors, mean_of)


def _asked(heart: PopulationHeart) -> Asked:
    ends, seen = ends_of(heart), observe(heart, [0.0])
    world = heart.pose.to_world(ends[1])
    return Asked(heart, ends, seen, render_labels(world, template_topology(), seen.grid))


def observe(heart: PopulationHeart, phases: Sequence[float]) -> Heart:
    """Return label maps of a heart at some phases, the first of them end diastole."""
    vertices = heart.vertices(phases)
    grid = short_axis_grid(vertices, heart.pose, _SPACING_MM)
    labels = np.stack([render_labels(v, template_topology(), grid) for v in vertices])
    return Heart(
        phases=np.asarray(phases, dtype=np.float64), grid=grid, labels=labels,
        factors=heart.factors, subject_id=f"population_{heart.index:06d}",
    )  # fmt: skip


def _guess(es: Array, asked: Asked) -> Completed:
    row = measures_of(np.stack([asked.ends[0], es]), template_topology())
    labels = render_labels(asked.heart.pose.to_world(es), template_topology(), asked.seen.grid)
    return Completed(vertex_rmse(es, asked.ends[1]), _both(row), _dice(labels, asked))


def _both(row: Array) -> tuple[float, float]:
    return float(row[EF[0]]), float(row[EF[1]])


def _dice(labels: NDArray[np.uint8], asked: Asked) -> Array:
    return np.array([dice(labels == s, asked.es_labels == s) for s in STRUCTURES])


def _complete(model: AnyModel, asked: Asked, seed: int) -> Completed:
    """Complete one heart; what the model refuses is a failure, never a number."""
    heart = asked.heart
    try:
        posterior = model.posterior(asked.seen, encode_condition(heart.factors), healthy=True)
        model = posterior.own or model
        mean = latent_ends(model, posterior.latents.mean)
        if mean is None:
            return Completed()
        shown = decode_sequence(
            model, posterior.latents.mean, [mean.systole], pose=posterior.pose,
            grid=asked.seen.grid,
        )  # fmt: skip
    except CardiogenError:
        return Completed()
    draws = np.full((DRAWS, 2), np.nan)
    for k in range(DRAWS):
        key = keyed_seed(seed, f"evaluate/complete/{heart.index}", k)
        found = latent_ends(model, posterior.latents.sample(torch.Generator().manual_seed(key)))
        if found is not None:
            draws[k] = found.row[EF]
    rmse = np.nan
    if mean.vertices is not None:
        rmse = vertex_rmse(
            posterior.pose.to_world(mean.vertices[1]), heart.pose.to_world(asked.ends[1])
        )
    return Completed(rmse, _both(mean.row), _dice(shown.labels[0], asked), draws)


def _lines(
    method: str, found: Sequence[Completed], real: Array, size: Size, seed: int
) -> Iterator[Line]:
    options = {"resamples": size.resamples, "seed": seed}
    overlaps = np.array([c.dice for c in found])
    if not np.isnan([c.rmse for c in found]).all() or np.isnan(overlaps).all():
        yield mean_line("vertex RMSE at ES", method, [c.rmse for c in found], unit="mm", **options)
    for k, structure in enumerate(STRUCTURES):
        yield mean_line("Dice at ES", method, overlaps[:, k], of=structure.name, **options)
    guessed = np.array([c.ef for c in found])
    for k, name in enumerate(("LVEF", "RVEF")):
        yield from ejection_lines(name, method, guessed[:, k], real[:, k], size, seed)
    yield _interval_line(method, found, real, size, seed)


def ejection_lines(
    name: str, method: str, guessed: Array, real: Array, size: Size, seed: int
) -> Iterator[Line]:
    """Return mean absolute error and correlation of predicted ejection fractions ``(N,)``, %."""
    options = {"resamples": size.resamples, "seed": seed}
    yield mean_line(f"{name} MAE", method, np.abs(guessed - real), unit="EF points", **options)
    both = np.isfinite(guessed) & np.isfinite(real)
    facts = {"count": int(both.sum()), "failures": int((~both).sum())}
    a, b = guessed[both], real[both]
    if facts["count"] < _LEAST_PAIRS or np.ptp(a) < 1e-9 or np.ptp(b) < 1e-9:
        reason = "no spread in the predictions, or fewer than 4 subjects"
        yield missing(f"{name} r", method, reason, **facts)
        return
    found = bootstrap(correlation, a, b, draws=size.resamples, seed=seed)
    yield estimated(f"{name} r", method, found, **facts)


def correlation(a: Array, b: Array) -> float:
    """Return Pearson's r; 0 of a resample that repeats one subject only."""
    left, right = a - a.mean(), b - b.mean()
    size = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / size if size > 0 else 0.0


def _interval_line(
    method: str, found: Sequence[Completed], real: Array, size: Size, seed: int
) -> Line:
    metric = "coverage of 90 % intervals"
    if all(c.draws is None for c in found):
        return missing(metric, method, "gives no distribution", of="LVEF and RVEF")
    kept = [k for k, c in enumerate(found) if c.draws is not None and np.isfinite(c.draws).all()]
    failures = len(found) - len(kept)
    if len(kept) < 2:
        return missing(metric, method, "fewer than 2 hearts", failures=failures)
    samples = np.stack([found[k].draws for k in kept])
    hits = interval_coverage(samples, real[kept], levels=(0.9,)).hits[:, 0].mean(axis=1)
    share = bootstrap(lambda x: float(x.mean()), hits, draws=size.resamples, seed=seed)
    return estimated(
        metric, method, share, of="LVEF and RVEF", wanted=(0.85, 0.95), count=len(kept),
        failures=failures,
    )  # fmt: skip
