"""Conditioning: do hearts depend on factors as real ones do, and are their spreads honest?

Coverage is judged with all factors known and with each one missing. The row ``real`` draws from
the known p(phenotypes | all factors) of the population itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import keyed_rng, progress
from cardiogen.data.factors import Factors
from cardiogen.evaluate.contests import Contest, mean_of
from cardiogen.evaluate.ends import MEASURES
from cardiogen.evaluate.hearts import (
    FACTORS,
    Hearts,
    model_ends,
    without,
)
from cardiogen.evaluate.lines import Array, Band, Line, Result, estimated, missing
from cardiogen.evaluate.settings import DRAWS, Size
from cardiogen.measure.distribution import (
    LEVELS,
    Coverage,
    Estimate,
    bootstrap,
    compare_slopes,
    complete_rows,
    holm,
    interval_coverage,
    regress,
    share_interval,
)
from cardiogen.models.protocol import AnyModel, encode_condition
from cardiogen.population.phenotypes import Phenotypes, sample_phenotypes

# What is unknown in each round of intervals.
ABSENT: tuple[str | None, ...] = (None, *FACTORS)
R2_DIFFERENCE: Band = (-0.05, 0.05)
_TOLERANCE, _TOLERANCE_MISSING = 0.03, 0.05
_FEW = 30  # subjects below which the bootstrap of a share is too narrow
_LEAST = 8  # subjects of a regression on five factors


def conditioning(
    truth: Hearts,
    factors: Sequence[Factors],
    methods: Mapping[str, Hearts],
    models: Mapping[str, AnyModel],
    size: Size,
    *,
    seed: int,
) -> Result:
    """Return coverage of conditional intervals, and slopes and R2 against held-out hearts."""
    lines: list[Line] = []
    observed, errors, hits = {}, {}, {}
    real = truth.phenotypes[: size.calibration]
    asked = factors[: size.calibration]
    spread = truth.phenotypes.std(axis=0)
    for name, model in models.items():
        rounds = [_samples(model, [without(f, absent) for f in asked], seed) for absent in ABSENT]
        for absent, samples in zip(ABSENT, rounds, strict=True):
            found, pooled = _coverage(samples, real, name, absent, size, seed)
            lines += found
            if absent is None and pooled is not None:
                observed[name] = pooled
        errors[name] = np.mean([crps(s, real) / spread for s in rounds], axis=0).mean(axis=1)
        hits[name] = np.hstack([_shares(s, real) for s in rounds])
    found, pooled = _coverage(_true_samples(asked, seed), real, "real", None, size, seed)
    lines += found
    observed["real"] = pooled
    conditions = np.stack([encode_condition(f).numpy() for f in factors])
    pairs = {n: np.hstack([conditions, truth.phenotypes, h.phenotypes])
             for n, h in methods.items()}  # fmt: skip
    for name, hearts in methods.items():
        lines += _dependence(truth, factors, hearts, name, size, seed)
    contests = (
        Contest("conditioning", "CRPS of phenotypes", "SD", errors, mean_of),
        Contest("conditioning", "|coverage - nominal|", "share", hits, coverage_error),
        Contest("conditioning", "|R2 - real R2|", "1", pairs, r2_error),
    )

    return Result(tuple(lines), arrays={"coverage": observed}, contests=contests)


def crps(samples: Array, real: Array) -> Array:
    """Return the continuous ranked probability score ``(N, P)`` of draws ``(N, S, P)``.

    ``E|X - y| - E|X - X'| / 2``, without bias for any S (X and X' are different draws): least
    where draws lie near the truth and spread as it does (Gneiting and Raftery, JASA 2007, 4.2).
    """
    near = np.abs(samples - real[:, None]).mean(axis=1)
    count = samples.shape[1]
    # Sum over ordered pairs of |x_i - x_j|, by ranks.
    weights = 2 * np.arange(count) - count + 1
    apart = 2 * (np.sort(samples, axis=1) * weights[:, None]).sum(axis=1)
    return near - apart / (count * (count - 1)) / 2


def _shares(samples: Array, real: Array) -> Array:
    """Return how many of a subject's phenotypes lie in its intervals, as shares ``(N, L)``."""
    found = np.full((len(real), len(LEVELS)), np.nan)
    made = np.isfinite(samples.reshape(len(samples), -1)).all(axis=1)
    if made.any():
        found[made] = interval_coverage(samples[made], real[made]).hits.mean(axis=2)
    return found


def coverage_error(shares: Array) -> float:
    """Return the mean over levels and rounds of ``|pooled coverage - level|``, ``(N, R L)``."""
    rounds = shares.shape[1] // len(LEVELS)
    return float(np.abs(shares.mean(axis=0) - np.tile(LEVELS, rounds)).mean())


def r2_error(rows: Array) -> float:
    """Return the mean over phenotypes of ``|R2 - real R2|``; NaN where the rows do not tell."""
    c, real, made = np.split(rows, [len(FACTORS), len(FACTORS) + len(MEASURES)], axis=1)
    if len(np.unique(c[:, 0])) < _LEAST or np.ptp(c[:, 1]) == 0:
        return float("nan")
    return float(np.abs(_adjusted(c, made) - _adjusted(c, real)).mean())


def _samples(model: AnyModel, asked: Sequence[Factors], seed: int) -> Array:
    """Return draws of the measures ``(N, S, P)``; NaN where a draw is no heart."""
    samples = np.full((len(asked), DRAWS, len(MEASURES)), np.nan)
    for row, given in enumerate(progress(asked, "drawing intervals")):
        prior = model.prior(encode_condition(given))
        for k in range(DRAWS):
            ends = model_ends(model, prior, seed, "interval", row * DRAWS + k)
            if ends is not None:
                samples[row, k] = ends.row[: len(MEASURES)]
    return samples


def _true_samples(asked: Sequence[Factors], seed: int) -> Array:
    """Return draws from p(phenotypes | all factors), ``(N, S, P)``."""
    return np.array(
        [
            [
                _row(sample_phenotypes(keyed_rng(seed, "evaluate/real", i * DRAWS + k), given))
                for k in range(DRAWS)
            ]
            for i, given in enumerate(asked)
        ]
    )


def _row(p: Phenotypes) -> list[float]:
    return [p.lvedv, p.lvesv, p.lvef, p.lvm, p.rvedv, p.rvesv, 100 * (1 - p.rvesv / p.rvedv)]


def _coverage(
    samples: Array, real: Array, method: str, absent: str | None, size: Size, seed: int
) -> tuple[list[Line], Array | None]:
    """Return the lines of one set of known factors, and the pooled coverage ``(L,)``."""
    known = "all factors" if absent is None else f"{absent} missing"
    complete = complete_rows(samples.reshape(len(samples), -1), real)
    facts = {"failures": complete.failures}
    if complete.kept.sum() < 2:
        reason = f"{complete.failures} of {len(real)} subjects have draws that are no hearts"
        return [missing("interval coverage", method, reason, of=known, **facts)], None
    drawn, true = complete.tables
    found = interval_coverage(drawn.reshape(len(drawn), DRAWS, -1), true)
    tolerance = _TOLERANCE if absent is None else _TOLERANCE_MISSING

    return list(_coverage_lines(found, method, known, tolerance, facts, size, seed)), found.pooled


def _coverage_lines(
    found: Coverage, method: str, known: str, tolerance: float, facts: dict, size: Size, seed: int
) -> Iterator[Line]:
    count = len(found.hits)
    for k, level in enumerate(found.levels):
        metric = f"coverage of {100 * level:.0f} % intervals"
        pooled = _pooled(found.hits[:, k].mean(axis=1), size, seed)
        yield estimated(
            metric, method, pooled, of=f"pooled, {known}", count=count,
            wanted=(level - tolerance, level + tolerance), **facts,
        )  # fmt: skip
        for measure, hits in zip(MEASURES, found.hits[:, k].T, strict=True):
            share = share_interval(int(hits.sum()), count)
            yield estimated(metric, method, share, of=f"{measure}, {known}", count=count, **facts)


def _pooled(shares: Array, size: Size, seed: int) -> Estimate:
    """Return the mean of the subjects' shares of hits ``(N,)``.

    Few subjects, or shares that are all alike, make the bootstrap too narrow: the exact binomial
    interval takes its place, as if each subject were one hit or miss.
    """
    value, count = float(shares.mean()), len(shares)
    if count < _FEW or np.ptp(shares) == 0:
        around = share_interval(round(value * count), count)
        return Estimate(value, min(value, around.low), max(value, around.high))
    return bootstrap(lambda x: float(x.mean()), shares, draws=size.resamples, seed=seed)


def _dependence(
    truth: Hearts, factors: Sequence[Factors], hearts: Hearts, method: str, size: Size, seed: int
) -> list[Line]:
    """Return slopes and R2 of one method against those of held-out hearts of equal factors."""
    conditions = np.stack([encode_condition(f).numpy() for f in factors])
    complete = complete_rows(conditions, truth.phenotypes, hearts.phenotypes)
    facts = {"count": int(complete.kept.sum()), "failures": complete.failures}
    flat = any((table.std(axis=0) < 1e-9).any() for table in complete.tables)
    if facts["count"] < _LEAST or flat:
        reason = f"{facts['count']} hearts are too few, or they do not differ"
        return [missing("R2, minus real", method, reason, **facts)]
    c, real, made = complete.tables

    return [*_r2(c, real, made, method, facts, size, seed), *_slopes(c, real, made, method, facts)]


def _r2(
    c: Array, real: Array, made: Array, method: str, facts: dict, size: Size, seed: int
) -> Iterator[Line]:
    """Resample subjects once for all phenotypes: a difference of two R2 of the same rows."""
    rows: NDArray = keyed_rng(seed, "evaluate/r2").integers(0, len(c), (size.resamples, len(c)))
    value = _adjusted(c, made) - _adjusted(c, real)
    drawn = np.array([_adjusted(c[r], made[r]) - _adjusted(c[r], real[r]) for r in rows])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    for k, measure in enumerate(MEASURES):
        yield Line(
            "R2, minus real", method, float(value[k]), of=measure, low=float(low[k]),
            high=float(high[k]), wanted=R2_DIFFERENCE, **facts,
        )  # fmt: skip


def _adjusted(c: Array, y: Array) -> Array:
    """Return adjusted R2 ``(P,)``; a resample may hold one sex alone, which costs its column."""
    centered, response = c - c.mean(axis=0), y - y.mean(axis=0)
    beta, *_ = np.linalg.lstsq(centered, response, rcond=None)
    unexplained = ((response - centered @ beta) ** 2).sum(axis=0) / (response**2).sum(axis=0)

    return 1 - unexplained * (len(y) - 1) / (len(y) - c.shape[1] - 1)


def _slopes(c: Array, real: Array, made: Array, method: str, facts: dict) -> Iterator[Line]:
    wanted, found = regress(real, c, errors="classic"), regress(made, c, errors="classic")
    table = compare_slopes(wanted, found, phenotypes=MEASURES, conditions=FACTORS)
    share = share_interval(int(table["overlap"].sum()), len(table))
    yield estimated(
        "slopes whose intervals meet the real ones", method, share, wanted=(0.95, None), **facts
    )
    differ = int((holm(table["p"].to_numpy()) < 0.05).sum())
    yield Line("slopes that differ (Holm)", method, differ, unit="of 35", wanted=(0, 0), **facts)
    for (measure, factor), row in table.iterrows():
        yield Line(
            f"slope on {factor}", method, float(row["synthetic"]), of=measure, unit="per unit",
            low=float(row["synthetic low"]), high=float(row["synthetic high"]), **facts,
        )  # fmt: skip
