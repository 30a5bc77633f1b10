"""Ageing: does the same heart at another age differ as people of that age do, and stay itself?

Hearts of 40 years, age and sex known, are moved to 70 by ``models.counterfactual`` (models of
label maps exchange the code of the condition). All of it is cross-sectional: the change is held
against that of the published means between these ages. Identity is kept if a moved heart is nearer
to itself than to any other, once the mean of its age and sex is taken out: in the vertices at ED
or, of label maps, in phenotypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cardiogen.base import keyed_seed, progress
from cardiogen.data.factors import Factors
from cardiogen.evaluate.ends import MEASURES, Array, Ends, latent_ends
from cardiogen.evaluate.lines import Band, Line, Result, estimated, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure.distribution import bootstrap, share_interval
from cardiogen.measure.reference import reference
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.counterfactual import counterfactual
from cardiogen.models.protocol import AnyModel, encode_condition, gives_labels

FROM, TO = 40.0, 70.0
CHANGE: Band = (-0.2, 0.2)
KEPT_SHARE: Band = (0.95, None)
_SHOWN = ("LVEDV (mL)", "LVEF (%)", "LVM (g)", "RVEDV (mL)")
_LEAST = 4  # hearts of a sex

# Latent, condition that it has, condition that it shall have -> latent.
Move = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Aged:
    """Hearts at both ages and the largest change of a latent on the way there and back."""

    sexes: tuple[str, ...]
    young: tuple[Ends, ...]
    old: tuple[Ends, ...]
    round_trip: float
    failures: int


def ageing(models: Mapping[str, AnyModel], size: Size, *, seed: int) -> Result:
    """Return changes from 40 to 70 years, identity, and what a round trip leaves."""
    lines: list[Line] = []
    for name, model in models.items():
        move = _mover(model)
        if move is None:
            reason = "latents given the factors are neither Gaussian nor coded: nothing moves them"
            lines.append(missing("change from 40 to 70 years, minus HHC's", name, reason))
            continue
        aged = _aged(model, move, size.aged, seed)
        lines += [*_changes(aged, name, size, seed), *_identity(aged, name)]

    return Result(tuple(lines))


def _mover(model: AnyModel) -> Move | None:
    if gives_labels(model):
        return lambda z, _given, wanted: model.with_condition(z, wanted)
    latents = getattr(model, "latents", None)
    if isinstance(latents, ConditionalGaussian):
        return lambda z, given, wanted: counterfactual(latents, z, given=given, wanted=wanted)
    return None


def _aged(model: AnyModel, move: Move, count: int, seed: int) -> Aged:
    kept, away = [], 0.0
    for index in progress(range(count), "ageing hearts"):
        sex = "FM"[index % 2]
        young, old = (encode_condition(Factors(age=age, sex=sex)) for age in (FROM, TO))
        generator = torch.Generator().manual_seed(keyed_seed(seed, "evaluate/ageing", index))
        latent = model.prior(young).sample(generator)
        moved = move(latent, young, old)
        away = max(away, float((move(moved, old, young) - latent).abs().max()))
        both = latent_ends(model, latent), latent_ends(model, moved)
        if both[0] is not None and both[1] is not None:
            kept.append((sex, *both))
    sexes, first, second = zip(*kept, strict=True) if kept else ((), (), ())
    return Aged(sexes, first, second, away, count - len(kept))


def _changes(aged: Aged, method: str, size: Size, seed: int) -> Iterator[Line]:
    metric = "change from 40 to 70 years, minus HHC's"
    for sex in "FM":
        members = [k for k, s in enumerate(aged.sexes) if s == sex]
        facts = {"count": len(members), "failures": aged.failures}
        if len(members) < _LEAST:
            yield missing(metric, method, f"fewer than {_LEAST} hearts", of=sex, **facts)
            continue
        change = np.array([aged.old[k].row - aged.young[k].row for k in members])
        for measure in _SHOWN:
            before, after = (reference(measure, sex=sex, age=age) for age in (FROM, TO))
            apart = change[:, MEASURES.index(measure)] - (after.mean - before.mean)
            found = bootstrap(
                lambda x: float(x.mean()), apart / before.sd, draws=size.resamples, seed=seed
            )
            yield estimated(metric, method, found, of=f"{measure}, {sex}", unit="SD",
                            wanted=CHANGE, **facts)  # fmt: skip


def _identity(aged: Aged, method: str) -> Iterator[Line]:
    count = len(aged.young)
    facts = {"count": count, "failures": aged.failures}
    yield Line("round trip of latents", method, aged.round_trip, wanted=(0, 1e-6), **facts)
    if count < _LEAST:
        yield missing("hearts that stay themselves", method, "too few hearts", **facts)
        return
    distances, what = _distances(aged)
    itself = int((distances.argmin(axis=1) == np.arange(count)).sum())
    yield estimated("hearts that stay themselves", method, share_interval(itself, count),
                    of=what, wanted=KEPT_SHARE, **facts)  # fmt: skip
    own = distances.diagonal().mean()
    others = (distances.sum() - distances.trace()) / (count * (count - 1))
    yield Line("distance to itself over others", method, float(own / others), of=what, **facts)


def _distances(aged: Aged) -> tuple[Array, str]:
    """Return how far hearts of 70 are from hearts of 40 ``(N, N)``, and in what."""
    from scipy.spatial.distance import cdist

    both = (aged.old, aged.young)
    if aged.young[0].vertices is not None:
        tables = [np.stack([e.vertices[0].reshape(-1) for e in ends]) for ends in both]
        what = "meshes at ED"
    else:
        tables = [np.stack([e.row[: len(MEASURES)] for e in ends]) for ends in both]
        spread = np.maximum(tables[1].std(axis=0), 1e-9)
        tables = [table / spread for table in tables]
        what = "phenotypes"
    for table in tables:
        for sex in set(aged.sexes):
            members = np.array([s == sex for s in aged.sexes])
            table[members] -= table[members].mean(axis=0)

    return cdist(*tables), what
