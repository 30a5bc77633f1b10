"""Hearts from models: generation from factors, completion from observed frames.

Every heart is a pure function of (seed, index): hearts are drawn and decoded one at a time, so
that neither the batch nor the number of threads can change a bit.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing

import numpy as np
import torch
from torch import Tensor

from cardiogen.base import CardiogenError, keyed_seed
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.sequence import Sequence
from cardiogen.measure.volumes import end_of_ejection, mesh_volumes
from cardiogen.models.protocol import AnatomyModel, Posterior, encode_condition
from cardiogen.population.pose import Pose, typical_pose
from cardiogen.population.render import render_sequence, short_axis_grid


def _generator(seed: int, purpose: str, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(keyed_seed(seed, purpose, index))


def decode_sequence(
    model: AnatomyModel,
    latent: Tensor,
    phases: Listing[float],
    *,
    pose: Pose,
    factors: Factors | None = None,
    subject_id: str = "heart",
) -> Sequence:
    """Return the meshes of one latent at given phases, in the world of ``pose``.

    ED is the frame nearest to phase 0 around the cycle, ES the first of the frames with the least
    left ventricular volume (within 0.5 % of the stroke volume: it rests there for a while).
    """
    phases = np.asarray(phases, dtype=np.float64)
    vertices = pose.to_world(model.decode(latent, phases))
    ed = int(np.argmin(_cyclic_distance(phases, 0.0)))
    topology = model.topology.mirrored() if pose.mirrored else model.topology
    es = end_of_ejection(mesh_volumes(vertices, topology)[Structure.LV])
    return Sequence(
        phases=phases,
        ed=ed,
        es=es if es != ed else None,
        vertices=vertices,
        topology=topology,
        factors=factors,
        subject_id=subject_id,
    )


def _cyclic_distance(phases: np.ndarray, phase: float) -> np.ndarray:
    away = np.abs(phases - phase) % 1.0
    return np.minimum(away, 1.0 - away)


def draw_latent(model: AnatomyModel, condition: Tensor, *, seed: int, index: int) -> Tensor:
    """Draw the latent of heart ``index``."""
    return model.prior(condition).sample(_generator(seed, "generate/latent", index))


def generate_sequence(
    model: AnatomyModel,
    factors: Factors,
    phases: Listing[float],
    *,
    seed: int,
    index: int,
    check_domain: bool = True,
    subject_id: str = "heart",
) -> Sequence:
    """Draw one heart given any subset of factors.

    Args:
        model: any model of anatomy.
        factors: what is known; the rest is drawn.
        phases: fractions of the cycle.
        seed: user's seed.
        index: number of the heart.
        check_domain: refuse factors outside the training data (D01, D02, exit 5).
        subject_id: name of the result.
    """
    condition = encode_condition(factors)
    if check_domain:
        model.check_condition(condition)
    latent = draw_latent(model, condition, seed=seed, index=index)
    return decode_sequence(
        model, latent, phases, pose=typical_pose(), factors=factors, subject_id=subject_id
    )


def complete_sequences(
    model: AnatomyModel,
    posterior: Posterior,
    phases: Listing[float],
    *,
    samples: int = 0,
    seed: int = 0,
    factors: Factors | None = None,
    subject_id: str = "heart",
) -> list[Sequence]:
    """Return the cycle of a partly observed heart: first the mean, then samples.

    Args:
        model: the model that gave ``posterior``.
        posterior: latents given observations.
        phases: fractions of the cycle to return.
        samples: number of draws that show the uncertainty.
        seed: user's seed.
        factors: what is known of the subject.
        subject_id: name of the results.
    """
    draws = [_possible_draw(model, posterior, seed, i) for i in range(samples)]
    return [
        decode_sequence(
            model, latent, phases, pose=posterior.pose, factors=factors, subject_id=subject_id
        )
        for latent in (posterior.latents.mean, *draws)
    ]


_MOST_TRIES = 100


def _possible_draw(model: AnatomyModel, posterior: Posterior, seed: int, index: int) -> Tensor:
    """Draw latent ``index`` of a posterior, among those that are hearts.

    A wide posterior reaches past what a heart can do, such as ejecting more than it holds; it is
    cut off there by drawing again.
    """
    for attempt in range(_MOST_TRIES):
        generator = _generator(seed, f"complete/latent/{attempt}", index)
        latent = posterior.latents.sample(generator)
        if model.is_possible(latent):
            return latent
    raise CardiogenError(
        "D03", "samples", found=f"{_MOST_TRIES} draws in a row that are no hearts",
        expected="a posterior of which most is possible",
        remedy="label maps of more frames, or checking the ones given",
    )  # fmt: skip


def with_labels(
    sequence: Sequence, pose: Pose, *, spacing_mm: float = 1.25, grid: Grid | None = None
) -> Sequence:
    """Add label maps to meshes, on ``grid`` or on a short-axis grid around the heart."""
    if grid is None:
        grid = short_axis_grid(sequence.vertices, pose, (spacing_mm,) * 3)
    labels = render_sequence(sequence.vertices, sequence.topology, grid)
    return sequence.with_(labels=labels, grid=grid)
