"""Find the motion of a cine by one of the strategies; add what cannot be seen in its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError, Note
from cardiogen.measure import lv_frame
from cardiogen.transforms import TemporalSVF
from registration.tracking import pairwise
from registration.tracking.config import TrackingConfig
from registration.tracking.groupwise import groupwise
from registration.tracking.inputs import Cine
from registration.tracking.longitudinal import longitudinal_stretch, sliding, wall_shape
from registration.tracking.view_term import ViewLevels

_PAIRWISE = {
    "direct": pairwise.direct, "sequential": pairwise.sequential, "blend": pairwise.blend
}  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Motion:
    """The motion of one cine, frames in its own order.

    Attributes:
        forward: ``ed_to_frame`` ``(T, 3, *region)``, voxels.
        backward: ``frame_to_ed``, its inverse.
        seen: ``forward`` without what was inferred of motion through the slices.
        closure: where ED arrives after a whole cycle, ``(1, 3, *region)``.
        stretch: inferred longitudinal stretch ``(T,)``, or None.
        series: the periodic motion of ``groupwise``, or None.
        rows: records of the solver.
    """

    forward: Tensor
    backward: Tensor
    seen: Tensor
    closure: Tensor
    stretch: NDArray[np.float64] | None = None
    series: TemporalSVF | None = None
    rows: list[dict[str, object]]


def find_motion(
    pixels: Tensor,
    cine: Cine,
    config: TrackingConfig,
    *,
    in_plane: bool,
    views: Sequence[ViewLevels] = (),
) -> Motion:
    """Return the motion of prepared images ``(T, 1, *region)``, and of further views."""
    if config.strategy == "groupwise":
        return _periodic(pixels, cine, config, in_plane=in_plane, views=views)
    pairs, order = config.pair_config(in_plane=in_plane), cine.order
    ordered = pixels[order]
    forward, rows = _PAIRWISE[config.strategy](ordered, cine.region, pairs)
    back = [ops.invert(u[None], require_convergence=False).displacement for u in forward[1:]]
    backward = torch.cat([torch.zeros_like(forward[:1]), *back])
    # Direct and blended motion is 0 at ED whatever the cycle; composed motion arrives elsewhere.
    closure = torch.zeros_like(forward[:1])
    if config.strategy == "sequential":
        closure = pairwise.round_trip(ordered[[-1, 0]], cine.region, pairs, forward[-1:])
    place = np.argsort(order)

    return Motion(forward=forward[place], backward=backward[place], seen=forward[place],
                  closure=closure, rows=rows)  # fmt: skip


def _periodic(
    pixels: Tensor,
    cine: Cine,
    config: TrackingConfig,
    *,
    in_plane: bool,
    views: Sequence[ViewLevels],
) -> Motion:
    series, rows = groupwise(
        pixels, cine.region, cine.phases, ed=cine.sequence.ed, in_plane=in_plane,
        config=config.groupwise, views=views,
    )  # fmt: skip
    forward = series.displacement(cine.phases)[0]
    backward = series.inverse().displacement(cine.phases)[0]

    return Motion(forward=forward, backward=backward, seen=forward, series=series, rows=rows,
                  closure=series.displacement([1.0])[0])  # fmt: skip


def with_longitudinal(motion: Motion, cine: Cine) -> tuple[Motion, list[Note]]:
    """Return in-plane motion with the motion through the slices that it implies."""
    labels = cine.labels[cine.window]
    stretch = None
    try:
        shape = wall_shape(labels, cine.region, lv_frame(labels, cine.region))
        stretch, why = longitudinal_stretch(motion.forward, labels, shape, ed=cine.sequence.ed)
    except CardiogenError as error:
        # A ventricle without an open base has no apex to hold on to.
        if error.code not in ("L60", "L61"):
            raise
        why = f"found {error.found}"
    if stretch is None:
        text = f"motion through the slices is unknown and taken as none ({why})"
        return motion, [Note("S81", "tracking", text)]
    device = motion.forward.device
    along = sliding(stretch, shape, cine.region, device=device)
    back = sliding(1 / stretch, shape, cine.region, device=device)
    text = (
        "motion through the slices is not measured but inferred, from the narrowing of the cavity "
        "and the volume of the wall (apex at rest): the ventricle shortens to "
        f"{stretch.min():.3f} of its length; it follows the left ventricle alone"
    )
    return replace(
        motion,
        forward=ops.compose(along, motion.forward),
        backward=ops.compose(motion.backward, back),
        stretch=stretch,
    ), [Note("S82", "tracking", text)]
