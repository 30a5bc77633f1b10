"""Close the loop: track cines, learn a model of them, generate hearts, segment unseen cines.

    python scripts/closed_loop.py --out loop --jobs 2

Cines of the reference population and, with --data, the human cine are tracked from one label map
each (registration); a deformation model learns the tracked meshes (cardiogen); it generates hearts
whose painted label maps train a U-Net (augment), beside networks that learn from tracked cines.
All are judged by Dice on cines of the population that nothing was learned from, and on the human
cine at ED. The folder holds everything that was made; summary.csv has the table.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from bench.augment_loop import Plan, Tracked

    from cardiogen.data import Sequence

_LICENCE = "Apache-2.0 (trained on the synthetic reference population{})"
_HUMAN = " and data/human_cine"


def options() -> argparse.Namespace:
    """Return what the user asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--data", type=Path, help="folder that holds human_cine")
    parser.add_argument("--hearts", type=int, default=40, help="cines to track; 40 at least")
    parser.add_argument("--generated", type=int, default=40, help="hearts to generate")
    parser.add_argument("--test", type=int, default=6, help="unseen cines")
    parser.add_argument("--steps", type=int, default=600, help="of every network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    return parser.parse_args()


def main() -> None:
    """Run the loop and print its table."""
    o = options()
    # Imported after the options are read: torch takes seconds, --help should not.
    import torch

    torch.set_num_threads(1)
    from bench.augment_loop import Plan, learn_model, track_cines, track_human, unseen_cines

    plan = Plan(hearts=o.hearts, generated=o.generated, test=o.test, steps=o.steps, seed=o.seed,
                jobs=o.jobs)  # fmt: skip
    o.out.mkdir(parents=True)
    rows: list[dict[str, object]] = []
    with timed(rows, "track cines"):
        hearts = track_cines(plan)
    human = None
    if o.data is not None:
        with timed(rows, "track human_cine"):
            human = track_human(o.data)
    rows += tracking_rows(hearts, human)
    with timed(rows, "train deformation"):
        model = learn_model(plan, hearts if human is None else [*hearts, human])
        store(o.out / "model", model, plan, human is not None)
    with timed(rows, "generate"):
        rows += generated_rows(o.out, plan)
    with timed(rows, "write cines"):
        names = write_cines(o.out / "cines", plan, hearts, unseen_cines(plan), human)
    with timed(rows, "train-segmentation"):
        rows += segmentation_rows(o.out, plan, names, human is not None)
    finish(o.out, rows)


@contextmanager
def timed(rows: list[dict[str, object]], stage: str) -> Iterator[None]:
    """Add the seconds of a stage to the table."""
    start = time.perf_counter()
    yield
    rows.append({"stage": stage, "what": "seconds", "value": time.perf_counter() - start})


def tracking_rows(hearts: list[Tracked], human: Tracked | None) -> Iterator[dict[str, object]]:
    """Yield how near tracking comes to the truth, in the mean over hearts."""
    import numpy as np

    for name in ("dice_es_lv", "dice_es_myo", "dice_es_rv", "mesh_es_mm", "lvef", "lvef_true"):
        value = float(np.mean([heart.facts[name] for heart in hearts]))
        yield {"stage": "tracked cines", "what": name, "value": value}
    for name in ("lvef", "lvef_true") if human is not None else ():
        yield {"stage": "tracked human_cine", "what": name, "value": human.facts[name]}


def store(folder: Path, model: object, plan: Plan, human: bool) -> None:
    """Write the model as a bundle."""
    from cardiogen.models.store import save_model

    data = {"cohort": "tracked cines" + _HUMAN * human, "n": plan.hearts, "seed": plan.seed}
    save_model(
        folder, model, name=f"deformation-tracked-{plan.hearts}", training_data=data,
        licence=_LICENCE.format(_HUMAN * human),
        card=f"# Model card\n\nA deformation model of {data['cohort']}, made by closed_loop.py to "
        "show that the loop closes; too few hearts for anything else. Not for diagnosis.\n",
    )  # fmt: skip


def generated_rows(out: Path, plan: Plan) -> list[dict[str, object]]:
    """Generate hearts and return their left volumes and ejection fractions."""
    import cardiogen
    from cardiogen.measure import measure_path

    # Few training hearts cover few ages and builds: factors are drawn from what they cover.
    cardiogen.generate(
        out=out / "generated", model=out / "model", n=plan.generated, frames=plan.frames,
        formats="nifti", spacing_mm=2.0, workers=plan.jobs, seed=plan.seed,
    )  # fmt: skip
    table = measure_path(out / "generated").table
    found = []
    for column in ("LVEDV (mL)", "LVEF (%)"):
        for name, value in (("mean", table[column].mean()), ("SD", table[column].std())):
            found.append({"stage": "generated hearts", "what": f"{column} {name}",
                          "value": float(value)})  # fmt: skip
    return found


def write_cines(
    folder: Path, plan: Plan, hearts: list[Tracked], unseen: list[Sequence], human: Tracked | None
) -> dict[str, list[str]]:
    """Write tracked and unseen cines as one cohort; return the subjects by what they are for."""
    from cardiogen.data import write_table

    named = {f"tracked_{n:03d}": heart.sequence for n, heart in enumerate(hearts)}
    named |= {f"unseen_{n:03d}": cine for n, cine in enumerate(unseen)}
    if human is not None:
        named["human_cine"] = human.sequence
    rows = [write_cine(folder / name, sequence) for name, sequence in named.items()]
    write_table(folder / "subjects.csv", ("subject_id", "label_map", "ed_frame", "es_frame"), rows)
    return {kind: [n for n in named if n.startswith(kind)] for kind in ("tracked", "unseen")}


def write_cine(folder: Path, sequence: Sequence) -> list[object]:
    """Write images and label maps of a cine; return its row of the table."""
    from cardiogen.data import encode_labels, write_image

    folder.mkdir(parents=True)
    write_image(folder / "images.nii.gz", sequence.images, sequence.grid)
    write_image(folder / "labels.nii.gz", encode_labels(sequence.labels, "ukbb"), sequence.grid)
    return [folder.name, "ukbb", sequence.ed, sequence.es]


def segmentation_rows(
    out: Path, plan: Plan, names: dict[str, list[str]], human: bool
) -> Iterator[dict[str, object]]:
    """Train networks from tracked and from generated hearts and yield their scores."""
    from cardiogen.cli.train_segmentation import train_segmentation_network

    few = names["tracked"][: plan.few]
    generated = str(out / "generated")
    arms = {
        f"{len(few)} tracked": (few, ""),
        f"{plan.generated} generated": ([], generated),
        f"{len(few)} tracked + {plan.generated} generated": (few, generated),
        f"{plan.hearts} tracked": (names["tracked"], ""),
    }
    for name, (train, synthetic) in arms.items():
        folder = out / "networks" / name.replace(" ", "_").replace("+", "and")
        folder.parent.mkdir(exist_ok=True)
        config = folder.with_suffix(".toml")
        config.write_text(settings(out, plan, train, names["unseen"], synthetic))
        found = train_segmentation_network(config, out=folder, device="cpu", seed=plan.seed)
        scores = {key: float(value) for key, value in found.items() if key.startswith("dice")}
        if human:
            scores |= human_scores(folder, out / "cines")
        for key, value in scores.items():
            yield {"stage": f"network of {name}", "what": key, "value": value}


def settings(out: Path, plan: Plan, train: list[str], test: list[str], synthetic: str) -> str:
    """Return the TOML of a training; JSON's strings and lists are TOML's."""
    import json

    return f"""[data]
cohort = {json.dumps(str(out / "cines"))}
train = {json.dumps(train) if train else 0}
test = {json.dumps(test)}
synthetic = {json.dumps(synthetic)}
synthetic_hearts = {plan.generated}
[image]
spacing_mm = 2.0
patch = 96
[network]
widths = [8, 16, 32, 64]
[augmentation]
arm = "random"
[fit]
steps = {plan.steps}
batch_size = 8
learning_rate = 3e-3
warmup_steps = 20
"""


def human_scores(folder: Path, cohort: Path) -> dict[str, float]:
    """Return the Dice of a network on the human cine at ED, whose labels were not tracked."""
    from augment.segmentation import load_network, overlap_table, segment_sequence, summarize
    from cardiogen.data import load_sequence, read_cohort

    stored = load_network(folder / "network")
    subject = next(s for s in read_cohort(cohort) if s.subject_id == "human_cine")
    cine = load_sequence(subject, images=True)
    still = cine.with_(phases=cine.phases[:1], images=cine.images[:1], labels=cine.labels[:1],
                       ed=0, es=None)  # fmt: skip
    told = stored.description
    table = overlap_table([segment_sequence(stored.network, still, told.image, told.prediction)])
    return {f"human ED {k}": v for k, v in summarize(table).items() if k.startswith("dice")}


def finish(out: Path, rows: list[dict[str, object]]) -> None:
    """Write the table and print it."""
    from cardiogen.data import write_table

    write_table(out / "summary.csv", ("stage", "what", "value"), [list(r.values()) for r in rows])
    width = max(len(str(row["stage"])) for row in rows)
    for row in rows:
        sys.stdout.write(f"{row['stage']:<{width}}  {row['what']:<24} {row['value']:10.3f}\n")


if __name__ == "__main__":
    main()
