"""Completion: end systole of held-out population hearts from their ED label map.

The rows ``copy ED`` and ``mean motion`` are given the true ED mesh, not a map of it; the latter
adds the mean displacement of as many other hearts, in the heart's frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cardiogen.base import CardiogenError, keyed_seed, progress
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.hearts import MEASURES, Hearts, ends_of, latent_ends, measures_of
from cardiogen.evaluate.lines import Array, Line, Result, estimated, mean_line, missing
from cardiogen.evaluate.settings import DRAWS, Size
from cardiogen.measure.distribution import bootstrap, interval_coverage
from cardiogen.models.protocol import AnatomyModel, encode_condition
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.render import render_labels, short_axis_grid
from cardiogen.population.template import template_topology

EF = [MEASURES.index("LVEF (%)"), MEASURES.index("RVEF (%)")]
_SPACING_MM = (2.0, 2.0, 2.0)
_LEAST_PAIRS = 4  # for a correlation


@dataclass(frozen=True, eq=False)
class Completed:
    """One completed heart: RMSE at ES (mm), both EFs (%) and draws of them; NaN where none."""

    rmse: float = np.nan
    ef: tuple[float, float] = (np.nan, np.nan)
    draws: Array | None = None


def completion(
    truth: Sequence[PopulationHeart],
    others: Hearts,
    models: Mapping[str, AnatomyModel],
    size: Size,
    *,
    seed: int,
) -> Result:
    """Return errors of the predicted end systole and coverage of the predicted EFs."""
    truth = truth[: size.completed]
    ends = [ends_of(heart) for heart in truth]
    real = np.array([measures_of(e, template_topology())[EF] for e in ends])
    motion = (others.es - others.ed)[others.made].mean(axis=0, dtype=np.float64)
    guesses = {
        "copy ED": [_guess(e[0], e) for e in ends],
        "mean motion": [_guess(e[0] + motion, e) for e in ends],
    }
    for name, model in models.items():
        guesses[name] = [
            _complete(model, heart, e, seed)
            for heart, e in zip(progress(truth, "completing hearts"), ends, strict=True)
        ]
    lines = [line for n, found in guesses.items() for line in _lines(n, found, real, size, seed)]
    arrays = {"held-out": real} | {n: np.array([c.ef for c in f]) for n, f in guesses.items()}

    return Result(tuple(lines), arrays={"ejection": arrays})


def observe(heart: PopulationHeart, phases: Sequence[float]) -> Heart:
    """Return label maps of a heart at some phases, the first of them end diastole."""
    vertices = heart.vertices(phases)
    grid = short_axis_grid(vertices, heart.pose, _SPACING_MM)
    labels = np.stack([render_labels(v, template_topology(), grid) for v in vertices])
    return Heart(
        phases=np.asarray(phases, dtype=np.float64), grid=grid, labels=labels,
        factors=heart.factors, subject_id=f"population_{heart.index:06d}",
    )  # fmt: skip


def _guess(es: Array, ends: Array) -> Completed:
    row = measures_of(np.stack([ends[0], es]), template_topology())
    return Completed(_rmse(es, ends[1]), (float(row[EF[0]]), float(row[EF[1]])))


def _rmse(a: Array, b: Array) -> float:
    return float(np.sqrt(np.mean(np.sum((a - b) ** 2, axis=-1))))


def _complete(model: AnatomyModel, heart: PopulationHeart, ends: Array, seed: int) -> Completed:
    """Complete one heart; what the model refuses is a failure, never a number."""
    try:
        posterior = model.posterior(
            observe(heart, [0.0]), encode_condition(heart.factors), healthy=True
        )
    except CardiogenError:
        return Completed()
    mean = latent_ends(model, posterior.latents.mean)
    if mean is None:
        return Completed()
    es = posterior.pose.to_world(mean[1])
    row = measures_of(mean, model.topology)
    draws = np.full((DRAWS, 2), np.nan)
    for k in range(DRAWS):
        key = keyed_seed(seed, f"evaluate/complete/{heart.index}", k)
        found = latent_ends(model, posterior.latents.sample(torch.Generator().manual_seed(key)))
        if found is not None:
            draws[k] = measures_of(found, model.topology)[EF]
    return Completed(
        _rmse(es, heart.pose.to_world(ends[1])), (float(row[EF[0]]), float(row[EF[1]])), draws
    )


def _lines(
    method: str, found: Sequence[Completed], real: Array, size: Size, seed: int
) -> Iterator[Line]:
    options = {"resamples": size.resamples, "seed": seed}
    yield mean_line("vertex RMSE at ES", method, [c.rmse for c in found], unit="mm", **options)
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
