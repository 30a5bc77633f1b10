"""Short-axis stacks as a scanner might lay them over a heart: turned, mirrored, of some thickness.

Files of different sources show the heart turned by quarters or mirrored, and headers that tell how
are not to be trusted; so synthetic hearts are shown from all sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data import Grid, Sequence

_THICKNESS_MM = (6.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class View:
    """How a stack lies on a heart.

    Attributes:
        angle: turn in plane, rad.
        mirrored: whether columns run the other way.
        thickness_mm: distance of slices, which touch.
        shift: of the first slice, in slices, in [0, 1).
    """

    angle: float
    mirrored: bool
    thickness_mm: float
    shift: float


def draw_view(rng: np.random.Generator) -> View:
    """Draw a stack: any turn, either hand, slices of 6 to 10 mm."""
    return View(
        angle=float(rng.uniform(0, 2 * np.pi)),
        mirrored=bool(rng.random() < 0.5),
        thickness_mm=float(rng.uniform(*_THICKNESS_MM)),
        shift=float(rng.random()),
    )


def view_grid(grid: Grid, points: ArrayLike, view: View, *, spacing_mm: float, size: int) -> Grid:
    """Return the stack's lattice; its slices are parallel to those of ``grid``.

    Slices reach over all points, columns and rows lie about their middle.

    Args:
        grid: any lattice whose D axis is the long axis of the heart.
        points: of the heart, world mm ``(V, 3)``.
        view: how the stack lies; mirroring is done to arrays, see :func:`hand`.
        spacing_mm: in plane.
        size: pixels of both sides of a slice.
    """
    axes = grid.affine[:3, :3] / np.asarray(grid.spacing)
    along = np.asarray(points, dtype=np.float64).reshape(-1, 3) @ np.linalg.inv(axes).T
    low, high = along.min(axis=0), along.max(axis=0)
    step = view.thickness_mm
    slices = int(np.ceil((high[0] - low[0]) / step)) + 1
    middle = (low + high) / 2
    turn = np.array([
        [1.0, 0.0, 0.0],
        [0.0, np.cos(view.angle), -np.sin(view.angle)],
        [0.0, np.sin(view.angle), np.cos(view.angle)],
    ])  # fmt: skip
    turned, half = axes @ turn, (size - 1) / 2 * spacing_mm
    start = axes @ np.array([low[0] - view.shift * step, middle[1], middle[2]])
    origin = start - turned @ np.array([0.0, half, half])
    return Grid.regular((slices, size, size), (step, spacing_mm, spacing_mm), origin, turned)


def hand(sequence: Sequence, view: View) -> Sequence:
    """Return a sequence as the stack shows it: columns in reverse order if it is mirrored.

    The grid stays, as in files whose headers hide that they mirror the heart.
    """
    if not view.mirrored:
        return sequence
    return sequence.with_(
        images=_reversed(sequence.images), labels=_reversed(sequence.labels),
        orientation="mirrored", vertices=None, topology=None,
    )  # fmt: skip


def _reversed(volume: NDArray | None) -> NDArray | None:
    return None if volume is None else np.ascontiguousarray(volume[..., ::-1])
