"""Observed frames as residuals of scores: contours carried back to the template, and volumes.

A contour point y of frame t in the patient's world lies on the template at

    X = exp(-v_t)(exp(-v_ed)(pose^-1 y)).

Its residual is X's distance from its surface over sigma or, above the base plane, its height: a
heart that sank below its contours would else fit them all.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listing
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.data.labels import Structure
from cardiogen.engine.contours import FrameObservation
from cardiogen.engine.fit_template import LOG_VOLUME_SD, RV_BULGE_MM
from cardiogen.measure.volumes import mesh_volumes
from cardiogen.models.deformation.decoder import VelocityDecoder
from cardiogen.models.deformation.surfaces import DistanceMaps
from cardiogen.population.pose import Pose

Array = NDArray[np.float64]

_STRUCTURES = (Structure.LV, Structure.MYO, Structure.RV)
# Scores are of unit variance; smaller steps drown in single precision.
_STEP = 1e-2
_BATCH = 32
_FADING_MM = 4.0


@dataclass(frozen=True, eq=False)
class WarpObservations:
    """Frames observed by contours and volumes; ``engine.map_estimate.Observations``.

    Attributes:
        decoder: turns scores into hearts.
        maps: distances around the template.
        phases: of the frames ``(T,)``.
        frames: what was seen of each.
        scores: from latents to scores; derivatives take them for the same.
    """

    decoder: VelocityDecoder
    maps: DistanceMaps
    phases: ArrayLike
    frames: Listing[FrameObservation]
    scores: Callable[[Array], Array]
    _which: list[Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        which = [
            torch.from_numpy(np.concatenate(
                [np.full(len(points), self.maps.names.index(name))
                 for name, points in frame.points.items()]))
            for frame in self.frames
        ]  # fmt: skip
        object.__setattr__(self, "_which", which)

    def residuals(self, z: Array, pose: Pose) -> Array:
        """Return residuals in SDs ``(R,)``."""
        scores = self._scores(z)

        return self._residuals(scores[None], scores[None], pose)[0]

    def jacobian(self, z: Array, poses: tuple[Pose, ...], step: float) -> Array:
        """Return the derivatives ``(R, Z + 6)`` by forward differences."""
        z = self._scores(z)
        here = self._residuals(z[None], z[None], poses[0])[0]
        moved = z + _STEP * np.eye(len(z))
        ed, rest = moved[: self.decoder.modes.ed_size], moved[self.decoder.modes.ed_size :]
        by_shape = [self._residuals(part, z[None], poses[0]) for part in _batches(ed)]
        by_beat = [np.broadcast_to(here, (len(rest), len(here)))]
        if np.any(np.mod(self.phases, 1.0) != 0):
            by_beat = [self._residuals(z[None], part, poses[0]) for part in _batches(rest)]
        by_score = np.concatenate([*by_shape, *by_beat])
        by_pose = np.stack([self._residuals(z[None], z[None], pose)[0] for pose in poses[1:]])

        return np.concatenate([(by_score - here) / _STEP, (by_pose - here) / step]).T

    def distances_mm(self, z: Array, pose: Pose) -> Array:
        """Return how far every contour point lies from its surface, mm."""
        scores = self._scores(z)[None]
        with torch.no_grad():
            ed, beats = self._velocities(scores, scores)
            rows = self._distances(ed, beats, pose)

        return np.concatenate([row[0].numpy() for row in rows])

    def _scores(self, z: Array) -> Array:
        # Strokes are solved for: not where nothing moves.
        return self.scores(z) if np.any(np.mod(self.phases, 1.0) != 0) else z

    @torch.no_grad()
    def _residuals(self, shapes: Array, beats: Array, pose: Pose) -> Array:
        """Return residuals ``(N, R)`` of many hearts.

        Args:
            shapes: scores that give v_ed, ``(N or 1, S)``.
            beats: scores that give v_t, ``(N or 1, S)``.
            pose: from the heart's frame to the world.
        """
        ed, motion = self._velocities(shapes, beats)
        distances = self._distances(ed, motion, pose)
        found = []
        for frame, distance, volumes in zip(
            self.frames, distances, self._volumes(ed, motion), strict=True
        ):
            logs = np.log(volumes / frame.volumes_ml) / LOG_VOLUME_SD
            found += [distance.double().numpy() / frame.sigma_mm, np.nan_to_num(logs)]
        # A frame in which nothing moves depends on the shape alone.
        count = max(len(shapes), len(beats))

        return np.concatenate([np.broadcast_to(x, (count, x.shape[1])) for x in found], axis=1)

    def _velocities(self, shapes: Array, beats: Array) -> tuple[Tensor, list[Tensor | None]]:
        """Return v_ed, and v_t of every frame: None at end diastole, where nothing moves."""
        modes = self.decoder.modes
        ed = modes.ed_velocity(torch.from_numpy(shapes).float())
        motion = modes.motion_velocity(torch.from_numpy(beats).float(), self.phases).unbind(1)
        still = np.mod(self.phases, 1.0) == 0

        return ed, [None if rest else v for rest, v in zip(still, motion, strict=True)]

    def _volumes(self, ed: Tensor, motion: list[Tensor | None]) -> list[Array]:
        """Return the volumes of every frame, ``(N, 3)`` mL each."""
        template = self.decoder.template
        shape = template.displacement(ed)
        found = []
        for velocity in motion:
            points = torch.from_numpy(template.vertices).float()[None]
            if velocity is not None:
                points = template.move(*_shared(points, template.displacement(velocity)))
            meshes = template.move(*_shared(points, shape)).double().numpy()
            volumes = mesh_volumes(meshes, template.topology)
            found.append(np.stack([volumes[s] for s in _STRUCTURES], axis=1))

        return found

    def _distances(self, ed: Tensor, motion: list[Tensor | None], pose: Pose) -> list[Tensor]:
        """Return the distances of all contour points, ``(N, P)`` mm a frame."""
        template = self.decoder.template
        shape = template.displacement(-ed)
        found = []
        for frame, which, velocity in zip(self.frames, self._which, motion, strict=True):
            heart = pose.to_heart(np.concatenate([*frame.points.values()]))
            back = template.move(*_shared(torch.from_numpy(heart).float()[None], shape))
            if velocity is not None:
                back = template.move(*_shared(back, template.displacement(-velocity)))
            height = (back[..., 2] - self.maps.base).clamp(min=0)
            loose = RV_BULGE_MM * (which == self.maps.names.index("free"))
            over = (height - loose).clamp(min=0) / 2
            # Faded, not cut: a jump would be a slope of any size to finite differences.
            below = (1 - height / _FADING_MM).clamp(min=0)
            found.append(below * self.maps.at(back, which) + over)

        return found


def _batches(rows: Array) -> list[Array]:
    return [rows[k : k + _BATCH] for k in range(0, len(rows), _BATCH)]


def _shared(points: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
    """Return points and field with one batch size: one of either serves all of the other."""
    count = max(len(points), len(field))

    return points.expand(count, -1, -1), field.expand(count, -1, -1, -1, -1)
