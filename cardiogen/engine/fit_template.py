"""Fitting the population's template to label maps: contour points along the rays of the heart.

For shape coordinates that follow from a vector z, the residuals of ``map_estimate`` are

    (D_i - D_surface(ray_i)) / sigma    and    (ln V_k - ln V_obs) / s,

distances D taken along the rays of the heart.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Orientation, Sequence
from cardiogen.engine.contours import FrameObservation, observe_frame, require_heart
from cardiogen.engine.map_estimate import MapFit, fit_with_chirality
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.coordinates import COORDINATE_COUNT, COORDINATES
from cardiogen.population.lattice import surface_distances
from cardiogen.population.pose import Pose

Array = NDArray[np.float64]

LOG_VOLUME_SD = 0.03
RV_BULGE_MM = 30.0  # the template's own right base rises 10 to 24 mm over the plane


@dataclass(frozen=True, eq=False)
class RayObservations:
    """Frames observed by their contours and volumes; ``engine.map_estimate.Observations``.

    Attributes:
        coordinates_of: z ``(Z,)`` -> shape coordinates of the observed frames ``(T, P)``.
        frames: observations, one for each row that ``coordinates_of`` returns.
    """

    coordinates_of: Callable[[Array], Array]
    frames: Listing[FrameObservation]

    def residuals(self, z: Array, pose: Pose) -> Array:
        """Return residuals in SDs ``(R,)``; infinite where z is no heart at all."""
        coordinates = self.coordinates_of(z)
        if not np.isfinite(coordinates).all():
            return np.full(1, np.inf)
        return np.concatenate(self._by_frame(coordinates, pose))

    def jacobian(self, z: Array, poses: tuple[Pose, ...], step: float) -> Array:
        """Return the derivatives ``(R, Z + 6)`` by forward differences."""
        coordinates = self.coordinates_of(z)
        per_z = np.stack(
            [(self.coordinates_of(z + step * e) - coordinates) / step for e in np.eye(len(z))],
            axis=-1,
        )  # (T, P, Z)
        blocks = []
        for row, frame, slope in zip(coordinates, self.frames, per_z, strict=True):
            moved = np.concatenate([row[None], row + step * np.eye(COORDINATE_COUNT)])
            values = _frame_residuals(moved, frame, poses[0])
            by_shape = ((values[1:] - values[0]) / step).T @ slope
            by_pose = [
                (_frame_residuals(row[None], frame, pose)[0] - values[0]) / step
                for pose in poses[1:]
            ]
            blocks.append(np.concatenate([by_shape, np.stack(by_pose, axis=1)], axis=1))
        return np.concatenate(blocks)

    def distances_mm(self, z: Array, pose: Pose) -> Array:
        """Return how far every contour point lies from its surface along its ray, mm."""
        rows = self._by_frame(self.coordinates_of(z), pose)
        return np.concatenate(
            [row[:-3] * frame.sigma_mm for row, frame in zip(rows, self.frames, strict=True)]
        )

    def _by_frame(self, coordinates: Array, pose: Pose) -> list[Array]:
        return [
            _frame_residuals(row[None], frame, pose)[0]
            for row, frame in zip(coordinates, self.frames, strict=True)
        ]


def _frame_residuals(coordinates: Array, frame: FrameObservation, pose: Pose) -> Array:
    """Residuals in SDs of one frame for every row of coordinates ``(N, P)``: ``(N, R)``."""
    names = list(frame.points)
    heart = pose.to_heart(np.concatenate([frame.points[name] for name in names]))
    which = np.repeat(np.arange(len(names)), [len(frame.points[name]) for name in names])
    observed, predicted, height = surface_distances(coordinates, heart, which, names)
    # A point over the base plane is off by its height: else a heart that sinks below its points
    # would fit them all. The right ventricle may bulge over the plane.
    loose = np.where(which == names.index("free"), RV_BULGE_MM, 0.0)
    over = np.maximum(height - loose, 0.0) / (2 * frame.sigma_mm)
    distance = np.where(height <= 0, (predicted - observed) / frame.sigma_mm, over)
    volumes = coordinates[:, COORDINATES["log_volume"]] - np.log(frame.volumes_ml)
    return np.concatenate([distance, np.nan_to_num(volumes / LOG_VOLUME_SD)], axis=1)


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
        CardiogenError: L37, L60, L61, L66 for labels that are no complete heart.
    """
    from cardiogen.population.heart import shape_prior

    require_heart(labels, "labels")
    mean, sd = shape_prior()
    seen = RayObservations(lambda z: z[None], [observe_frame(labels, grid)])
    return fit_with_chirality(seen, mean, np.diag(sd**2), labels, grid, orientation)


def fit_frames(observed: Sequence) -> tuple[Array, list[MapFit]]:
    """Return the template's meshes ``(T, V, 3)`` mm in the world of label maps, and their fits.

    Every frame is fitted by itself: vertices correspond as far as contours show it, and how
    material turns about the long axis they do not show. But all lie on one side of the mirror,
    that of the frame next to end diastole; ``engine.chirality`` finds it for ``assumed`` headers.

    Raises:
        CardiogenError: see :func:`fit_template`.
    """
    from cardiogen.engine.chirality import margin, settle_chirality

    (observed,), (said,) = settle_chirality([observed])
    fits = [
        fit_template(labels, observed.grid, orientation=observed.orientation)
        for labels in observed.labels
    ]
    if np.isfinite(said):
        nearest = fits[observed.ed]
        told = margin(said, mirrored=nearest.pose.mirrored)
        fits[observed.ed] = replace(nearest, margin=told)

    return np.stack([f.pose.to_world(heart_vertices(f.z[None])[0]) for f in fits]), fits
