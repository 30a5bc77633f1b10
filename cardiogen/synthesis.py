"""Hearts from models: generation from factors, completion from observed frames.

Every heart is a pure function of (seed, index): hearts are drawn and decoded one at a time, so
that neither the batch nor the number of threads can change a bit.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, keyed_seed, progress
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface
from cardiogen.data.sequence import Sequence
from cardiogen.measure.decision import overlap_labels
from cardiogen.measure.volumes import (
    STRUCTURES,
    end_of_ejection,
    label_volumes,
    mesh_volume,
)
from cardiogen.models.protocol import (
    AnyModel,
    LabelModel,
    LatentDistribution,
    Posterior,
    encode_condition,
    frame_phases,
    gives_labels,
)
from cardiogen.population.pose import Pose, typical_pose
from cardiogen.population.render import render_labels, render_sequence, short_axis_grid

_SAME_PHASE = 0.2


def _generator(seed: int, purpose: str, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(keyed_seed(seed, purpose, index))


def decode_sequence(
    model: AnyModel,
    latent: Tensor,
    phases: Listing[float],
    *,
    pose: Pose,
    grid: Grid | None = None,
    spacing_mm: float | None = None,
    factors: Factors | None = None,
    subject_id: str = "heart",
) -> Sequence:
    """Return one latent at given phases, in the world of ``pose``: meshes, label maps or both.

    Label maps are rendered from the meshes. A model of label maps gives its probabilities, read
    on the wanted grid with linear interpolation; the most probable structure is taken last.

    ED is the frame nearest to phase 0 around the cycle, ES the first of the frames with the least
    left ventricular volume (within 0.5 % of the stroke volume: it rests there for a while).

    Args:
        model: any model of anatomy.
        latent: ``(Z,)``.
        phases: fractions of the cycle; see ``cycle_phases``.
        pose: from the heart's frame to the world.
        grid: where label maps are wanted.
        spacing_mm: voxel size of a short-axis grid around the heart, instead. With neither, a
            model of meshes gives those alone and one of label maps its own lattice.
        factors: for the result.
        subject_id: name of the result.

    Raises:
        CardiogenError: D04 for a phase that a model of label maps does not know.
    """
    phases = np.asarray(phases, dtype=np.float64)
    ed = int(np.argmin(_cyclic_distance(phases, 0.0)))
    heart = Sequence(phases=phases, ed=ed, factors=factors, subject_id=subject_id)
    if gives_labels(model):
        return _decoded_labels(model, latent, heart, pose, grid, spacing_mm)
    topology = model.topology.mirrored() if pose.mirrored else model.topology
    vertices = pose.to_world(model.decode(latent, phases))
    heart = heart.with_(
        vertices=vertices, topology=topology,
        es=_end_systole(mesh_volume(vertices, topology.surfaces[Surface.LV_ENDO]), ed),
    )  # fmt: skip
    grid = _wanted_grid(vertices, pose, grid, spacing_mm)
    return heart if grid is None else with_labels(heart, pose, grid=grid)


def _decoded_labels(
    model: LabelModel,
    latent: Tensor,
    heart: Sequence,
    pose: Pose,
    grid: Grid | None,
    spacing_mm: float | None,
) -> Sequence:
    """Return a heart with the label maps of a latent; see ``decode_sequence``."""
    from cardiogen.models.voxel import hard_labels, most_probable, posed_grid

    # Frame by frame: the same bits whatever other phases are asked for.
    decoded = [model.decode_probs(latent, [phase]) for phase in heart.phases]
    probs, lattice = torch.cat([p for p, _ in decoded]), posed_grid(decoded[0][1], pose)
    labels = hard_labels(probs)
    # The whole heart is on its own lattice, whatever the wanted grid holds of it.
    es = _end_systole(label_volumes(labels, lattice)[Structure.LV], heart.ed)
    places = lattice.to_world(np.argwhere(labels.any(axis=0)))
    grid = _wanted_grid(places, pose, grid, spacing_mm)
    if grid is not None:
        labels = most_probable(probs, lattice, grid)
    return heart.with_(labels=labels, grid=grid or lattice, es=es)


def _wanted_grid(
    points: NDArray[np.float64], pose: Pose, grid: Grid | None, spacing_mm: float | None
) -> Grid | None:
    """Return the grid for label maps of a heart that world ``points`` span; None if none is."""
    if grid is not None or spacing_mm is None or not points.size:
        return grid
    return short_axis_grid(points, pose, (spacing_mm,) * 3)


def _end_systole(lv_ml: NDArray[np.float64], ed: int) -> int | None:
    es = end_of_ejection(lv_ml)
    return es if es != ed else None


def cycle_phases(model: AnyModel, frames: int) -> Listing[float]:
    """Return the phases of a cycle of ``frames``, or those alone that a model can decode."""
    known = model.known_phases if gives_labels(model) else ()
    return list(known) or frame_phases(frames)


def nearest_phases(model: AnyModel, phases: Listing[float]) -> Listing[float]:
    """Return for every phase the one within a fifth of a cycle that a model can decode.

    A model of ED and ES alone knows the mean phase of end systole, which is not each heart's. A
    phase that lies farther from all that it knows stays as it is.
    """
    known = np.array(model.known_phases if gives_labels(model) else ())
    if not known.size:
        return list(phases)
    away = _cyclic_distance(np.asarray(phases, np.float64)[:, None], known)
    near, least = known[away.argmin(axis=1)], away.min(axis=1)
    return np.where(least <= _SAME_PHASE, near, phases).tolist()


def _cyclic_distance(phases: NDArray[np.float64], phase: ArrayLike) -> NDArray[np.float64]:
    away = np.abs(phases - phase) % 1.0
    return np.minimum(away, 1.0 - away)


def draw_latent(model: AnyModel, condition: Tensor, *, seed: int, index: int) -> Tensor:
    """Draw the latent of heart ``index``.

    Models of label maps decode some latents to no heart: those are drawn again.

    Raises:
        CardiogenError: D03 if a model of label maps hardly ever gives a heart.
    """
    prior = model.prior(condition)
    if gives_labels(model):
        return _possible_draw(model, prior, seed, "generate/latent", index)
    return prior.sample(_generator(seed, "generate/latent", index))


def generate_sequence(
    model: AnyModel,
    factors: Factors,
    phases: Listing[float],
    *,
    seed: int,
    index: int,
    spacing_mm: float | None = None,
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
        spacing_mm: voxel size of its label maps; without it see ``decode_sequence``.
        check_domain: refuse factors outside the training data (D01, D02, exit 5).
        subject_id: name of the result.
    """
    condition = encode_condition(factors)
    if check_domain:
        model.check_condition(condition)
    latent = draw_latent(model, condition, seed=seed, index=index)
    return decode_sequence(
        model, latent, phases, pose=typical_pose(), spacing_mm=spacing_mm, factors=factors,
        subject_id=subject_id,
    )  # fmt: skip


def complete_sequences(
    model: AnyModel,
    posterior: Posterior,
    phases: Listing[float],
    *,
    samples: int = 0,
    seed: int = 0,
    grid: Grid | None = None,
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
        grid: where label maps of the mean are wanted; samples have none but a model's own.
        factors: what is known of the subject.
        subject_id: name of the results.
    """
    model = posterior.own or model
    draws = [
        _possible_draw(model, posterior.latents, seed, "complete/latent", i)
        for i in range(samples)
    ]
    return [
        decode_sequence(
            model, latent, phases, pose=posterior.pose, grid=where, factors=factors,
            subject_id=subject_id,
        )
        for latent, where in [(posterior.latents.mean, grid), *((draw, None) for draw in draws)]
    ]  # fmt: skip


def labels_of_draws(draws: Listing[Sequence], grid: Grid) -> NDArray[np.uint8]:
    """Return the label maps ``(T, D, H, W)`` whose expected Dice over draws is large.

    Where frames were not seen they reach farther than those of the mean: see ``measure.decision``.

    Args:
        draws: meshes at the same phases, in the same world; one at least.
        grid: where label maps are wanted.
    """
    if not draws or any(draw.vertices is None for draw in draws):
        raise ValueError("draws must be meshes, one at least")
    structures, frames = np.reshape(STRUCTURES, (-1, 1, 1, 1)), []
    for number in progress(range(len(draws[0].phases)), "label maps of the samples"):
        counts = np.zeros((len(STRUCTURES), *grid.shape), dtype=np.uint16)
        for draw in draws:
            counts += render_labels(draw.vertices[number], draw.topology, grid) == structures
        frames.append(overlap_labels(counts / len(draws)))

    return np.stack(frames)


_MOST_TRIES = 100


def _possible_draw(
    model: AnyModel, latents: LatentDistribution, seed: int, purpose: str, index: int
) -> Tensor:
    """Draw latent ``index`` of a distribution, among those that are hearts.

    A wide posterior reaches past what a heart can do, such as ejecting more than it holds; it is
    cut off there by drawing again.
    """
    for attempt in range(_MOST_TRIES):
        latent = latents.sample(_generator(seed, f"{purpose}/{attempt}", index))
        if model.is_possible(latent):
            return latent
    raise CardiogenError(
        "D03", "samples", found=f"{_MOST_TRIES} draws in a row that are no hearts",
        expected="a model, or a posterior, of which most is possible",
        remedy="label maps of more frames, checking the ones given, or a model trained longer",
    )  # fmt: skip


def with_labels(
    sequence: Sequence, pose: Pose, *, spacing_mm: float = 1.25, grid: Grid | None = None
) -> Sequence:
    """Add label maps to meshes, rendered on ``grid`` or on a short-axis grid around the heart."""
    if sequence.vertices is None:
        raise ValueError(f"sequence must have meshes, {sequence.subject_id!r} has none")
    if grid is None:
        grid = short_axis_grid(sequence.vertices, pose, (spacing_mm,) * 3)
    labels = render_sequence(sequence.vertices, sequence.topology, grid)
    return sequence.with_(labels=labels, grid=grid)
