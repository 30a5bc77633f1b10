"""One pass of one case: everybody's times in shared rounds, errors against float64, the floor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bench.cases import FORWARD, TO_FIELD, Case, inputs_of, truth, weights_of
from bench.contenders import OURS, Contender, contenders_of, installed, make
from bench.peak import cpu_peak, gpu_peak
from bench.timing import Array, paired_ratio, quartiles, rounds_of, streaming_add
from cardiogen import ops

FLOOR, ONE_THREAD, TWO_THREADS = "memory floor", "cardiogen, 1 thread", "cardiogen, 2 threads"
SCALED = (("warp 128³", FORWARD), ("warp 128³", TO_FIELD), ("svf 96³", FORWARD),
          ("svf 96³", TO_FIELD))  # fmt: skip
_PEAKS = {"warp 128³", "svf 96³", "svf 160³"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        quick: small sizes; numbers mean nothing.
        rounds: most rounds.
        budget_s: time of one contender in one pass.
        memory: whether to measure peak memory.
    """

    device: str
    quick: bool
    rounds: int
    budget_s: float
    memory: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender in one pass of one case; None is what was not or cannot be measured.

    ``speedup`` is its time over ours in the same rounds (above 1: ours is faster), ``max_error``
    and ``relative_error`` (L2) are against the reference in float64, ``peak_mib`` is above the
    inputs and ``peak_fields`` the same in displacements, ``gb_per_s`` counts what the warp must
    move.
    """

    case: str
    shape: str
    pass_name: str
    contender: str
    rounds: int
    median_ms: float
    lower_quartile_ms: float
    upper_quartile_ms: float
    speedup: float
    speedup_lower_quartile: float
    speedup_upper_quartile: float
    max_error: float | None = None
    relative_error: float | None = None
    gb_per_s: float | None = None
    peak_mib: float | None = None
    peak_fields: float | None = None


def measure(case: Case, pass_name: str, settings: Settings) -> Iterator[Row]:
    """Yield the rows of one pass of a case."""
    leaf = dict(case.leaves)[pass_name]
    inputs = inputs_of(case, settings.device)
    weights = weights_of(case, inputs, settings.device) if leaf is not None else None
    names = [n for n in contenders_of(case, pass_name, settings.device) if installed(n)]
    contenders = {name: make(name, case, inputs) for name in names}
    errors = _errors(case, contenders, inputs, leaf, weights)

    actions = {name: partial(c.call, leaf, weights) for name, c in contenders.items()}
    floor = case.operator == "warp" and leaf is None
    if floor:
        actions[FLOOR] = streaming_add(case.voxels, settings.device)
    times = rounds_of(
        actions, device=settings.device, rounds=settings.rounds, budget_s=settings.budget_s
    )
    if floor:
        times[FLOOR] *= case.floats / 3
    for name, seconds in times.items():
        found: dict[str, float | None] = dict(errors.get(name, {}))
        if floor:
            moved = 4 * case.floats * case.voxels
            found["gb_per_s"] = moved / quartiles(seconds)[1] / 1e9
        if name in contenders:
            found |= _peak(case, pass_name, contenders[name], name, weights, settings)
        yield _row(case, pass_name, name, seconds, times[OURS], **found)


def scaling(case: Case, pass_name: str, settings: Settings) -> Iterator[Row]:
    """Yield our rows on one and on two threads; their speedup is that of two threads."""
    leaf = dict(case.leaves)[pass_name]
    inputs = inputs_of(case, settings.device)
    weights = weights_of(case, inputs, settings.device) if leaf is not None else None
    call = partial(make(OURS, case, inputs).call, leaf, weights)

    def switch(threads: int) -> None:
        # The untimed call wakes the threads that the timed one will use.
        torch.set_num_threads(threads)
        call()

    before = {ONE_THREAD: partial(switch, 1), TWO_THREADS: partial(switch, 2)}
    usual = torch.get_num_threads()
    try:
        times = rounds_of(
            dict.fromkeys(before, call), device="cpu", rounds=settings.rounds,
            budget_s=settings.budget_s, before=before,
        )  # fmt: skip
    finally:
        torch.set_num_threads(usual)
    for name, seconds in times.items():
        yield _row(case, pass_name, name, seconds, times[TWO_THREADS])


def _row(
    case: Case, pass_name: str, name: str, seconds: Array, ours: Array, **found: float | None
) -> Row:
    low, middle, high = (1000 * value for value in quartiles(seconds))
    ratio_low, ratio, ratio_high = paired_ratio(seconds, ours)
    shape = "x".join(map(str, (case.fields, *case.shape)))

    return Row(
        case=case.name, shape=shape, pass_name=pass_name, contender=name,
        rounds=int((~np.isnan(seconds)).sum()), median_ms=middle, lower_quartile_ms=low,
        upper_quartile_ms=high, speedup=ratio, speedup_lower_quartile=ratio_low,
        speedup_upper_quartile=ratio_high, **found,
    )  # fmt: skip


def _errors(
    case: Case,
    contenders: dict[str, Contender],
    inputs: tuple[Tensor, ...],
    leaf: int | None,
    weights: Tensor | None,
) -> dict[str, dict[str, float]]:
    """Return the errors of everybody whose result can be compared."""
    expected = truth(case, inputs, leaf, weights)
    errors = {}
    for name, contender in contenders.items():
        if leaf is not None and leaf not in contender.exact:
            continue
        result = contender.call(leaf, weights)
        found = result if leaf is not None else contender.read(result)
        difference = found.detach().cpu().double() - expected
        if contender.inside:
            difference = difference * _inside(inputs[1]).cpu()
        errors[name] = {
            "max_error": float(difference.abs().max()),
            "relative_error": float(difference.norm() / expected.norm()),
        }

    return errors


def _inside(displacement: Tensor) -> Tensor:
    """Return 1 where a voxel reads inside the image, else 0, ``(B, 1, *S)``."""
    coords = ops.displaced_coords(displacement)
    axes = zip(coords.unbind(1), displacement.shape[2:], strict=True)

    return torch.stack([(c >= 0) & (c <= n - 1) for c, n in axes], dim=1).all(1, keepdim=True)


def _peak(
    case: Case,
    pass_name: str,
    contender: Contender,
    name: str,
    weights: Tensor | None,
    settings: Settings,
) -> dict[str, float]:
    wanted = case.name in _PEAKS and pass_name in (FORWARD, TO_FIELD)
    # Every peak costs a process; a quick run tries one contender.
    wanted = wanted and (name == OURS or not settings.quick)
    if not (settings.memory and wanted and contender.differentiable):
        return {}
    if settings.device == "cuda":
        found: int | None = gpu_peak(contender, dict(case.leaves)[pass_name], weights)
    else:
        found = cpu_peak(case, pass_name, name, quick=settings.quick)

    if found is None:
        return {}

    return {
        "peak_mib": found / 2**20,
        "peak_fields": found / (4 * len(case.shape) * case.voxels),
    }
