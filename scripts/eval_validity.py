"""Check the anatomy of many hearts over their whole cycles: validity, volumes, closure, agreement.

Prints, for the population or for a model bundle, the number of violations of every written rule
(meshes and label maps), the spread of the stroke volume ratio, the drift of the myocardial volume,
the closure error, and how far label volumes are from mesh volumes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from cardiogen.base import progress
from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure import check_sequence
from cardiogen.measure.volumes import sequence_volumes
from cardiogen.models.store import load_model
from cardiogen.population.heart import sample_heart
from cardiogen.population.pose import typical_pose
from cardiogen.synthesis import generate_sequence, with_labels

_STRUCTURES = (Structure.LV, Structure.MYO, Structure.RV)


def make(source: str, index: int, frames: int, seed: int, bundle: Path | None) -> Sequence:
    """Return heart ``index`` with meshes and label maps."""
    phases = np.arange(frames) / frames
    if source == "population":
        heart = sample_heart(seed, index)
        return with_labels(heart.sequence(frames), heart.pose)
    sequence = generate_sequence(
        load_model(bundle).model, Factors(), phases, seed=seed, index=index, check_domain=False
    )
    return with_labels(sequence, typical_pose())


def closure_mm(source: str, index: int, seed: int, bundle: Path | None) -> float:
    """Return the largest distance of a vertex between phases 0 and 1."""
    if source == "population":
        ends = sample_heart(seed, index).vertices([0.0, 1.0])
    else:
        model = load_model(bundle).model
        ends = generate_sequence(
            model, Factors(), [0.0, 1.0], seed=seed, index=index, check_domain=False
        ).vertices
    return float(np.linalg.norm(ends[1] - ends[0], axis=-1).max())


def examine(
    source: str, index: int, frames: int, seed: int, bundle: Path | None
) -> tuple[list[str], NDArray[np.float64]]:
    """Return broken rules of one heart, and its five figures."""
    sequence = make(source, index, frames, seed, bundle)
    broken = [f"{v.rule}: {v.detail}" for v in check_sequence(sequence)]
    mesh = sequence_volumes(sequence, source="mesh")
    labels = sequence_volumes(sequence, source="labels")
    stroke = {s: mesh[s][0] - mesh[s].min() for s in (Structure.LV, Structure.RV)}
    drift = np.abs(mesh[Structure.MYO] / mesh[Structure.MYO][0] - 1).max()
    apart = [np.abs(labels[s] / mesh[s] - 1).max() for s in _STRUCTURES]
    ratio = stroke[Structure.RV] / stroke[Structure.LV]
    return broken, np.array([ratio, drift, closure_mm(source, index, seed, bundle), *apart])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=["population", "bundle"])
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="index of the first heart")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    o = parser.parse_args()
    jobs = (
        delayed(examine)(o.source, o.first + i, o.frames, o.seed, o.bundle) for i in range(o.n)
    )
    found = Parallel(n_jobs=o.workers, return_as="generator")(jobs)
    results = list(progress(found, "examining hearts", total=o.n))
    rules = Counter(text for broken, _ in results for text in {b.split(":")[0] for b in broken})
    figures = np.stack([f for _, f in results])
    print(f"{o.source}: {o.n} hearts x {o.frames} frames, seed {o.seed}")
    print(f"hearts with violations: {sum(bool(b) for b, _ in results)}  {dict(rules)}")
    for index, (broken, _) in enumerate(results):
        for text in broken[:3]:
            print(f"  heart {o.first + index}: {text}")
    print(f"RV/LV stroke volume: {figures[:, 0].min():.3f} to {figures[:, 0].max():.3f}")
    print(f"myocardial volume over the cycle: within {100 * figures[:, 1].max():.2f} %")
    print(f"closure: at most {figures[:, 2].max():.1e} mm")
    for k, s in enumerate(_STRUCTURES):
        part = figures[:, 3 + k]
        print(f"label against mesh volume, {s.name}: mean {100 * part.mean():.2f} %, "
              f"largest {100 * part.max():.2f} %")  # fmt: skip


if __name__ == "__main__":
    main()
