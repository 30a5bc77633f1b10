"""Whole cycles of hearts, made once for the tasks that look at motion and at written rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cardiogen import ops
from cardiogen.base import keyed_seed, progress
from cardiogen.data.sequence import Sequence as Heart
from cardiogen.evaluate.ends import Array, latent_ends
from cardiogen.evaluate.settings import Size
from cardiogen.models.deformation.model import DeformationModel
from cardiogen.models.protocol import AnyModel, encode_condition, frame_phases, gives_labels
from cardiogen.models.voxel import hard_labels
from cardiogen.population.heart import PopulationHeart
from cardiogen.population.pose import typical_pose
from cardiogen.synthesis import cycle_phases, decode_sequence, draw_latent, with_labels


@dataclass(frozen=True, eq=False)
class Cycle:
    """One heart over its cycle.

    Attributes:
        heart: its frames.
        closure: largest distance of a vertex between phases 0 and 1, mm; of label maps the number
            of voxels that differ; None where phase 1 cannot be asked for.
        folds: cells of its displacement fields that fold, by the ten determinants, and in how many
            fields; None of a model without fields.
    """

    heart: Heart
    closure: float | None
    folds: tuple[int, int] | None = None


# None: the draw is no heart.
Cycles = Mapping[str, Sequence[Cycle | None]]


def cycles_of(
    truth: Sequence[PopulationHeart], models: Mapping[str, AnyModel], size: Size, *, seed: int
) -> Cycles:
    """Return cycles of population hearts and of draws with their factors, nothing rejected."""
    truth = truth[: size.beating]
    found: dict[str, list[Cycle | None]] = {"real": [_of_population(h, size) for h in truth]}
    for name, model in models.items():
        found[name] = [
            _of_model(model, h, size, seed, i) for i, h in enumerate(progress(truth, "cycles"))
        ]
    return found


def _of_population(heart: PopulationHeart, size: Size) -> Cycle:
    ends = heart.vertices([0.0, 1.0])
    cycle = heart.sequence(size.frames)
    if size.label_mm is not None:
        cycle = with_labels(cycle, heart.pose, spacing_mm=size.label_mm)
    return Cycle(cycle, _farthest(ends))


def _of_model(
    model: AnyModel, heart: PopulationHeart, size: Size, seed: int, index: int
) -> Cycle | None:
    own, condition = keyed_seed(seed, "evaluate/validity"), encode_condition(heart.factors)
    if gives_labels(model):
        # Unlike ``draw_latent`` nothing is drawn again.
        key = keyed_seed(own, "generate/latent", index)
        latent = model.prior(condition).sample(torch.Generator().manual_seed(key))
        if latent_ends(model, latent) is None:
            return None
    else:
        latent = draw_latent(model, condition, seed=own, index=index)
        if not model.is_possible(latent):
            return None
    pose = typical_pose()
    cycle = decode_sequence(model, latent, cycle_phases(model, size.frames), pose=pose)
    if gives_labels(model):
        return Cycle(cycle, _changed(model, latent))
    if size.label_mm is not None:
        cycle = with_labels(cycle, pose, spacing_mm=size.label_mm)
    return Cycle(
        cycle, _farthest(model.decode(latent, [0.0, 1.0])),
        folded(model, latent.numpy(), size.frames),
    )  # fmt: skip


def _farthest(ends: Array) -> float:
    return float(np.linalg.norm(ends[1] - ends[0], axis=-1).max())


def _changed(model: AnyModel, latent: torch.Tensor) -> float | None:
    if model.known_phases:
        return None
    one, other = (hard_labels(model.decode_probs(latent, [phase])[0]) for phase in (0.0, 1.0))
    return float((one != other).sum())


def folded(model: AnyModel, latent: Array, frames: int) -> tuple[int, int] | None:
    """Return how many cells fold over the cycle, and in how many fields; None without fields."""
    if not isinstance(model, DeformationModel):
        return None
    decoder = model.decoder
    ed, beat = decoder.modes.heart_velocities(model.scores(latent), frame_phases(frames))
    velocities = torch.from_numpy(np.concatenate([ed[None], beat])).float()
    with torch.no_grad():
        mask = ops.folding(decoder.template.displacement(velocities)).mask.flatten(1)

    return int(mask.sum()), int(mask.any(dim=1).sum())
