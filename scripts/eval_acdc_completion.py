"""Complete the cycle of real patients from their ED label map and compare with their ES map.

Prints Dice and ASSD at ES and the errors of LVEF and RVEF for copying ED, for the mean motion of
the shipped linear model and for a model given the ED map, with the model's own heart at ED beside
them. No model has seen any patient.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from bench.end_systole import overlap_row
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.cohort import load_sequence, read_cohort
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.engine.fit_template import fit_template
from cardiogen.measure.overlap import dice
from cardiogen.measure.volumes import STRUCTURES, label_volumes
from cardiogen.models.linear import LinearModel
from cardiogen.models.protocol import AnatomyModel, encode_condition
from cardiogen.models.store import load_model
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.render import render_labels
from cardiogen.synthesis import decode_sequence


def compare(name: str, guess: NDArray[np.uint8], ed: NDArray[np.uint8], truth: Sequence) -> dict:
    """Return one row: overlap and distances of a guess at ES with the truth, EF errors."""
    es = truth.labels[truth.es]
    row: dict[str, object] = {"method": name, "subject": truth.subject_id}
    row |= overlap_row(guess, es, truth.grid.spacing)
    volumes = label_volumes(np.stack([ed, guess, truth.labels[truth.ed], es]), truth.grid)
    for chamber in (Structure.LV, Structure.RV):
        v = volumes[chamber]
        row[f"{chamber.name}EF"] = 100 * (1 - v[1] / v[0])
        row[f"{chamber.name}EF true"] = 100 * (1 - v[3] / v[2])
    return row


def complete_patient(truth: Sequence, model: AnatomyModel, linear: LinearModel) -> list[dict]:
    """Return the rows of one patient."""
    ed_map = truth.labels[truth.ed]
    observed = truth.with_(
        phases=np.zeros(1), labels=truth.labels[truth.ed : truth.ed + 1], ed=0, es=None
    )
    posterior = model.posterior(observed, encode_condition(Factors()))
    latent, own = posterior.latents.mean, posterior.own or model
    cycle = decode_sequence(own, latent, [0.0, own.end_systole(latent)], pose=posterior.pose)
    ed, es = (render_labels(v, cycle.topology, truth.grid) for v in cycle.vertices)
    rows = [
        compare("copy ED", ed_map, ed_map, truth),
        compare("mean motion", *mean_motion(truth, linear)[::-1], truth),
        compare("model given ED", es, ed, truth),
    ]
    fit = {"method": "model at ED", "subject": truth.subject_id}
    fit |= {f"Dice {s.name}": dice(ed == s, ed_map == s) for s in STRUCTURES}
    return [*rows, fit]


def mean_motion(truth: Sequence, model: LinearModel) -> NDArray[np.uint8]:
    """Return ED and ES maps of the template fitted to ED and moved as the average heart moves."""
    fit = fit_template(truth.labels[truth.ed], truth.grid, orientation=truth.orientation)
    average = model.prior(encode_condition(Factors())).mean
    moving = model.coordinates(average, [0.0, model.end_systole(average)])
    vertices = fit.pose.to_world(heart_vertices(fit.z + moving - moving[0]))
    return np.stack([render_labels(v, model.topology, truth.grid) for v in vertices])


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means over patients, EF mean absolute errors and correlations."""
    table = []
    for name, part in rows.groupby("method", sort=False):
        line = {"method": name, **part.filter(regex="Dice|ASSD").mean().round(3)}
        for chamber in ("LV", "RV") if "LVEF" in part and part["LVEF"].notna().any() else ():
            error = part[f"{chamber}EF"] - part[f"{chamber}EF true"]
            line[f"{chamber}EF MAE"] = round(float(error.abs().mean()), 1)
            line[f"{chamber}EF r"] = part[f"{chamber}EF"].corr(part[f"{chamber}EF true"])
        table.append(line)
    return pd.DataFrame(table)


def main() -> None:
    """Run on a cohort with ED and ES label maps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cohort", type=Path, help="folder, e.g. ../shared/data/acdc_dev25")
    parser.add_argument("--model", type=Path, help="bundle; default: the one shipped")
    parser.add_argument("--every", type=int, default=1, help="take every k-th patient")
    parser.add_argument("--out", type=Path, help="CSV with a row for each patient and method")
    options = parser.parse_args()
    model, linear = load_model(options.model).model, load_model("linear").model
    subjects = read_cohort(options.cohort)[:: options.every]
    rows = [
        row
        for subject in progress(subjects, "completing")
        for row in complete_patient(load_sequence(subject), model, linear)
    ]
    table = pd.DataFrame(rows)
    if options.out is not None:
        table.to_csv(options.out, index=False)
    with pd.option_context("display.width", 250, "display.max_columns", 30):
        print(summarize(table).to_string(index=False, float_format=lambda x: f"{x:.3f}"))


if __name__ == "__main__":
    main()
