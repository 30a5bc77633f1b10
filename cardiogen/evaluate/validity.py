"""Validity: written rules of anatomy over whole cycles, without rejecting any draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from cardiogen.base import progress
from cardiogen.evaluate.cycles import Cycle, Cycles
from cardiogen.evaluate.lines import Line, Result, estimated, mean_line, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure import check_sequence
from cardiogen.measure.distribution import share_interval


def validity(cycles: Cycles, size: Size, *, seed: int) -> Result:
    """Return violations, closure errors and folds of hearts over the cycle."""
    lines = [x for name, hearts in cycles.items() for x in _examine(hearts, name, size, seed)]

    return Result(tuple(lines))


def _examine(hearts: Sequence[Cycle | None], method: str, size: Size, seed: int) -> Iterator[Line]:
    """Count broken rules; a heart that could not be made is a failure."""
    rules: Counter[str] = Counter()
    violations = []
    for cycle in progress(hearts, "checking cycles"):
        broken = None if cycle is None else check_sequence(cycle.heart)
        rules.update(v.rule for v in broken or ())
        violations.append(np.nan if broken is None else len(broken))
    made = np.isfinite(violations)
    facts = {"count": int(made.sum()), "failures": int((~made).sum())}
    yield mean_line("violations per heart", method, violations, wanted=(0, 0),
                    resamples=size.resamples, seed=seed)  # fmt: skip
    if not made.any():
        return
    bad = int((np.array(violations)[made] > 0).sum())
    share = share_interval(bad, facts["count"])
    yield estimated("hearts with a violation", method, share, **facts)
    for rule, count in sorted(rules.items()):
        yield Line("violations of a rule", method, count, of=rule, unit="findings", **facts)
    yield from _fields([c for c in hearts if c is not None], method, facts)


def _fields(made: Sequence[Cycle], method: str, facts: dict) -> Iterator[Line]:
    closures = [c.closure for c in made if c.closure is not None]
    if closures:
        unit = "mm" if made[0].heart.vertices is not None else "voxels"
        yield Line("largest closure error", method, max(closures), unit=unit, wanted=(0, 0),
                   **facts)  # fmt: skip
    else:
        reason = "this model knows two phases, none of them twice"
        yield missing("largest closure error", method, reason, unit="voxels", **facts)
    folds = [c.folds for c in made if c.folds is not None]
    if folds:
        cells, fields = (sum(column) for column in zip(*folds, strict=True))
        yield Line("folded cells", method, cells, unit="cells", wanted=(0, 0), **facts)
        yield Line("fields with folds", method, fields, unit="fields", wanted=(0, 0), **facts)
    elif method != "real":
        reason = "no displacement fields; crossing faces of meshes are among the violations"
        yield missing("folded cells", method, reason, unit="cells")
