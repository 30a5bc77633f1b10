"""One row of the MESA table for a model: generation, conditioning, spread, completion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.mesa_data import CONDITIONS, PHENOTYPES, Cohort, ejection_fractions, phenotypes
from bench.mesa_rivals import Model
from cardiogen.base import keyed_rng
from cardiogen.measure.distribution import (
    Draws,
    Estimate,
    SetDistances,
    bootstrap,
    compare_slopes,
    diversity_ratio,
    interval_coverage,
    nearest_shapes,
    one_nna,
    paired_difference,
    regress,
    sd_ratio,
    set_coverage,
    specificity,
    vertex_distances,
    wasserstein,
)

Array = NDArray[np.float64]

DRAWS = 20
SAMPLES = 39  # whole positions of the 5 % and 95 % quantiles
_RESAMPLES = 300


@dataclass(frozen=True, eq=False)
class Row:
    """What a model did on the test subjects.

    Attributes:
        text: every column.
        measured: phenotypes of its draws ``(N, n, 5)``; None of one that only completes.
        errors: by task, the vertex RMSE (mm) and EF error (points) of its guess ``(N, 2)``.
    """

    text: dict[str, str]
    measured: Array | None
    errors: dict[str, Array]


def row_of(model: Model, train: Cohort, test: Cohort, *, seed: int) -> Row:
    """Return every column of a model as text; what it does not do is left out."""
    row, measured, errors = {}, None, {}
    if model.sample is not None:
        drawn = model.sample(test.conditions, SAMPLES, keyed_rng(seed, "mesa samples"))
        measured = np.stack([phenotypes(drawn[:, k], test) for k in range(SAMPLES)], axis=1)
        row |= _shape_columns(drawn[:, :DRAWS], train, test)
        if model.real:
            floor = specificity(*(c.shapes.reshape(len(c.shapes), -1, 3) for c in (test, train)))
            row["specif. mm"] = f"{floor:.2f}"
        row |= _phenotype_columns(measured, test)
        if model.random:
            row |= _spread_columns(measured, test)
    if model.complete is not None:
        columns, errors = _completion_columns(model, test, seed)
        row |= columns
    return Row(row | {"note": model.note}, measured, errors)


def differences(row: Row, other: Row, test: Cohort, *, name: str) -> dict[str, str]:
    """Return the errors of a model less those of another, paired, with 95 % over test subjects.

    An interval that holds 0 says that these subjects cannot tell the two apart.
    """
    told = {}
    if row.measured is not None and other.measured is not None:
        real = phenotypes(test.shapes, test)
        for p, title in enumerate(PHENOTYPES):
            found = bootstrap(
                _less, real[:, p], row.measured[:, :DRAWS, p], other.measured[:, :DRAWS, p],
                draws=_RESAMPLES,
            )  # fmt: skip
            told[f"W1 {title} less {name}"] = _signed(found, 2)
    for task in row.errors.keys() & other.errors.keys():
        ours, theirs = row.errors[task], other.errors[task]
        for k, (title, digits) in enumerate((("RMSE", 3), ("EF MAE", 2))):
            found = paired_difference(ours[:, k], theirs[:, k], draws=_RESAMPLES)
            told[f"{task}: {title} less {name}"] = _signed(found, digits)
    return dict(sorted(told.items()))


def _less(real: Array, a: Array, b: Array) -> float:
    """W1 of one draw a subject, mean over draws, of a less that of b."""
    return float(
        np.mean([
            wasserstein(real, x) - wasserstein(real, y) for x, y in zip(a.T, b.T, strict=True)
        ])
    )  # fmt: skip


def _signed(found: Estimate, digits: int) -> str:
    parts = (f"{v:+.{digits}f}" for v in (found.value, found.low, found.high))
    return "{} [{}, {}]".format(*parts)


def _shape_columns(drawn: NDArray, train: Cohort, test: Cohort) -> dict[str, str]:
    """1-NNA, coverage, diversity and specificity of ED and ES as one shape of 2 V points."""
    real, known = (c.shapes.reshape(len(c.shapes), -1, 3) for c in (test, train))
    among = vertex_distances(real)
    values = []
    for k in range(drawn.shape[1]):
        made = drawn[:, k].reshape(len(drawn), -1, 3)
        d = SetDistances(among, vertex_distances(made), vertex_distances(real, made))
        nearest = nearest_shapes(made, known)[0].mean()
        values.append((100 * one_nna(d), 100 * set_coverage(d), diversity_ratio(d), nearest))
    nna, coverage, diversity, specific = (Draws(np.array(v)) for v in zip(*values, strict=True))
    return {
        "1-NNA % (SE)": f"{nna.mean:.1f} ({nna.standard_error:.1f})",
        "cover %": f"{coverage.mean:.0f}",
        "divers.": f"{diversity.mean:.2f}",
        "specif. mm": f"{specific.mean:.2f}",
    }


def _phenotype_columns(measured: Array, test: Cohort) -> dict[str, str]:
    """W1, SD ratios and slopes of phenotypes; means over draws of one sample a subject."""
    real = phenotypes(test.shapes, test)
    draws = [measured[:, k] for k in range(DRAWS)]
    w1 = [[wasserstein(real[:, p], d[:, p]) for p in range(real.shape[1])] for d in draws]
    ratios = np.mean([sd_ratio(real, d) for d in draws], axis=0)
    every = measured.reshape(-1, real.shape[1])
    given = np.repeat(test.conditions, measured.shape[1], axis=0)
    slopes = compare_slopes(
        regress(real, test.conditions), regress(every, given),
        phenotypes=PHENOTYPES, conditions=CONDITIONS,
    )  # fmt: skip
    return {
        "W1 EDV/ESV/EF/wall/mass": " / ".join(f"{v:.2f}" for v in np.mean(w1, axis=0)),
        "SD ratio (same)": " / ".join(f"{v:.2f}" for v in ratios),
        "slopes in CI": f"{int(slopes['inside'].sum())}/{len(slopes)}",
    }


def _spread_columns(measured: Array, test: Cohort) -> dict[str, str]:
    inside = interval_coverage(measured, phenotypes(test.shapes, test), levels=(0.9,))
    return {"90 % cover (same)": " / ".join(f"{100 * v:.0f}" for v in inside.per_phenotype[0])}


def _completion_columns(
    model: Model, test: Cohort, seed: int
) -> tuple[dict[str, str], dict[str, Array]]:
    """ES from ED, without and with the conditions known: the guess, and the interval of draws."""
    ed, es = test.shapes[:, 0], test.shapes[:, 1].astype(np.float64)
    true = ejection_fractions(ed, es, test)
    row, errors = {}, {}
    for title, given in (("ES|ED", None), ("ES|ED,c", test.conditions)):
        drawn = model.complete(ed, given, SAMPLES, keyed_rng(seed, f"mesa {title}"))
        # The mean of a few draws has their noise in it, which is more than models differ by.
        guess = drawn[:, 0] if model.point is None else model.point(ed, given)
        rmse = np.sqrt(((guess - es) ** 2).sum(axis=-1).mean(axis=1))
        guessed = ejection_fractions(ed, guess, test)
        errors[title] = np.stack([rmse, np.abs(guessed - true)], axis=1)
        r = np.corrcoef(guessed, true)[0, 1]
        text = "{:.3f} mm, {:.2f}, r {:.2f}".format(*errors[title].mean(axis=0), r)
        if model.random:
            ef = np.stack([ejection_fractions(ed, d, test) for d in np.moveaxis(drawn, 1, 0)], 1)
            inside = interval_coverage(ef[..., None], true[:, None], levels=(0.9,))
            text += f", {100 * inside.pooled[0]:.0f} %"
        row[f"{title}: RMSE, EF MAE, r, 90 %"] = text
    return row, errors


def show(rows: dict[str, dict[str, str]]) -> str:
    """Return the table with one column per model, so that it fits a page."""
    table = pd.DataFrame(rows).fillna("-")
    with pd.option_context("display.width", 300, "display.max_colwidth", 60):
        return table.to_string()
