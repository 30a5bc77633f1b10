"""Velocity codes from label maps: the smooth velocities that carry the template onto a patient.

The voxels y of a frame, in the heart's frame, come from the template's places
``X = exp(-v_t)(exp(-v_ed)(y))``. A velocity is sought that minimizes

    E(v) = -w sum_y vol(y) ln p(label(y) | X(y)) + 1/2 |v - v0|^2_S,
    |p|^2_S = smoothness |L p|^2 + ridge |p|^2,

L the Laplacian over the control points, by L-BFGS in the coordinates in which S is the identity:
there every direction is as steep as the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.data.grid import Grid
from cardiogen.models.deformation.codes import laplacian
from cardiogen.models.deformation.occupancy import OccupancyMaps
from cardiogen.models.deformation.template import DeformationTemplate
from cardiogen.population.pose import Pose

_MARGIN_MM = 8.0  # of background around the heart that is seen
_EVERY = 2  # voxels of a checkerboard: neighbors in a slice tell nearly the same
_EVALUATIONS = 1.25  # of the energy for one step, at most


@dataclass(frozen=True, eq=False)
class LabelFitter:
    """Fits velocities to label maps.

    Attributes:
        template: what is deformed.
        maps: its structures.
        nats_per_ml: weight w of the voxels.
        smoothness, ridge: of the change of velocity, for parameters in mm.
        steps: of L-BFGS, at most.
    """

    template: DeformationTemplate
    maps: OccupancyMaps
    nats_per_ml: float = 40.0
    smoothness: float = 0.01
    ridge: float = 0.003
    steps: int = 50

    @classmethod
    def of(cls, template: DeformationTemplate) -> LabelFitter:
        """Return the fitter of a template."""
        return cls(template, OccupancyMaps.of(template))

    def fit(
        self,
        labels: NDArray[np.uint8],
        grid: Grid,
        pose: Pose,
        start: Tensor,
        *,
        onward: Tensor | None = None,
    ) -> Tensor:
        """Return the velocity ``(3, A)`` mm of one frame.

        Args:
            labels: structures ``(D, H, W)``.
            grid: their lattice.
            pose: of the heart.
            start: v0 ``(3, A)``, from which changes count.
            onward: v_ed ``(3, A)``, if a later frame's velocity is sought.
        """
        places, seen = _voxels(labels, grid)
        points = torch.from_numpy(pose.to_heart(places)).float()[None]
        if onward is not None:
            points = self.template.move(points, self.template.displacement(-onward[None]))
        weight = _EVERY * self.nats_per_ml * float(np.prod(grid.spacing)) / 1000.0
        free = torch.zeros_like(start, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [free], max_iter=self.steps, max_eval=int(_EVALUATIONS * self.steps), history_size=8,
            line_search_fn="strong_wolfe", tolerance_grad=1e-6, tolerance_change=1e-9,
        )  # fmt: skip

        def energy() -> Tensor:
            optimizer.zero_grad()
            velocity = start + self._change(free)
            back = self.template.move(points, self.template.displacement(-velocity[None]))
            found = self.maps.log_probs(back[0]).gather(1, seen)
            total = 0.5 * (free**2).sum() - weight * found.sum()
            total.backward()
            return total

        optimizer.step(energy)

        return (start + self._change(free)).detach()

    def _change(self, free: Tensor) -> Tensor:
        """Return the change of velocity ``(3, A)`` of whitened coordinates ``(3, A)``."""
        scale, directions = self._spectrum

        return (free * scale) @ directions

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Return standard deviations ``(A,)`` and the directions they belong to ``(A, A)``."""
        bend = laplacian(self.template.active)
        values, vectors = np.linalg.eigh((bend.T @ bend).toarray())
        scale = 1.0 / np.sqrt(self.smoothness * np.maximum(values, 0.0) + self.ridge)

        return torch.from_numpy(scale).float(), torch.from_numpy(vectors.T).float().contiguous()


def _voxels(labels: NDArray[np.uint8], grid: Grid) -> tuple[NDArray[np.float64], Tensor]:
    """Return places ``(P, 3)`` mm and labels ``(P, 1)`` of voxels in and around the heart.

    Slices beyond the outermost labeled ones count as seen where they exist: that they show no
    heart bounds its length.
    """
    inside = np.argwhere(labels > 0)
    margin = np.maximum(1, np.ceil(_MARGIN_MM / np.asarray(grid.spacing))).astype(np.int64)
    low = np.maximum(inside.min(axis=0) - margin, 0)
    high = np.minimum(inside.max(axis=0) + margin + 1, labels.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    places = np.stack(np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij"), -1)
    kept = places.sum(axis=-1) % _EVERY == 0
    seen = torch.from_numpy(labels[box][kept][:, None].astype(np.int64))

    return grid.to_world(places[kept].astype(np.float64)), seen
