"""Maximum a posteriori fits of a heart to observed frames: pose with chirality, and latents.

Unknowns are a vector z with a Gaussian prior and a small rigid correction of the pose. The
estimate minimizes

    sum_i huber(r_i(z, pose)) + (z - m)^T C^-1 (z - m) + |pose correction / its SD|^2

over residuals r in SDs, by Gauss-Newton steps with Levenberg damping; Huber weights keep outlying
contours from pulling. The inverse Hessian is the Laplace covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cardiogen.base import progress
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Orientation
from cardiogen.measure.frame import lv_frame
from cardiogen.population.pose import Pose

Array = NDArray[np.float64]

_POSE_SD = np.array([3.0, 3.0, 5.0, 0.15, 0.15, 0.25])  # mm along x, y, z; rad about x, y, z
_HUBER = 2.0  # residuals beyond two SDs are weighted down
_MAX_STEPS = 12
_TRIAL_STEPS = 3
_STEP = 1e-4  # of finite differences


class Observations(Protocol):
    """What was observed, as residuals of a model."""

    def residuals(self, z: Array, pose: Pose) -> Array:
        """Return residuals in SDs ``(R,)``; not finite where z is no heart at all."""

    def jacobian(self, z: Array, poses: tuple[Pose, ...], step: float) -> Array:
        """Return the derivatives ``(R, Z + 6)`` by z and by moves to ``poses[1:]``.

        ``poses[0]`` is the pose itself, the others differ from it by ``step`` in one parameter.
        """

    def distances_mm(self, z: Array, pose: Pose) -> Array:
        """Return how far every contour point lies from its surface, mm."""


@dataclass(frozen=True, eq=False)
class MapFit:
    """A maximum a posteriori fit.

    Attributes:
        z: estimate ``(Z,)``.
        covariance: its Laplace covariance ``(Z, Z)``.
        pose: refined pose.
        objective: minus two log posterior, up to a constant.
        rms_mm: root mean square distance of the contour points along their rays.
        margin: objective of the chirality that lost minus that of this one, after a few steps
            each; None if only one was tried.
    """

    z: Array
    covariance: Array
    pose: Pose
    objective: float
    rms_mm: float
    margin: float | None = None


def initial_pose(labels: NDArray[np.uint8], grid: Grid, *, mirrored: bool) -> Pose:
    """Return the pose that the label map of one frame shows: axis, base and side of the RV."""
    from cardiogen.data.labels import Structure

    frame = lv_frame(labels, grid)
    line = frame.axis + frame.drift
    base = frame.center + frame.base * line
    right = grid.to_world(np.argwhere(labels == Structure.RV)).mean(axis=0) - frame.center
    return Pose.from_directions(line, right, base, mirrored=mirrored)


def _corrected(pose: Pose, correction: Array) -> Pose:
    """Apply a small motion, given in the heart's frame, to a pose."""
    turn = Rotation.from_rotvec(correction[3:]).as_matrix()
    return Pose(pose.axes @ turn, pose.origin + pose.axes @ correction[:3])


class _Problem:
    """Residuals and Jacobian of observations and prior in (z, pose correction)."""

    def __init__(self, seen: Observations, mean: Array, covariance: Array, pose: Pose) -> None:
        self.seen, self.mean, self.pose = seen, mean, pose
        self.factor = np.linalg.inv(np.linalg.cholesky(covariance))
        self.size = len(mean)

    def residuals(self, unknowns: Array) -> tuple[Array, Array]:
        """Return data and prior residuals; infinite where z is no heart at all."""
        data = self.seen.residuals(unknowns[: self.size], self.posed(unknowns))
        if not np.isfinite(data).all():
            return np.full(1, np.inf), unknowns
        prior = self.factor @ (unknowns[: self.size] - self.mean)
        return data, np.concatenate([prior, unknowns[self.size :] / _POSE_SD])

    def jacobian(self, unknowns: Array) -> tuple[Array, Array]:
        """Return the Jacobians of data and prior residuals."""
        z, correction = unknowns[: self.size], unknowns[self.size :]
        moves = (np.zeros(6), *(_STEP * np.eye(6)))
        poses = tuple(_corrected(self.pose, correction + move) for move in moves)
        prior = np.zeros((self.size + 6, self.size + 6))
        prior[: self.size, : self.size] = self.factor
        prior[self.size :, self.size :] = np.diag(1 / _POSE_SD)
        return self.seen.jacobian(z, poses, _STEP), prior

    def posed(self, unknowns: Array) -> Pose:
        """Return the corrected pose."""
        return _corrected(self.pose, unknowns[self.size :])


def _huber_weights(residuals: Array) -> Array:
    return _HUBER / np.maximum(np.abs(residuals), _HUBER)


def _objective(data: Array, prior: Array) -> float:
    size = np.abs(data)
    huber = np.where(size <= _HUBER, size**2, 2 * _HUBER * size - _HUBER**2)
    return float(huber.sum() + prior @ prior)


def _tried(problem: _Problem, unknowns: Array) -> tuple[Array, Array] | None:
    """Return the residuals of a step, or None if it leads to what no heart can be."""
    try:
        with np.errstate(invalid="ignore"):
            return problem.residuals(unknowns)
    except ValueError:  # no anatomy has these coordinates
        return None


def map_estimate(
    seen: Observations,
    mean: Array,
    covariance: Array,
    pose: Pose,
    *,
    start: Array | None = None,
    max_steps: int = _MAX_STEPS,
) -> MapFit:
    """Fit z and a small pose correction to observed frames.

    Args:
        seen: what was observed.
        mean, covariance: Gaussian prior of z.
        pose: initial pose.
        start: first z; the prior mean if not given.
        max_steps: most Gauss-Newton steps.
    """
    problem = _Problem(seen, mean, covariance, pose)
    unknowns = np.concatenate([mean if start is None else start, np.zeros(6)])
    data, prior = problem.residuals(unknowns)
    objective, damping = _objective(data, prior), 1e-3
    for _ in progress(range(max_steps), "fitting"):
        slope, prior_slope = problem.jacobian(unknowns)
        weighted = slope * _huber_weights(data)[:, None]
        hessian = slope.T @ weighted + prior_slope.T @ prior_slope
        gradient = weighted.T @ data + prior_slope.T @ prior
        previous = objective
        while damping < 1e6:
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
            tried = _tried(problem, unknowns - step)
            if tried is not None and (trial := _objective(*tried)) <= objective:
                unknowns, (data, prior), objective = unknowns - step, tried, trial
                damping /= 5
                break
            damping *= 8
        if previous - objective < 1e-3 * max(1.0, objective):
            break
    slope, prior_slope = problem.jacobian(unknowns)
    hessian = slope.T @ (slope * _huber_weights(data)[:, None]) + prior_slope.T @ prior_slope
    size = problem.size
    points = seen.distances_mm(unknowns[:size], problem.posed(unknowns))
    return MapFit(
        z=unknowns[:size],
        covariance=np.linalg.inv(hessian)[:size, :size],
        pose=problem.posed(unknowns),
        objective=objective,
        rms_mm=float(np.sqrt(np.mean(points**2))),
    )


def fit_with_chirality(
    seen: Observations,
    mean: Array,
    covariance: Array,
    labels: NDArray[np.uint8],
    grid: Grid,
    orientation: Orientation,
) -> MapFit:
    """Fit with the chirality that the header promises, or with the better one of both.

    Args:
        seen, mean, covariance: see :func:`map_estimate`.
        labels: structures of the frame nearest to end diastole, which gives the first pose.
        grid: its lattice.
        orientation: ``trusted`` and ``mirrored`` headers fix the chirality, ``assumed`` does not.
    """
    candidates = {"trusted": (False,), "mirrored": (True,), "assumed": (False, True)}[orientation]
    poses = [initial_pose(labels, grid, mirrored=mirrored) for mirrored in candidates]
    if len(poses) == 1:
        return map_estimate(seen, mean, covariance, poses[0])
    trials = [map_estimate(seen, mean, covariance, p, max_steps=_TRIAL_STEPS) for p in poses]
    order = np.argsort([fit.objective for fit in trials], kind="stable")
    best, other = (trials[k] for k in order)
    fit = map_estimate(seen, mean, covariance, poses[order[0]], start=best.z)
    return replace(fit, margin=other.objective - best.objective)
