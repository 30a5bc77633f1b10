"""Check the anatomy of many hearts over their whole cycles: validity, volumes, closure, folds.

For the population or a model bundle, counts the violations of every written rule (meshes, and
label maps with ``--spacing``), the spread of the stroke volume ratio, the drift of the myocardial
volume, the closure error, how far label volumes are from mesh volumes, and, where the model has
displacement fields, the hearts and cells that fold by the ten determinants. Nothing is rejected.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from joblib import Parallel, delayed

from cardiogen.base import progress
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure import check_sequence
from cardiogen.measure.volumes import STRUCTURES, sequence_volumes
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.protocol import encode_condition, frame_phases
from cardiogen.models.store import LoadedModel, load_model
from cardiogen.population.heart import sample_heart
from cardiogen.population.pose import typical_pose
from cardiogen.synthesis import cycle_phases, decode_sequence, draw_latent, with_labels

_SHOWN = 5


@dataclass(frozen=True)
class Settings:
    """What is examined; ``model`` is a bundle, ``default`` or ``population``."""

    model: str
    frames: int
    seed: int
    spacing_mm: float | None


@dataclass(frozen=True)
class Finding:
    """What one heart showed; None where it has nothing of the kind."""

    index: int
    broken: tuple[tuple[str, str], ...]
    stroke_ratio: float
    drift: float
    closure_mm: float | None
    folded_cells: int | None
    folded_frames: int | None
    label_error: dict[str, float] | None


@lru_cache(maxsize=1)
def _model(name: str) -> LoadedModel:
    return load_model(None if name == "default" else name)


def examine(settings: Settings, index: int) -> Finding:
    """Make heart ``index`` and check it."""
    if settings.model == "population":
        heart = sample_heart(settings.seed, index)
        sequence, pose = heart.sequence(settings.frames), heart.pose
        ends, folds = heart.vertices([0.0, 1.0]), (None, None)
    else:
        model, pose = _model(settings.model).model, typical_pose()
        latent = draw_latent(model, encode_condition(Factors()), seed=settings.seed, index=index)
        phases = cycle_phases(model, settings.frames)
        sequence = decode_sequence(model, latent, phases, pose=pose)
        ends = None if model.topology is None else model.decode(latent, [0.0, 1.0])
        folds = folded(model, latent.numpy(), settings.frames)
    if settings.spacing_mm is not None and sequence.vertices is not None:
        sequence = with_labels(sequence, pose, spacing_mm=settings.spacing_mm)
    closure = None if ends is None else float(np.linalg.norm(ends[1] - ends[0], axis=-1).max())
    return finding(sequence, index, closure, *folds)


def folded(model: object, scores: np.ndarray, frames: int) -> tuple[int | None, int | None]:
    """Return how many cells fold over the cycle, and in how many fields; None without fields."""
    if not isinstance(model, DeformationModel):
        return None, None
    import torch

    from cardiogen import ops

    decoder = model.decoder
    ed, beat = decoder.modes.heart_velocities(scores, frame_phases(frames))
    velocities = torch.from_numpy(np.concatenate([ed[None], beat])).float()
    with torch.no_grad():
        mask = ops.folding(decoder.template.displacement(velocities)).mask.flatten(1)
    return int(mask.sum()), int(mask.any(dim=1).sum())


def finding(
    sequence: Sequence, index: int, closure: float | None, cells: int | None, fields: int | None
) -> Finding:
    """Return what a heart shows over its cycle."""
    broken = tuple((v.rule, v.detail) for v in check_sequence(sequence))
    volumes = sequence_volumes(sequence, source=None if sequence.vertices is None else "mesh")
    stroke = {s: volumes[s][0] - volumes[s].min() for s in (Structure.LV, Structure.RV)}
    error = None
    if sequence.vertices is not None and sequence.labels is not None:
        labels = sequence_volumes(sequence, source="labels")
        error = {s.name: float(np.abs(labels[s] / volumes[s] - 1).max()) for s in STRUCTURES}
    return Finding(
        index=index,
        broken=broken,
        stroke_ratio=float(stroke[Structure.RV] / stroke[Structure.LV]),
        drift=float(np.abs(volumes[Structure.MYO] / volumes[Structure.MYO][0] - 1).max()),
        closure_mm=closure,
        folded_cells=cells,
        folded_frames=fields,
        label_error=error,
    )


def summary(found: list[Finding], settings: Settings) -> dict[str, object]:
    """Return the numbers of all hearts."""
    rules = Counter(rule for f in found for rule, _ in f.broken)
    hearts = Counter(rule for f in found for rule in {rule for rule, _ in f.broken})
    ratios = [f.stroke_ratio for f in found]
    folds = [f for f in found if f.folded_cells is not None]
    closures = [f.closure_mm for f in found if f.closure_mm is not None]
    errors = [f.label_error for f in found if f.label_error is not None]
    return {
        **asdict(settings),
        "hearts": len(found),
        "hearts_with_violations": sum(bool(f.broken) for f in found),
        "violations": dict(rules.most_common()),
        "hearts_by_rule": dict(hearts.most_common()),
        "stroke_volume_ratio": [min(ratios), max(ratios)],
        "largest_wall_drift": max(f.drift for f in found),
        "largest_closure_mm": max(closures) if closures else None,
        "hearts_with_folds": sum(f.folded_cells > 0 for f in folds) if folds else None,
        "folded_cells": sum(f.folded_cells for f in folds) if folds else None,
        "fields_with_folds": sum(f.folded_frames for f in folds) if folds else None,
        "fields": len(folds) * (settings.frames + 1) if folds else None,
        "largest_label_error": {
            s.name: max(e[s.name] for e in errors) for s in STRUCTURES
        } if errors else None,
        "examples": [
            {"heart": f.index, "rule": rule, "detail": detail}
            for f in found for rule, detail in f.broken[:1]
        ][:_SHOWN],
    }  # fmt: skip


def table(facts: dict[str, object]) -> str:
    """Return the summary as lines of text."""
    rows = [(name, facts[name]) for name in facts if name not in ("violations", "examples")]
    lines = [f"{name:24}{value if value is not None else '-'}" for name, value in rows]
    lines += [f"  {rule:22}{count}" for rule, count in facts["violations"].items()]
    lines += [f"  heart {e['heart']}: {e['rule']}: {e['detail']}" for e in facts["examples"]]
    return "\n".join(lines)


def main() -> None:
    """Examine, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default", help="bundle, default or population")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="index of the first heart")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--spacing", type=float, help="voxels of label maps to check too, mm")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="file to write, too")
    o = parser.parse_args()
    settings = Settings(o.model, o.frames, o.seed, o.spacing)
    jobs = (delayed(examine)(settings, o.first + i) for i in range(o.n))
    hearts = Parallel(n_jobs=o.jobs, return_as="generator")(jobs)
    facts = summary(list(progress(hearts, "examining hearts", total=o.n)), settings)
    sys.stdout.write(table(facts) + "\n")
    if o.json is not None:
        o.json.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
