"""Adapt a deformation model to real patients and predict end systole of those left out.

Every patient's ED and ES label maps are encoded once. For each patient the model is adapted to all
others, is shown the ED map alone (and told the disease group, ``--group``), and predicts ES.
Prints Dice and ASSD at ES, those of the label map with the largest expected Dice over draws
(``best``, as of ``cardiogen complete --overlap``), errors of the ejection fractions, how many true
ones lie in the 90 % interval, and the Dice of encoding itself.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench.end_systole import overlap_row
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.cohort import load_sequence, read_cohort
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.overlap import dice
from cardiogen.measure.volumes import STRUCTURES, label_volumes
from cardiogen.models.deformation.cohort import (
    ejection_fractions,
    encode_cohort,
    observed_codes,
)
from cardiogen.models.deformation.cohort_model import adapt
from cardiogen.models.deformation.encoding import EncodedHeart
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.deformation.patients import encoded_posterior
from cardiogen.models.protocol import Posterior, encode_condition
from cardiogen.models.store import load_model
from cardiogen.population.render import render_labels
from cardiogen.synthesis import labels_of_draws

CHAMBERS = (Structure.LV, Structure.RV)
_BATCH, _DRAWS = 20, 40


def encoding_row(model: DeformationModel, truth: Sequence, heart: EncodedHeart) -> dict:
    """Return the Dice of an encoded heart with its own label maps."""
    topology = model.topology.mirrored() if heart.pose.mirrored else model.topology
    meshes = heart.meshes(model.decoder)
    row: dict[str, object] = {"subject": truth.subject_id}
    for name, frame in (("ED", truth.ed), ("ES", truth.es)):
        again = render_labels(meshes[frame], topology, truth.grid)
        row |= {f"{name} {s.name}": dice(again == s, truth.labels[frame] == s) for s in STRUCTURES}
    return row


def prediction_row(
    model: DeformationModel, truth: Sequence, posterior: Posterior, *, samples: int
) -> dict:
    """Return how a prediction of ES compares with the truth."""
    own, latent = posterior.own, posterior.latents.mean
    topology = model.topology.mirrored() if posterior.pose.mirrored else model.topology
    systole = own.end_systole(latent)
    meshes = posterior.pose.to_world(own.decode(latent, [0.0, systole]))
    guess = render_labels(meshes[1], topology, truth.grid)
    best = guess
    if samples:
        mean = truth.with_(labels=None, images=None, vertices=meshes[1:], topology=topology,
                           phases=np.array([systole]), ed=0, es=None)  # fmt: skip
        best = labels_of_draws(draws(own, mean, posterior), truth.grid)[0]
    ed, es = truth.labels[truth.ed], truth.labels[truth.es]
    row: dict[str, object] = {"subject": truth.subject_id}
    for kind, labels in (("", guess), (" best", best)):
        row |= overlap_row(labels, es, truth.grid.spacing, kind=kind)
    volumes = label_volumes(np.stack([ed, guess, es]), truth.grid)
    low, high = np.full((2, 2), np.nan)
    if samples:
        low, high = np.quantile(ejections(own, posterior, samples), [0.05, 0.95], axis=0)
    for k, chamber in enumerate(CHAMBERS):
        v = volumes[chamber]
        name = f"{chamber.name}EF"
        row[name], row[f"{name} true"] = 100 * (1 - v[1] / v[0]), 100 * (1 - v[2] / v[0])
        row[f"{name} low"], row[f"{name} high"] = low[k], high[k]
    return row


def draws(model: DeformationModel, mean: Sequence, posterior: Posterior) -> list[Sequence]:
    """Return draws of a completed heart at the phases of its mean."""
    generators = [torch.Generator().manual_seed(k) for k in range(_DRAWS)]
    meshes = [model.decode(posterior.latents.sample(g), mean.phases) for g in generators]

    return [mean.with_(vertices=posterior.pose.to_world(m)) for m in meshes]


@torch.no_grad()
def ejections(model: DeformationModel, posterior: Posterior, count: int) -> NDArray[np.float64]:
    """Return LVEF and RVEF, %, of draws ``(count, 2)``; an adapted model's latents are scores."""
    generators = [torch.Generator().manual_seed(k) for k in range(count)]
    latents = torch.stack([posterior.latents.sample(g) for g in generators]).float()
    found = [
        100 * ejection_fractions(meshes, model.topology)
        for part in latents.split(_BATCH)
        for meshes in model.decoder.meshes(part, np.r_[0.0, 0.25:0.6:0.05]).double().numpy()
    ]
    return np.stack(found)


def summary(rows: pd.DataFrame) -> pd.Series:
    """Return means, EF errors, correlations and coverage."""
    found = rows.filter(regex="^(Dice|ASSD)").mean()
    for name in ("LVEF", "RVEF"):
        truth = rows[f"{name} true"]
        found[f"{name} MAE"] = (rows[name] - truth).abs().mean()
        found[f"{name} bias"] = (rows[name] - truth).mean()
        found[f"{name} r"] = rows[name].corr(truth)
        inside = (rows[f"{name} low"] <= truth) & (truth <= rows[f"{name} high"])
        found[f"{name} 90 % covers"] = 100 * inside.mean()
    return found


def left_out(
    model: DeformationModel,
    hearts: list[EncodedHeart],
    truths: list[Sequence],
    *,
    grouped: bool,
    samples: int,
) -> pd.DataFrame:
    """Return a row for each patient, predicted from the others, its group known or not."""
    codes = observed_codes(model, list(zip(truths, hearts, strict=True)))
    rows = []
    for k, truth in enumerate(progress(truths, "leaving patients out")):
        adapted = adapt(model, codes.of([i for i in range(len(truths)) if i != k]))
        ed = [hearts[k].ed_frame]
        still = replace(hearts[k], motion=hearts[k].motion[ed], phases=hearts[k].phases[ed])
        condition = encode_condition(truth.factors or Factors())
        group = truth.group if grouped else None
        posterior = encoded_posterior(adapted, still, condition, group=group)
        rows.append(prediction_row(adapted, truth, posterior, samples=samples))
    return pd.DataFrame(rows)


def main() -> None:
    """Run on a cohort with ED and ES label maps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path, help="folder, e.g. ../shared/data/acdc_dev25")
    parser.add_argument("--model", default="deformation", help="bundle; default: the shipped one")
    parser.add_argument("--every", type=int, default=1, help="take every k-th patient")
    parser.add_argument("--samples", type=int, default=240, help="draws for the intervals")
    parser.add_argument("--group", action="store_true", help="tell the patient's disease group")
    parser.add_argument("--out", type=Path, help="CSV with a row for each patient")
    options = parser.parse_args()
    model = load_model(options.model).model
    subjects = read_cohort(options.cohort)[:: options.every]
    found, refused = encode_cohort(model, [load_sequence(subject) for subject in subjects])
    for truth, error in refused:
        print(f"not encoded: {truth.subject_id}: {error}")
    truths, hearts = [truth for truth, _ in found], [heart for _, heart in found]
    for text in dict.fromkeys(n.text for truth in truths for n in truth.notes if n.code == "L63"):
        print(f"left and right: {text}")
    encoded = pd.DataFrame(
        [encoding_row(model, truth, heart) for truth, heart in zip(truths, hearts, strict=True)]
    )
    print("encoding:")
    print(encoded.drop(columns="subject").agg(["mean", "min"]).round(3).to_string())
    rows = left_out(model, hearts, truths, grouped=options.group, samples=options.samples)
    if options.out is not None:
        rows.merge(encoded, on="subject").to_csv(options.out, index=False)
    print("end systole of patients left out, given end diastole:")
    print(summary(rows).round(3).to_string())


if __name__ == "__main__":
    main()
