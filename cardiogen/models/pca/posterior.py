"""Scores given label maps of any frames: exact conditioning of a Gaussian on fitted meshes.

The template is fitted to every frame by itself. With h the fitted vertices of frame t in a first
pose, A(t) z + mean(t) those of scores z and G(h) p a small rigid motion p of unknown size,

    h + G(h) p = mean(t) + A(t) z + e,    e ~ N(0, C) of ``noise``,    z ~ p(z | factors),

so that z and p are Gaussian given h. The pose takes p, and this is repeated: a rigid motion is
not quite linear.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from cardiogen.data.sequence import Sequence
from cardiogen.engine.fit_template import fit_frames
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.pca.modes import CycleModes
from cardiogen.models.pca.noise import FitNoise
from cardiogen.models.protocol import Posterior
from cardiogen.population.pose import Pose, rigid_pose

if TYPE_CHECKING:
    from cardiogen.models.pca.model import PcaModel

Array = NDArray[np.float64]

_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Frames:
    """Fitted meshes of one heart.

    Attributes:
        vertices: ``(T, V, 3)`` world mm.
        phases: ``(T,)``.
        rms_mm: distance of contours from the fitted surfaces, of every frame.
    """

    vertices: Array
    phases: ArrayLike
    rms_mm: Listing[float]


def pca_posterior(model: PcaModel, observed: Sequence, condition: Tensor) -> Posterior:
    """Return the scores given label maps and a condition; see ``models.protocol``.

    Raises:
        CardiogenError: L37, L60 or L61 for frames without a whole heart.
    """
    vertices, fits = fit_frames(observed)
    nearest = fits[observed.ed]
    prior = model.prior(condition)
    start = _first_pose(model, vertices, observed.phases, prior.mean, nearest.pose.mirrored)
    frames = Frames(vertices, observed.phases, [fit.rms_mm for fit in fits])
    mean, covariance, pose = condition_on_meshes(
        model.modes, model.noise, frames, start, prior.mean.numpy(), prior.covariance.numpy()
    )
    factor = np.linalg.cholesky((covariance + covariance.T) / 2)
    latents = GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        torch.from_numpy(mean)[None],
        torch.from_numpy(factor)[None],
    )

    return Posterior(latents, pose, nearest.margin)


def _first_pose(
    model: PcaModel, vertices: Array, phases: ArrayLike, latent: Tensor, mirrored: bool
) -> Pose:
    """Return the pose that brings the prior's mean heart nearest to the fitted meshes."""
    expected = model.decode(latent, phases)

    return rigid_pose(expected.reshape(-1, 3), vertices.reshape(-1, 3), mirrored=mirrored)


def condition_on_meshes(
    modes: CycleModes, noise: FitNoise, frames: Frames, pose: Pose, mean: Array, covariance: Array
) -> tuple[Array, Array, Pose]:
    """Return mean ``(Z,)`` and covariance ``(Z, Z)`` of the scores given meshes, and the pose.

    Args:
        modes: scores to meshes.
        noise: of the meshes.
        frames: the meshes.
        pose: from the heart's frame to their world, near the truth.
        mean, covariance: of the scores before, ``(Z,)`` and ``(Z, Z)``.
    """
    phases = np.asarray(frames.phases, np.float64).tolist()
    designs = [modes.design(phase) for phase in phases]
    inverse = np.linalg.inv(covariance)
    unknown = modes.size + 6
    for _ in range(_ROUNDS):
        precision, pull = np.zeros((unknown, unknown)), np.zeros(unknown)
        precision[: modes.size, : modes.size] = inverse
        pull[: modes.size] = inverse @ mean
        for points, (middle, matrix), phase, rms in zip(
            pose.to_heart(frames.vertices), designs, phases, frames.rms_mm, strict=True
        ):
            slope = np.concatenate([matrix, -_rigid(points)], axis=1)
            weighted = noise.weighted(slope, phase, rms_mm=rms)
            precision += slope.T @ weighted
            pull += weighted.T @ (points.ravel() - middle)
        found = np.linalg.inv(precision)
        estimate = found @ pull
        pose = _moved(pose, estimate[modes.size :])

    return estimate[: modes.size], found[: modes.size, : modes.size], pose


def _rigid(points: Array) -> Array:
    """Return the derivatives ``(P, 6)`` of points ``(V, 3)`` by shifts and turns."""
    shifts = np.tile(np.eye(3), (len(points), 1))
    turns = np.stack([np.cross(axis, points) for axis in np.eye(3)], axis=-1)

    return np.concatenate([shifts, turns.reshape(-1, 3)], axis=1)


def _moved(pose: Pose, motion: Array) -> Pose:
    """Return the pose in which heart-frame points take a rigid motion: shift (mm), turn (rad)."""
    turn = Rotation.from_rotvec(motion[3:]).as_matrix()
    axes = pose.axes @ turn.T

    return Pose(axes, pose.origin - axes @ motion[:3])
