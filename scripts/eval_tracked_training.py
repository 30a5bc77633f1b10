"""Does a model learn as much from tracked cines as from the true motion of the same hearts?

    python scripts/eval_tracked_training.py --hearts 40 --test 20

Cines of the reference population are rendered and tracked from their label map at ED (images in,
no true motion used). Two deformation models are trained alike, on the tracked meshes and on the
true ones. Both see the ED label map and the factors of unseen hearts and predict end systole;
prints the distance of its vertices from the truth, beside that of a heart that does not move.
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from bench.augment_loop import Plan, Tracked, learn_model, loop_heart, track_cines
from bench.help_report import interval
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data import Sequence
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.protocol import encode_condition
from cardiogen.population import sample_heart, short_axis_grid, template_topology
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.render import render_labels

Array = NDArray[np.float64]

_FIRST_UNSEEN = 2_000_000
_SPACING_MM = (8.0, 2.0, 2.0)
_WITHIN = 1.10


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hearts", type=int, default=40, help="cines to track; 40 at least")
    parser.add_argument("--test", type=int, default=20, help="unseen hearts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    return parser.parse_args()


def with_true_motion(plan: Plan, hearts: list[Tracked]) -> list[Tracked]:
    """Return the hearts with their true meshes instead of tracked ones."""
    phases = np.arange(plan.frames) / plan.frames
    found = []
    for index, heart in enumerate(hearts):
        meshes = heart_vertices(loop_heart(plan, index).coordinates(phases))
        found.append(Tracked(sequence=heart.sequence, meshes=meshes, factors=heart.factors,
                             facts={}))  # fmt: skip
    return found


def error_rows(models: dict[str, DeformationModel], plan: Plan) -> list[dict[str, object]]:
    """Return the mean distance of predicted vertices at ES, mm, of every unseen heart."""
    rows = []
    for index in progress(range(_FIRST_UNSEEN, _FIRST_UNSEEN + plan.test), "unseen hearts"):
        heart = sample_heart(plan.seed, index)
        systole = float(heart.timing.systole)
        truth = heart.vertices([0.0, systole])
        grid = short_axis_grid(truth, heart.pose, _SPACING_MM, margin_mm=14.0)
        labels = render_labels(truth[0], template_topology(), grid)
        seen = Sequence(phases=np.zeros(1), labels=labels[None], grid=grid, ed=0, es=None,
                        factors=heart.factors, orientation="trusted")  # fmt: skip
        row: dict[str, object] = {"heart": index, "no motion": _apart(truth[0], truth[1])}
        for name, model in models.items():
            found = model.posterior(seen, encode_condition(heart.factors), healthy=True)
            meshes = (found.own or model).decode(found.latents.mean, [0.0, systole])
            ed, es = found.pose.to_world(meshes)
            row |= {f"{name}, ED": _apart(ed, truth[0]), f"{name}, ES": _apart(es, truth[1])}
        rows.append(row)
    return rows


def _apart(one: Array, other: Array) -> float:
    return float(np.linalg.norm(one - other, axis=-1).mean())


def main() -> None:
    """Track, train, predict, print."""
    o = options()
    torch.set_num_threads(1)
    plan = Plan(hearts=o.hearts, test=o.test, seed=o.seed, jobs=o.jobs)
    tracked = track_cines(plan)
    away = np.mean([heart.facts["mesh_es_mm"] for heart in tracked])
    models = {
        "tracked": learn_model(plan, tracked),
        "true": learn_model(plan, with_true_motion(plan, tracked)),
    }
    rows = pd.DataFrame(error_rows(models, plan)).set_index("heart")
    table = pd.DataFrame({"mm": rows.mean(), "SD": rows.std()})
    ratio = (rows["tracked, ES"] / rows["true, ES"]).to_numpy()
    low, high = interval(ratio)
    share = rows["tracked, ES"].mean() / rows["true, ES"].mean()
    sys.stdout.write(
        f"{table.round(2).to_string()}\n\ntracked meshes at ES: {away:.2f} mm from the truth\n"
        f"error at ES, trained on tracked over trained on true: {share:.3f} "
        f"(per heart {ratio.mean():.3f}, 95 % interval {low:.3f} to {high:.3f}), "
        f"bar {_WITHIN:.2f}: {'met' if share <= _WITHIN else 'missed'}\n"
    )


if __name__ == "__main__":
    main()
