"""The norm of ``cardiogen score``: phenotypes and meshes of healthy hearts, and the subject's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from cardiogen.models.protocol import AnatomyModel, Posterior

Array = NDArray[np.float64]

_NORM, _KNOWN = 200, 50  # draws: healthy hearts, this heart


@dataclass(frozen=True, eq=False, kw_only=True)
class Norm:
    """Healthy hearts with the factors of a subject, and the subject, in the heart's frame.

    Attributes:
        measures: names of the phenotypes.
        subject, draws: phenotypes of the subject ``(K,)`` and of healthy hearts ``(n, K)``.
        known: phenotypes of draws from the subject's posterior ``(k, K)``.
        mesh, meshes: at end diastole, ``(V, 3)`` and ``(n, V, 3)``.
    """

    measures: tuple[str, ...]
    subject: Array
    draws: Array
    known: Array
    mesh: Array
    meshes: Array


def subject_norm(model: AnatomyModel, posterior: Posterior, condition: Tensor, seed: int) -> Norm:
    """Return phenotypes and meshes of the subject and of healthy hearts."""
    import torch

    from cardiogen.base import keyed_seed
    from cardiogen.models.normative import norm_latents

    healthy = norm_latents(model, condition, draws=_NORM, seed=seed)
    known = [
        posterior.latents.sample(torch.Generator().manual_seed(keyed_seed(seed, "score/known", k)))
        for k in range(_KNOWN)
    ]
    subject, mesh = _phenotypes(model, posterior.latents.mean)
    drawn = [_phenotypes(model, latent) for latent in healthy]
    draws = [_phenotypes(model, latent)[0] for latent in known if model.is_possible(latent)]
    names = tuple(subject)
    return Norm(
        measures=names,
        subject=np.array(list(subject.values())),
        draws=np.array([list(row.values()) for row, _ in drawn]),
        known=np.array([list(row.values()) for row in draws]).reshape(len(draws), len(names)),
        mesh=mesh,
        meshes=np.stack([vertices for _, vertices in drawn]),
    )


def _phenotypes(model: AnatomyModel, latent: Tensor) -> tuple[dict[str, float], Array]:
    """Return the measures of a latent's meshes and its mesh at end diastole, in heart frame."""
    from cardiogen.measure.volumes import measure_sequence
    from cardiogen.population.pose import Pose
    from cardiogen.synthesis import decode_sequence

    still = Pose(np.eye(3), np.zeros(3))
    cycle = decode_sequence(model, latent, [0.0, model.end_systole(latent)], pose=still)
    measures, _ = measure_sequence(cycle, source="mesh")
    return {k: v for k, v in measures.items() if np.isfinite(v)}, cycle.vertices[0]
