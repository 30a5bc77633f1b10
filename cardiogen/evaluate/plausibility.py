"""Plausibility: do hearts fit the published ranges of healthy adults, and physics?

The Healthy Hearts Consortium's 95 % intervals should hold 95 % of hearts: all of them inside means
collapsed variance. Every heart is judged by the range of its own sex and age.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.factors import Factors
from cardiogen.evaluate.contests import Contest, mean_of
from cardiogen.evaluate.ends import DRIFT, MEASURES, STROKES
from cardiogen.evaluate.hearts import Hearts
from cardiogen.evaluate.lines import Array, Band, Line, Result, estimated, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure.distribution import bootstrap, share_interval
from cardiogen.measure.reference import reference

INSIDE: Band = (0.93, 0.97)
SHIFT: Band = (-0.2, 0.2)
SPREAD: Band = (0.9, 1.1)
ALMOST_ALL: Band = (0.95, None)
_STROKES_APART, _MASS_DRIFT = 0.10, 0.05
_INTERVAL_SD = 1.959964
_LEAST = 3  # hearts of a sex


def plausibility(
    factors: Sequence[Factors], methods: Mapping[str, Hearts], size: Size, *, seed: int
) -> Result:
    """Return how hearts of every method lie in published ranges, by sex, and obey physics."""
    lines: list[Line] = []
    women = np.array([f.sex == "F" for f in factors])
    for name, hearts in methods.items():
        scores = z_scores(hearts.phenotypes, factors)
        for sex, members in (("F", women), ("M", ~women)):
            lines += _ranges(scores[members & hearts.made], sex, name, hearts, size, seed)
        lines += _physics(hearts, name)

    return Result(tuple(lines), contests=tuple(_contests(methods, factors, women)))


def _contests(
    methods: Mapping[str, Hearts], factors: Sequence[Factors], women: NDArray[np.bool_]
) -> Iterator[Contest]:
    sex = women[:, None].astype(np.float64)
    scores = {n: np.hstack([sex, z_scores(h.phenotypes, factors)]) for n, h in methods.items()}
    yield Contest("plausibility", "|shift| from HHC", "SD", scores, shift_error)
    yield Contest("plausibility", "|SD over HHC's - 1|", "1", scores, spread_error)
    broken = {n: _broken(h) for n, h in methods.items()}
    yield Contest("plausibility", "stroke volumes or mass that do not agree", "share", broken,
                  mean_of)  # fmt: skip


def _broken(hearts: Hearts) -> Array:
    """Return whether a heart breaks either rule of physics ``(N,)``; NaN where there is none."""
    found = np.full(len(hearts.table), np.nan)
    table = hearts.table[hearts.made]
    left, right = table[:, STROKES].T
    apart = np.abs(right / left - 1) > _STROKES_APART
    found[hearts.made] = apart | (np.abs(table[:, DRIFT]) > _MASS_DRIFT)
    return found


def shift_error(rows: Array) -> float:
    """Return the mean over sexes and measures of the absolute mean of z; sex first in a row."""
    return _by_sex(rows, lambda z: np.abs(z.mean(axis=0)))


def spread_error(rows: Array) -> float:
    """Return the mean over sexes and measures of how far the SD of z is from one."""
    return _by_sex(rows, lambda z: np.abs(z.std(axis=0, ddof=1) - 1.0))


def _by_sex(rows: Array, error: Callable[[Array], Array]) -> float:
    parts = [rows[rows[:, 0] == sex, 1:] for sex in (0.0, 1.0)]
    found = [error(z).mean() for z in parts if len(z) >= _LEAST]
    return float(np.mean(found)) if found else float("nan")


def z_scores(phenotypes: Array, factors: Sequence[Factors]) -> Array:
    """Return how many published SDs every measure lies above its sex and age's mean ``(N, P)``."""
    middles = [[reference(measure, sex=f.sex, age=f.age) for measure in MEASURES] for f in factors]
    mean = np.array([[r.mean for r in row] for row in middles])
    sd = np.array([[r.sd for r in row] for row in middles])

    return (phenotypes - mean) / sd


def _ranges(
    scores: Array, sex: str, method: str, hearts: Hearts, size: Size, seed: int
) -> Iterator[Line]:
    facts = {"count": len(scores), "failures": hearts.failures}
    for k, measure in enumerate(MEASURES):
        of = f"{measure}, {sex}"
        if len(scores) < 3:
            yield missing("inside HHC 95 %", method, "fewer than 3 hearts", of=of, **facts)
            continue
        z = scores[:, k]
        inside = int((np.abs(z) <= _INTERVAL_SD).sum())
        share = share_interval(inside, len(z))
        yield estimated("inside HHC 95 %", method, share, of=of, wanted=INSIDE, **facts)
        shift = bootstrap(lambda x: float(x.mean()), z, draws=size.resamples, seed=seed)
        yield estimated("shift from HHC", method, shift, of=of, unit="SD", wanted=SHIFT, **facts)
        spread = bootstrap(lambda x: float(x.std(ddof=1)), z, draws=size.resamples, seed=seed)
        yield estimated("SD over HHC's", method, spread, of=of, wanted=SPREAD, **facts)


def _physics(hearts: Hearts, method: str) -> Iterator[Line]:
    table = hearts.table[hearts.made]
    facts = {"count": len(table), "failures": hearts.failures}
    if not len(table):
        yield missing("stroke volumes within 10 %", method, "no heart was made", **facts)
        return
    left, right = table[:, STROKES].T
    tests: dict[str, NDArray[np.bool_]] = {
        "stroke volumes within 10 %": np.abs(right / left - 1) <= _STROKES_APART,
        "mass constant within 5 %": np.abs(table[:, DRIFT]) <= _MASS_DRIFT,
    }
    for metric, passed in tests.items():
        share = share_interval(int(passed.sum()), len(passed))
        yield estimated(metric, method, share, wanted=ALMOST_ALL, **facts)
