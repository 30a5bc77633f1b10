"""Which structure lies at a place of the template: probabilities from signed distances.

With d_s the signed distance from a closed surface (left cavity, left epicardium, right cavity),
negative inside, and in_s = sigmoid(-d_s / width),

    LV = in_lv in_epi,   MYO = (1 - in_lv) in_epi,   RV = in_rv (1 - in_epi),

and background is the rest: the four sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.data.mesh import Surface
from cardiogen.models.deformation.surfaces import grid_around, signed_distance
from cardiogen.models.deformation.template import DeformationTemplate

_SURFACES = (Surface.LV_ENDO, Surface.LV_EPI, Surface.RV_ENDO)


@dataclass(frozen=True, eq=False)
class OccupancyMaps:
    """Signed distances from the closed surfaces around the template.

    Attributes:
        grid: heart frame.
        values: left cavity, left epicardium and right cavity, ``(1, 3, *S)`` mm, float32.
        width_mm: over which probabilities pass from one structure to the next.
    """

    grid: Grid
    values: Tensor
    width_mm: float = 0.6

    @classmethod
    def of(cls, template: DeformationTemplate) -> OccupancyMaps:
        """Return the maps of a template."""
        grid = grid_around(template)
        surfaces = template.topology.surfaces
        maps = [signed_distance(template, surfaces[s], (s,), grid) for s in _SURFACES]

        return cls(grid, torch.from_numpy(np.stack(maps)[None]).float())

    def log_probs(self, points: Tensor) -> Tensor:
        """Return log probabilities ``(P, 4)`` of background, LV, MYO, RV at points ``(P, 3)`` mm.

        Far from every surface they fall linearly with distance, so that a structure that lies
        where it should not is pulled from any distance.
        """
        found = ops.sample_at_points(self.values.to(points), points[None], self.grid)
        logits = -found.view(len(points), -1) / self.width_mm
        lv, epi, rv = F.logsigmoid(logits).unbind(-1)
        not_lv, not_epi, not_rv = F.logsigmoid(-logits).unbind(-1)

        return torch.stack([not_epi + not_rv, epi + lv, epi + not_lv, not_epi + rv], dim=-1)
