"""Terms of whole cycles: fields ``(B, T, d, *S)`` of all frames on one grid.

Convention: frames divide the cycle evenly, and time is in cycles, so that the number of frames
does not change the price of a motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cardiogen.losses.term import SequenceTerm
from cardiogen.ops import compose
from cardiogen.ops.check import check_field, check_spacing


@dataclass(frozen=True, kw_only=True)
class TemporalSmoothness(SequenceTerm):
    """Squared speed or acceleration of every voxel, mean over the cycle.

    ``|T (u_{t+1} - u_t)|^2`` in (mm per cycle)^2, or ``|T^2 (u_{t+1} - 2 u_t + u_{t-1})|^2`` in
    (mm per cycle^2)^2.

    Attributes:
        order: 1 for speed, 2 for acceleration.
        periodic: whether the first frame follows the last one.
    """

    order: Literal[1, 2] = 2
    periodic: bool = True

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2, got {self.order}")

    def map(
        self, displacements: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the squared derivative in time at every voxel, ``(B, 1, *S)``."""
        motion = _in_mm(displacements, spacing)
        frames = motion.shape[1]
        if frames <= self.order:
            raise ValueError(
                f"displacements must have more than {self.order} frames, got {frames}"
            )
        if self.periodic:
            motion = torch.cat([motion, motion[:, : self.order]], dim=1)
        rate = motion.diff(n=self.order, dim=1) * float(frames) ** self.order

        return rate.square().sum(dim=2).mean(dim=1).unsqueeze(1)


@dataclass(frozen=True, kw_only=True)
class CycleClosure(SequenceTerm):
    """Squared distance in mm^2 by which the motion of a cycle misses its start.

    Attributes:
        given: ``"steps"`` if field t leads from frame t to the next and the last one back to the
            first: they are composed around the cycle. ``"path"`` if field t leads from the
            reference to frame t and the last frame is the reference again: it should be 0.
    """

    given: Literal["steps", "path"] = "steps"

    def __post_init__(self) -> None:
        if self.given not in ("steps", "path"):
            raise ValueError(f"given must be steps or path, got {self.given!r}")

    def map(
        self, displacements: Tensor, *, spacing: tuple[float, ...], mask: Tensor | None = None
    ) -> Tensor:
        """Return the squared miss at every voxel of the first frame, ``(B, 1, *S)``."""
        motion = _in_mm(displacements, spacing)
        if self.given == "path":
            return motion[:, -1].square().sum(dim=1, keepdim=True)
        loop = displacements[:, 0]
        for step in displacements[:, 1:].unbind(dim=1):
            loop = compose(loop, step)

        return _in_mm(loop.unsqueeze(1), spacing)[:, 0].square().sum(dim=1, keepdim=True)


def _in_mm(displacements: Tensor, spacing: tuple[float, ...]) -> Tensor:
    if displacements.ndim not in (5, 6) or displacements.shape[1] == 0:
        raise ValueError(
            "displacements must have shape (B, T, 2, H, W) or (B, T, 3, D, H, W), "
            f"got {tuple(displacements.shape)}"
        )
    shape = check_field(displacements[:, 0], "displacements")
    steps = check_spacing(spacing, len(shape))
    wide = displacements.to(torch.promote_types(displacements.dtype, torch.float32))

    return wide * wide.new_tensor(steps).view(1, 1, -1, *[1] * len(shape))
