"""Fitting the template to label maps: pose with chirality, shape, residuals.

Unknowns are a vector z, from which a linear or nearly linear map gives the shape coordinates of
every observed frame, and a small rigid correction of the pose. The maximum a posteriori estimate
minimizes

    sum_i w_i (D_i - D_surface(ray_i))^2 / sigma^2 + sum_k (ln V_k - ln V_obs)^2 / s^2
        + (z - m)^T C^-1 (z - m) + |pose correction / its SD|^2

by Gauss-Newton steps with Levenberg damping; distances D are taken along the rays of the heart,
and Huber weights w keep outlying contours from pulling. The inverse Hessian is the Laplace
covariance.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cardiogen.base import progress
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Orientation
from cardiogen.engine.contours import FrameObservation, observe_frame, require_heart
from cardiogen.measure.frame import lv_frame
from cardiogen.population.anatomy import COORDINATE_COUNT, COORDINATES
from cardiogen.population.lattice import surface_distances
from cardiogen.population.pose import Pose

Array = NDArray[np.float64]

_POSE_SD = np.array([3.0, 3.0, 5.0, 0.15, 0.15, 0.25])  # mm along x, y, z; rad about x, y, z
_LOG_VOLUME_SD = 0.03
_RV_BULGE_MM = 30.0  # the template's own right base rises 10 to 24 mm over the plane
_HUBER = 2.0  # residuals beyond two SDs are weighted down
_MAX_STEPS = 12
_TRIAL_STEPS = 3


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


def _frame_residuals(coordinates: Array, frame: FrameObservation, pose: Pose) -> Array:
    """Residuals in SDs of one frame for every row of coordinates ``(N, P)``: ``(N, R)``."""
    names = list(frame.points)
    heart = pose.to_heart(np.concatenate([frame.points[name] for name in names]))
    which = np.repeat(np.arange(len(names)), [len(frame.points[name]) for name in names])
    observed, predicted, height = surface_distances(coordinates, heart, which, names)
    # A point over the base plane is off by its height: else a heart that sinks below its points
    # would fit them all. The right ventricle may bulge over the plane.
    loose = np.where(which == names.index("free"), _RV_BULGE_MM, 0.0)
    over = np.maximum(height - loose, 0.0) / (2 * frame.sigma_mm)
    distance = np.where(height <= 0, (predicted - observed) / frame.sigma_mm, over)
    volumes = coordinates[:, COORDINATES["log_volume"]] - np.log(frame.volumes_ml)
    return np.concatenate([distance, np.nan_to_num(volumes / _LOG_VOLUME_SD)], axis=1)


class _Problem:
    """Residuals and Jacobian of all frames in (z, pose correction)."""

    def __init__(
        self,
        coordinates_of: Callable[[Array], Array],
        mean: Array,
        precision_factor: Array,
        frames: Listing[FrameObservation],
        pose: Pose,
    ) -> None:
        self.coordinates_of = coordinates_of
        self.mean, self.precision_factor = mean, precision_factor
        self.frames, self.pose = frames, pose
        self.size = len(mean)

    def residuals(self, unknowns: Array) -> tuple[Array, Array]:
        """Return data and prior residuals; infinite where z is no heart at all."""
        pose = _corrected(self.pose, unknowns[self.size :])
        coordinates = self.coordinates_of(unknowns[: self.size])
        if not np.isfinite(coordinates).all():
            return np.full(1, np.inf), unknowns
        data = [
            _frame_residuals(row[None], frame, pose)[0]
            for row, frame in zip(coordinates, self.frames, strict=True)
        ]
        prior = self.precision_factor @ (unknowns[: self.size] - self.mean)
        return np.concatenate(data), np.concatenate([prior, unknowns[self.size :] / _POSE_SD])

    def jacobian(self, unknowns: Array) -> tuple[Array, Array]:
        """Return the Jacobians of data and prior residuals by forward differences."""
        z, correction = unknowns[: self.size], unknowns[self.size :]
        coordinates = self.coordinates_of(z)
        step = 1e-4
        per_z = np.stack(
            [(self.coordinates_of(z + step * e) - coordinates) / step for e in np.eye(self.size)],
            axis=-1,
        )  # (T, P, Z)
        blocks = []
        for row, frame, slope in zip(coordinates, self.frames, per_z, strict=True):
            moved = np.concatenate([row[None], row + step * np.eye(COORDINATE_COUNT)])
            values = _frame_residuals(moved, frame, _corrected(self.pose, correction))
            by_shape = ((values[1:] - values[0]) / step).T @ slope
            by_pose = [
                (_frame_residuals(row[None], frame, _corrected(self.pose, correction + step *
                e))[0]
                 - values[0]) / step
                for e in np.eye(6)
            ]  # fmt: skip
            blocks.append(np.concatenate([by_shape, np.stack(by_pose, axis=1)], axis=1))
        prior = np.zeros((self.size + 6, self.size + 6))
        prior[: self.size, : self.size] = self.precision_factor
        prior[self.size :, self.size :] = np.diag(1 / _POSE_SD)
        return np.concatenate(blocks), prior


def _huber_weights(residuals: Array) -> Array:
    return _HUBER / np.maximum(np.abs(residuals), _HUBER)


def _objective(data: Array, prior: Array) -> float:
    size = np.abs(data)
    huber = np.where(size <= _HUBER, size**2, 2 * _HUBER * size - _HUBER**2)
    return float(huber.sum() + prior @ prior)


def map_estimate(
    coordinates_of: Callable[[Array], Array],
    mean: Array,
    covariance: Array,
    frames: Listing[FrameObservation],
    pose: Pose,
    *,
    start: Array | None = None,
    max_steps: int = _MAX_STEPS,
) -> MapFit:
    """Fit z and a small pose correction to observed frames.

    Args:
        coordinates_of: z ``(Z,)`` -> shape coordinates of the observed frames ``(T, P)``.
        mean, covariance: Gaussian prior of z.
        frames: observations, one for each row that ``coordinates_of`` returns.
        pose: initial pose.
        start: first z; the prior mean if not given.
        max_steps: most Gauss-Newton steps.
    """
    factor = np.linalg.inv(np.linalg.cholesky(covariance))
    problem = _Problem(coordinates_of, mean, factor, frames, pose)
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
            trial_data, trial_prior = problem.residuals(unknowns - step)
            trial = _objective(trial_data, trial_prior)
            if trial <= objective:
                unknowns, data, prior, objective = unknowns - step, trial_data, trial_prior, trial
                damping /= 5
                break
            damping *= 8
        if previous - objective < 1e-3 * max(1.0, objective):
            break
    slope, prior_slope = problem.jacobian(unknowns)
    hessian = slope.T @ (slope * _huber_weights(data)[:, None]) + prior_slope.T @ prior_slope
    size = problem.size
    points = np.concatenate(_point_residuals(problem, unknowns))
    return MapFit(
        z=unknowns[:size],
        covariance=np.linalg.inv(hessian)[:size, :size],
        pose=_corrected(pose, unknowns[size:]),
        objective=objective,
        rms_mm=float(np.sqrt(np.mean(points**2))),
    )


def _point_residuals(problem: _Problem, unknowns: Array) -> list[Array]:
    """Distances of the contour points in mm, one array a frame."""
    pose = _corrected(problem.pose, unknowns[problem.size :])
    coordinates = problem.coordinates_of(unknowns[: problem.size])
    return [
        _frame_residuals(row[None], frame, pose)[0, :-3] * frame.sigma_mm
        for row, frame in zip(coordinates, problem.frames, strict=True)
    ]


def fit_with_chirality(
    coordinates_of: Callable[[Array], Array],
    mean: Array,
    covariance: Array,
    frames: Listing[FrameObservation],
    labels: NDArray[np.uint8],
    grid: Grid,
    orientation: Orientation,
) -> MapFit:
    """Fit with the chirality that the header promises, or with the better one of both.

    Args:
        coordinates_of, mean, covariance, frames: see :func:`map_estimate`.
        labels: structures of the frame nearest to end diastole, which gives the first pose.
        grid: its lattice.
        orientation: ``trusted`` and ``mirrored`` headers fix the chirality, ``assumed`` does not.
    """
    candidates = {"trusted": (False,), "mirrored": (True,), "assumed": (False, True)}[orientation]
    poses = [initial_pose(labels, grid, mirrored=mirrored) for mirrored in candidates]
    if len(poses) == 1:
        return map_estimate(coordinates_of, mean, covariance, frames, poses[0])
    trials = [
        map_estimate(coordinates_of, mean, covariance, frames, p, max_steps=_TRIAL_STEPS)
        for p in poses
    ]
    order = np.argsort([fit.objective for fit in trials], kind="stable")
    best, other = (trials[k] for k in order)
    fit = map_estimate(coordinates_of, mean, covariance, frames, poses[order[0]], start=best.z)
    return replace(fit, margin=other.objective - best.objective)


def fit_template(
    labels: NDArray[np.uint8], grid: Grid, *, orientation: Orientation = "trusted"
) -> MapFit:
    """Fit the template's shape coordinates to the label map of one frame.

    The prior is the population's own spread of shapes, widened: it only fills in what the
    contours leave open.

    Args:
        labels: structures ``(D, H, W)``.
        grid: their lattice.
        orientation: whether the header can be trusted not to mirror the heart.

    Returns:
        Fit whose ``z`` are shape coordinates ``(P,)``; ``heart_vertices(z[None])`` in ``pose`` is
        the mesh.

    Raises:
        CardiogenError: L37, L60, L61 for labels that are no complete heart.
    """
    from cardiogen.population.heart import shape_prior

    require_heart(labels, "labels")
    mean, sd = shape_prior()
    frames = [observe_frame(labels, grid)]
    return fit_with_chirality(
        lambda z: z[None], mean, np.diag(sd**2), frames, labels, grid, orientation
    )
