"""Generation: do hearts of a model lie among real hearts of the same factors?

Distances between samples (W1, energy, Frechet) never vanish between finite ones and their
bootstrap lies too high: they are read against the row ``real``, other hearts of the population
with the same factors. Of label maps phenotypes are compared, by the volumes of their voxels; their
shapes lie on lattices of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from cardiogen.evaluate.contests import Contest
from cardiogen.evaluate.ends import MEASURES
from cardiogen.evaluate.hearts import Hearts
from cardiogen.evaluate.lines import Array, Band, Line, Result, estimated, mean_line, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure.distribution import (
    Estimate,
    SetDistances,
    bootstrap,
    compare_phenotypes,
    diversity_ratio,
    energy_distance,
    frechet_distance,
    nearest_shapes,
    one_nna,
    repeat_draws,
    sd_ratio,
    set_coverage,
    set_distances,
    share_interval,
)

SD_RATIO: Band = (0.9, 1.1)
ONE_NNA: Band = (0.45, 0.55)
DIVERSITY: Band = (0.95, 1.05)
_DRAWS = 20
_PART = 0.75  # of the hearts in each paired draw
_MODES = 8
_TINY = 1e-9


def generation(truth: Hearts, methods: Mapping[str, Hearts], size: Size, *, seed: int) -> Result:
    """Return how hearts of every method compare with held-out hearts of the same factors."""
    lines: list[Line] = []
    for name, hearts in methods.items():
        both = truth.made & hearts.made
        facts = {"count": int(both.sum()), "failures": hearts.failures}
        if facts["count"] < 4:
            reason = f"{facts['count']} hearts are too few"
            lines.append(Line("W1", name, None, reason=reason, **facts))
            continue
        lines += _phenotypes(truth.phenotypes[both], hearts.phenotypes[both], name, facts, size,
                             seed)  # fmt: skip
        if hearts.ed is None:
            reason = "label maps have no vertices that could be compared"
            lines.append(missing("1-NNA", name, reason, of="ED", **facts))
            continue
        for end in ("ed", "es"):
            real, made = getattr(truth, end)[both], getattr(hearts, end)[both]
            lines += _shapes(real, made, name, end.upper(), facts, size, seed)
    tables = {"held-out": truth.phenotypes} | {n: h.phenotypes for n, h in methods.items()}

    return Result(
        tuple(lines), arrays={"phenotypes": tables}, contests=tuple(_contests(truth, methods))
    )


def _contests(truth: Hearts, methods: Mapping[str, Hearts]) -> Iterator[Contest]:
    """Compare tables of both samples side by side, real columns first."""
    tables = {n: np.hstack([truth.phenotypes, h.phenotypes]) for n, h in methods.items()}
    yield Contest("generation", "W1 of phenotypes", "SD", tables, mean_w1)
    yield Contest("generation", "|ln SD ratio| of phenotypes", "1", tables, spread_error)
    modes = _shape_modes(truth)
    scored = {
        n: np.hstack([modes(truth), modes(h)]) for n, h in methods.items() if h.ed is not None
    }
    yield Contest("generation", f"W1 of {_MODES} shape modes", "SD", scored, mean_w1)


def _shape_modes(truth: Hearts) -> Callable[[Hearts], Array]:
    """Return what projects meshes at both ends on the main modes of held-out hearts."""

    def flat(hearts: Hearts) -> Array:
        both = np.concatenate([hearts.ed, hearts.es], axis=1, dtype=np.float64)
        return both.reshape(len(both), -1)

    real = flat(truth)[truth.made]
    mean = real.mean(axis=0)
    modes = np.linalg.svd(real - mean, full_matrices=False)[2][:_MODES]

    return lambda hearts: (flat(hearts) - mean) @ modes.T


def mean_w1(rows: Array) -> float:
    """Return the mean Wasserstein distance over columns, in SDs of the real ones."""
    real, made = np.hsplit(rows, 2)
    apart = np.abs(np.sort(real, axis=0) - np.sort(made, axis=0)).mean(axis=0)
    return float((apart / np.maximum(real.std(axis=0), _TINY)).mean())


def spread_error(rows: Array) -> float:
    """Return the mean over columns of ``|ln(SD made / SD real)|``."""
    real, made = (np.maximum(x.std(axis=0), _TINY) for x in np.hsplit(rows, 2))
    return float(np.abs(np.log(made / real)).mean())


def _phenotypes(
    real: Array, made: Array, method: str, facts: dict, size: Size, seed: int
) -> Iterator[Line]:
    # A model without any spread has no SD to divide by in its own terms, but the real one has.
    for k, (measure, row) in enumerate(compare_phenotypes(real, made, MEASURES).iterrows()):
        unit = measure.split("(")[1].rstrip(")")
        yield Line("W1", method, float(row["w1"]), unit=unit, of=measure, **facts)
        yield Line("KS", method, float(row["ks"]), of=measure, **facts)
        found = bootstrap(
            lambda a, b: float(sd_ratio(a, b)[0]), real[:, k : k + 1], made[:, k : k + 1],
            draws=size.resamples, seed=seed,
        )  # fmt: skip
        yield estimated("SD ratio", method, found, of=measure, wanted=SD_RATIO, **facts)
    yield Line("energy distance", method, energy_distance(real, made), unit="SD", **facts)
    frechet = frechet_distance(real, made)
    yield Line("Frechet distance", method, frechet.value, unit="SD", **facts)


def _shapes(
    real: NDArray, made: NDArray, method: str, of: str, facts: dict, size: Size, seed: int
) -> Iterator[Line]:
    distances = set_distances(real, made)
    count = len(real)
    draws = repeat_draws(
        one_nna, distances, draws=_DRAWS, size=max(2, int(_PART * count)),
        subjects=np.arange(count), seed=seed,
    )  # fmt: skip
    # The binomial interval takes neighbors for independent: a guide, not a test.
    around = share_interval(round(draws.mean * 2 * count), 2 * count)
    found = Estimate(draws.mean, around.low, around.high)
    yield estimated("1-NNA", method, found, of=of, wanted=ONE_NNA, **facts)
    yield Line("coverage", method, set_coverage(distances), of=of, **facts)
    yield estimated(
        "diversity ratio", method, diversity(distances), of=of, wanted=DIVERSITY, **facts
    )
    near, _ = nearest_shapes(made, real)
    yield mean_line("specificity", method, near, resamples=size.resamples, seed=seed, unit="mm",
                    of=of)  # fmt: skip


def diversity(distances: SetDistances) -> Estimate:
    """Return the diversity ratio of equally many shapes with the jackknife's 95 % interval.

    Resampling with replacement would pair shapes with themselves. Leaving subject i out of both
    sets, with S the sum over ordered pairs and r_i its row, leaves (S - 2 r_i) in each.
    """
    left = [_left_out(matrix) for matrix in (distances.synthetic, distances.real)]
    if (distances.synthetic <= 0).all():
        return Estimate(0.0, 0.0, 0.0)
    ratio = diversity_ratio(distances)
    out = left[0] / left[1]
    count = len(out)
    error = float(np.sqrt((count - 1) / count * ((out - out.mean()) ** 2).sum()))

    return Estimate(ratio, ratio - 1.96 * error, ratio + 1.96 * error)


def _left_out(matrix: Array) -> Array:
    rows = matrix.sum(axis=1) - matrix.diagonal()
    return (rows.sum() - 2 * rows) / ((len(rows) - 1) * (len(rows) - 2))
