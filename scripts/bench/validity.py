"""What one generated heart shows: broken rules, volumes, closure, folds.

In a module of its own, since worker processes import what they run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.evaluate.cycles import folded
from cardiogen.measure import check_sequence
from cardiogen.measure.volumes import STRUCTURES, sequence_volumes
from cardiogen.models.protocol import encode_condition
from cardiogen.models.store import LoadedModel, load_model
from cardiogen.population.heart import sample_heart
from cardiogen.population.pose import typical_pose
from cardiogen.synthesis import cycle_phases, decode_sequence, draw_latent, with_labels


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
        folds = folded(model, latent.numpy(), settings.frames) or (None, None)
    if settings.spacing_mm is not None and sequence.vertices is not None:
        sequence = with_labels(sequence, pose, spacing_mm=settings.spacing_mm)
    closure = None if ends is None else float(np.linalg.norm(ends[1] - ends[0], axis=-1).max())
    return finding(sequence, index, closure, *folds)


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
