"""Normative score: healthy hearts that are called deviant, and disease that is seen.

Hearts are observed at end diastole on a clinical stack, all factors known. The rate of p <= .05 is
by the model's own expectation, which needs no reference hearts; ``cardiogen score`` ranks among
some, so that its rate is 5 % by construction. Disease is healthy hearts with changed phenotypes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from cardiogen.base import CardiogenError, progress
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.ends import Array
from cardiogen.evaluate.hearts import held_out
from cardiogen.evaluate.lines import Band, Line, Result, estimated, missing
from cardiogen.evaluate.settings import Size
from cardiogen.measure.distribution import (
    auroc,
    bootstrap,
    conformal_p_values,
    false_positive_rate,
)
from cardiogen.measure.volumes import MYOCARDIAL_DENSITY
from cardiogen.models.conditional import ConditionalGaussian
from cardiogen.models.normative import (
    LatentParts,
    Setting,
    expected_deviations,
    latent_parts,
    observe,
    score_posterior,
)
from cardiogen.models.protocol import AnatomyModel, AnyModel, encode_condition, gives_labels
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.coordinates import COORDINATES
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.render import short_axis_grid

DISEASES = {"dcm": "dilated", "hcm": "thick", "rv": "wide right ventricle"}
FALSE_POSITIVES: Band = (0.0, 0.07)
_SPACING_MM = (8.0, 1.5, 1.5)
_EXPECTED = 999  # draws of what the model expects of healthy hearts


def score(models: Mapping[str, AnyModel], size: Size, *, seed: int) -> Result:
    """Return the rate of false positives and the AUROC of every disease."""
    lines: list[Line] = []
    for name, model in models.items():
        if reason := unscorable(model):
            lines.append(missing("false positives at p <= .05", name, reason))
            continue
        try:
            lines += _judge(model, name, size, seed)
        except np.linalg.LinAlgError:
            reason = "no latent changes the volumes at ED: no deviation in size"
            lines.append(missing("false positives at p <= .05", name, reason))

    return Result(tuple(lines))


def unscorable(model: AnyModel) -> str:
    """Return why a model cannot tell how normal a heart is; empty where it can."""
    gaussian = isinstance(getattr(model, "latents", None), ConditionalGaussian)
    if gives_labels(model) or not gaussian:
        return "the score needs meshes and Gaussian latents given the factors"

    return ""


def _judge(model: AnatomyModel, method: str, size: Size, seed: int) -> Iterator[Line]:
    parts = latent_parts(model, model.prior(encode_condition(Factors())).mean)
    counts = {"healthy": size.scored} | dict.fromkeys(DISEASES, max(2, size.scored // 2))
    rows = {
        kind: np.array([
            _row(model, parts, diseased(held_out(seed, f"score/{kind}", i), kind))
            for i in progress(range(count), f"scoring {kind}")
        ])
        for kind, count in counts.items()
    }  # fmt: skip
    there = {kind: np.isfinite(table).all(axis=1) for kind, table in rows.items()}
    healthy = rows["healthy"][there["healthy"]]
    facts = {"count": len(healthy), "failures": int((~there["healthy"]).sum())}
    if len(healthy) < 2:
        yield missing("false positives at p <= .05", method, "fewer than 2 hearts", **facts)
        return
    rate = false_positive_rate(healthy[:, -1])
    yield estimated("false positives at p <= .05", method, rate, of="by the model's expectation",
                    wanted=FALSE_POSITIVES, **facts)  # fmt: skip
    for kind, text in DISEASES.items():
        ill = rows[kind][there[kind]]
        facts = {"count": len(ill), "failures": int((~there[kind]).sum())}
        if len(ill) < 2:
            yield missing("AUROC", method, "fewer than 2 hearts", of=text, **facts)
            continue
        area = bootstrap(auroc, ill[:, 0], healthy[:, 0], independent=True,
                         draws=size.resamples, seed=seed)  # fmt: skip
        yield estimated("AUROC", method, area, of=text, **facts)


def _row(model: AnatomyModel, parts: LatentParts, heart: PopulationHeart) -> list[float]:
    try:
        deviation, p = deviations(model, parts, heart, [0.0])
    except CardiogenError:
        return [np.nan, np.nan]
    return [float(deviation[0]), float(p[0])]


def deviations(
    model: AnatomyModel, parts: LatentParts, heart: PopulationHeart, phases: list[float]
) -> tuple[Array, Array]:
    """Return the deviations of one heart ``(4,)`` and their p-values as the model expects them."""
    inside = heart_vertices(heart.coordinates(phases))
    grid = short_axis_grid(heart.pose.to_world(inside), heart.pose, _SPACING_MM)
    setting = Setting(factors=heart.factors, grid=grid, pose=heart.pose, phases=np.array(phases))

    return observed_deviations(model, parts, observe(heart, setting), heart.factors)


def observed_deviations(
    model: AnatomyModel, parts: LatentParts, seen: Heart, factors: Factors
) -> tuple[Array, Array]:
    """Return the deviations of label maps ``(4,)`` and their p-values as the model expects them.

    Raises:
        CardiogenError: L.. for label maps without a whole heart, M21 for a model that was adapted
            to a cohort.
    """
    condition = encode_condition(factors)
    posterior = model.posterior(seen, condition, healthy=True)
    found = score_posterior(model, posterior, condition, parts)
    expected = expected_deviations(model, posterior, condition, parts, draws=_EXPECTED, seed=0)
    p = [float(conformal_p_values([x], e)[0]) for x, e in zip(found, expected.T, strict=True)]

    return np.asarray(found), np.array(p)


def diseased(heart: PopulationHeart, kind: str) -> PopulationHeart:
    """Return the heart with the phenotypes of a disease; of other kinds as it is.

    ``dcm``: LVEDV x 1.35, LVEF 40 %, mass x 1.15; ``hcm``: mass x 1.35, LVEDV x .95; ``rv``: RVEDV
    x 1.3 with the stroke volume kept.
    """
    p = heart.phenotypes
    if kind == "dcm":
        p = replace(p, lvedv=1.35 * p.lvedv, lvesv=0.6 * 1.35 * p.lvedv, lvm=1.15 * p.lvm)
    elif kind == "hcm":
        p = replace(p, lvedv=0.95 * p.lvedv, lvesv=0.95 * p.lvesv, lvm=1.35 * p.lvm)
    elif kind == "rv":
        p = replace(p, rvedv=1.3 * p.rvedv, rvesv=p.rvesv + 0.3 * p.rvedv)
    ed = heart.ed.copy()
    ed[COORDINATES["log_volume"]] = np.log([p.lvedv, p.lvm / MYOCARDIAL_DENSITY, p.rvedv])
    # A dilated ventricle is longer too, as larger healthy ones are.
    ed[COORDINATES["log_focal"]] += 0.36 * np.log(p.lvedv / heart.phenotypes.lvedv)

    return replace(heart, phenotypes=p, ed=ed)
