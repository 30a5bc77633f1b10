"""Latents given label maps of any frames: conditioning of a Gaussian on fitted meshes.

The template is fitted to every frame by itself. With h the fitted vertices of frame t in a first
pose, m(t, z) those that a model decodes, A(t) their derivatives and G(h) p a small rigid motion p
of unknown size,

    h + G(h) p = m(t, z0) + A(t) (z - z0) + e,    e ~ N(0, C) of ``fit_noise``,
    z ~ p(z | factors),

so that z and p are Gaussian given h. The pose takes p, z0 the new z, and this is repeated: a rigid
motion is not quite linear, nor are all models.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cardiogen.data.sequence import Sequence
from cardiogen.engine.fit_template import fit_frames
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.fit_noise import FitNoise
from cardiogen.models.protocol import Posterior
from cardiogen.population.pose import Pose, rigid_pose

Array = NDArray[np.float64]
# From latents ``(Z,)`` to meshes ``(T, V, 3)`` mm and their derivatives ``(T, 3 V, Z)``.
Linearized = Callable[[Array], tuple[Array, Array]]

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
    phases: Array
    rms_mm: Listing[float]


def mesh_posterior(
    observed: Sequence, linearized: Linearized, noise: FitNoise, mean: Array, covariance: Array
) -> Posterior:
    """Return the latents given label maps.

    Args:
        observed: label maps with their phases, in any order; ED need not be among them.
        linearized: the model at the phases of ``observed``.
        noise: of fitted meshes.
        mean, covariance: of the latents before, ``(Z,)`` and ``(Z, Z)``.

    Raises:
        CardiogenError: L37, L60 or L61 for frames without a whole heart.
    """
    vertices, fits = fit_frames(observed)
    nearest = fits[observed.ed]
    frames = Frames(vertices, np.asarray(observed.phases), [fit.rms_mm for fit in fits])
    expected, _ = linearized(mean)
    pose = rigid_pose(
        expected.reshape(-1, 3), vertices.reshape(-1, 3), mirrored=nearest.pose.mirrored
    )
    mean, covariance, pose = condition_on_meshes(linearized, noise, frames, pose, mean, covariance)
    factor = np.linalg.cholesky((covariance + covariance.T) / 2)
    latents = GaussianMixture(
        torch.ones(1, dtype=torch.float64),
        torch.from_numpy(mean)[None],
        torch.from_numpy(factor)[None],
    )

    return Posterior(latents, pose, nearest.margin)


def condition_on_meshes(
    linearized: Linearized,
    noise: FitNoise,
    frames: Frames,
    pose: Pose,
    mean: Array,
    covariance: Array,
) -> tuple[Array, Array, Pose]:
    """Return mean ``(Z,)`` and covariance ``(Z, Z)`` of the latents given meshes, and the pose.

    Args:
        linearized: the model at the phases of the frames.
        noise: of the meshes.
        frames: the meshes.
        pose: from the heart's frame to their world, near the truth.
        mean, covariance: of the latents before, ``(Z,)`` and ``(Z, Z)``.
    """
    size = len(mean)
    inverse, estimate = np.linalg.inv(covariance), mean
    for _ in range(_ROUNDS):
        meshes, slopes = linearized(estimate)
        precision, pull = np.zeros((size + 6, size + 6)), np.zeros(size + 6)
        precision[:size, :size] = inverse
        pull[:size] = inverse @ mean
        for points, mesh, matrix, phase, rms in zip(
            pose.to_heart(frames.vertices), meshes, slopes, frames.phases, frames.rms_mm,
            strict=True,
        ):  # fmt: skip
            slope = np.concatenate([matrix, -_rigid(points)], axis=1)
            weighted = noise.weighted(slope, float(phase), rms_mm=rms)
            precision += slope.T @ weighted
            pull += weighted.T @ (points.ravel() - mesh.ravel() + matrix @ estimate)
        found = np.linalg.inv(precision)
        moved = found @ pull
        estimate, pose = moved[:size], _moved(pose, moved[size:])

    return estimate, found[:size, :size], pose


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
