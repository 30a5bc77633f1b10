"""Normative score of real patients: is disease seen, and are healthy patients left alone?

Every patient is observed at end diastole, with the factors that the cohort tells, and taken for
one of the model's healthy hearts. The healthy of a hospital are not the model's own: their rate of
p <= .05 says how far apart the two are, and has no bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cardiogen.base import CardiogenError, progress
from cardiogen.data.factors import Factors
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.lines import Array, Line, Result, estimated, missing
from cardiogen.evaluate.patients import end_diastole
from cardiogen.evaluate.score import observed_deviations, unscorable
from cardiogen.evaluate.settings import Size
from cardiogen.measure.distribution import auroc, bootstrap, false_positive_rate
from cardiogen.models.normative import LatentParts, latent_parts
from cardiogen.models.protocol import AnatomyModel, AnyModel, encode_condition

HEALTHY = ("nor", "normal", "healthy", "control", "controls")
_FEWEST = 2


def patient_score(
    patients: Sequence[Heart], models: Mapping[str, AnyModel], size: Size, *, seed: int
) -> Result:
    """Return the rate of false positives among healthy patients and the AUROC of every group."""
    groups = [patient.group or "" for patient in patients]
    healthy = [group.lower() in HEALTHY for group in groups]
    if sum(healthy) < _FEWEST or all(healthy):
        reason = (
            f"needs {_FEWEST} patients of a healthy group ({', '.join(HEALTHY)}) and others, got "
            f"{sum(healthy)} of {len(patients)}"
        )
        return Result(reason=reason)
    lines: list[Line] = []
    for name, model in models.items():
        if reason := unscorable(model):
            lines.append(missing("AUROC", name, reason))
            continue
        parts = latent_parts(model, model.prior(encode_condition(Factors())).mean)
        rows = np.array([_row(model, parts, p) for p in progress(patients, "scoring patients")])
        lines += _judge(name, rows, np.array(groups), np.array(healthy), size, seed)

    return Result(tuple(lines))


def _row(model: AnatomyModel, parts: LatentParts, patient: Heart) -> list[float]:
    """Return the deviation of a patient and its p-value; NaN where the model refuses."""
    seen, factors = end_diastole(patient), patient.factors or Factors()
    try:
        deviation, p = observed_deviations(model, parts, seen, factors)
    except CardiogenError:
        return [np.nan, np.nan]

    return [float(deviation[0]), float(p[0])]


def _judge(
    method: str, rows: Array, groups: Array, healthy: Array, size: Size, seed: int
) -> Iterator[Line]:
    there = np.isfinite(rows).all(axis=1)
    well = rows[healthy & there]
    facts = {"count": len(well), "failures": int((healthy & ~there).sum())}
    if len(well) < _FEWEST:
        yield missing("AUROC", method, "fewer than 2 healthy patients", **facts)
        return
    yield estimated("false positives at p <= .05", method, false_positive_rate(well[:, 1]),
                    of="healthy patients, by the model's expectation", **facts)  # fmt: skip
    for group in sorted(set(groups[~healthy])):
        inside = groups == group
        ill = rows[inside & there]
        of = f"{group or 'no group'} against healthy patients"
        facts = {"count": len(ill), "failures": int((inside & ~there).sum())}
        if len(ill) < _FEWEST:
            yield missing("AUROC", method, "fewer than 2 patients", of=of, **facts)
            continue
        area = bootstrap(auroc, ill[:, 0], well[:, 0], independent=True, draws=size.resamples,
                         seed=seed)  # fmt: skip
        yield estimated("AUROC", method, area, of=of, **facts)
