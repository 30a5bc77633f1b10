"""Motion: does the left ventricle fill and empty over the cycle as real ones do?

Volumes come from meshes or label maps, whatever a model decodes. The jerk is the root mean square
third difference of the LV volume over the cycle, in stroke volumes per cycle cubed: a curve that
trembles, as volumes of voxels do, has more than real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cardiogen.data.labels import Structure
from cardiogen.evaluate.cycles import Cycle, Cycles
from cardiogen.evaluate.lines import Array, Band, Line, Result, estimated, mean_line, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure.cycle_validity import check_cycle
from cardiogen.measure.distribution import Estimate, bootstrap, share_interval
from cardiogen.measure.volumes import end_of_ejection, sequence_volumes

SYSTOLE: Band = (0.30, 0.40)
JERK: Band = (0.8, 1.25)
_LEAST_FRAMES = 17
_MOST: Band = (0.95, None)


def motion(cycles: Cycles, size: Size, *, seed: int) -> Result:
    """Return minima, phase of end systole, jerk and asymmetry of volume curves."""
    if size.frames < _LEAST_FRAMES:
        return Result(reason=f"motion is judged from {_LEAST_FRAMES} frames on: {size.frames}")
    real = np.array([_jerk(c.heart.phases, _curve(c)) for c in cycles["real"]])
    lines: list[Line] = []
    for name, hearts in cycles.items():
        made = [c for c in hearts if c is not None]
        facts = {"count": len(made), "failures": len(hearts) - len(made)}
        if len(made) < 2 or len(made[0].heart) < _LEAST_FRAMES:
            few = len(made) < 2
            reason = "fewer than 2 hearts" if few else "this model knows two phases alone"
            lines.append(missing("one minimum of LV volume", name, reason, **facts))
            continue
        lines += _judge(made, name, real, facts, size, seed)

    return Result(tuple(lines))


def _curve(cycle: Cycle) -> Array:
    """Return the LV volume ``(T,)`` mL."""
    source = "labels" if cycle.heart.vertices is None else "mesh"
    return sequence_volumes(cycle.heart, source=source)[Structure.LV]


def _judge(
    made: Sequence[Cycle], method: str, real: Array, facts: dict, size: Size, seed: int
) -> Iterator[Line]:
    options = {"resamples": size.resamples, "seed": seed}
    several = sum(any(v.rule == "one-minimum" for v in check_cycle(c.heart)) for c in made)
    share = share_interval(len(made) - several, len(made))
    yield estimated("one minimum of LV volume", method, share, wanted=_MOST, **facts)
    curves = [(c.heart.phases, _curve(c)) for c in made]
    systoles = [phases[end_of_ejection(lv, full_ml=lv[0])] for phases, lv in curves]
    yield mean_line("phase of end systole", method, systoles, wanted=SYSTOLE, **options)
    speeds = [_asymmetry(lv) for _, lv in curves]
    yield mean_line("fastest ejection over fastest filling", method, speeds, **options)
    jerks = np.array([_jerk(phases, lv) for phases, lv in curves])
    found = bootstrap(
        lambda a, b: float(a.mean() / b.mean()), jerks, real, independent=True,
        draws=size.resamples, seed=seed,
    )  # fmt: skip
    if method == "real":
        found = Estimate(1.0, found.low, found.high)
    yield estimated("jerk over real", method, found, wanted=JERK, **facts)


def _jerk(phases: Array, lv: Array) -> float:
    """Return the root mean square third derivative around the cycle, frames equally apart."""
    around = np.concatenate([lv, lv[:3]])
    step = phases[1] - phases[0]
    return float(np.sqrt((np.diff(around, n=3) ** 2).mean()) / np.ptp(lv) / step**3)


def _asymmetry(lv: Array) -> float:
    steps = np.diff(np.append(lv, lv[0]))
    return float(-steps.min() / steps.max()) if steps.max() > 0 else float("nan")
