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
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.validity import Finding, Settings, examine
from joblib import Parallel, delayed

from cardiogen.base import progress
from cardiogen.measure.volumes import STRUCTURES

_SHOWN = 5


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
