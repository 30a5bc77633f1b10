"""One picture of a registration: images, difference, checkerboard, the moved lattice, volume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.base import atomic_write
from cardiogen.data import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHTS = (0.25, 0.5, 0.75)
_TILES = 8
_LINES_MM = 5.0
_MOVES = 0.25
_ROOM_MM = 25.0
_CELL_IN = 1.9
_DPI = 110
_COLUMNS = ("fixed", "moving", "moved", "fixed - moving", "fixed - moved", "checkerboard",
            "field", "volume change")  # fmt: skip


def draw_overview(
    path: str | Path,
    fixed: Tensor,
    moving: Tensor,
    displacement: Tensor,
    grid: Grid,
    *,
    title: str = "",
    overwrite: bool = False,
) -> None:
    """Draw three slices of a pair before and after, and its field.

    Args:
        path: PNG to write.
        fixed: ``(1, C, D, H, W)``; the first channel is shown.
        moving: the same, on the same grid.
        displacement: ``fixed_to_moving`` ``(1, 3, D, H, W)``, voxels.
        grid: their lattice; slices lie across its first axis. Only where something moves, and
            some room around it, is drawn.
        title: written above.
        overwrite: replace an existing file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fixed, moving, displacement, grid = _zoomed(fixed, moving, displacement, grid)
    moved = ops.warp(moving.float(), displacement)
    change = ops.jacobian_determinant(displacement)[0, 0].clamp(min=1e-3).log2()
    volumes = [x[0, 0].detach().float().cpu().numpy() for x in (fixed, moving, moved)]
    field = displacement[0].detach().cpu().numpy()
    slices = sorted({round(h * (grid.shape[0] - 1)) for h in _HEIGHTS})
    height, width = (grid.shape[a] * grid.spacing[a] for a in (1, 2))
    cell = (_CELL_IN, _CELL_IN * min(max(height / width, 0.3), 3.0))
    size = (len(_COLUMNS) * cell[0] + 0.5, len(slices) * cell[1] + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(slices), len(_COLUMNS), squeeze=False)
    for row, d in zip(axes, slices, strict=True):
        _draw_row(row, [v[d] for v in volumes], field[:, d], change[d].cpu().numpy(), grid)
        row[0].set_ylabel(f"slice {d}", fontsize=8)
    for place, name in zip(axes[0], _COLUMNS, strict=True):
        place.set_title(name, fontsize=8)
    bar = figure.colorbar(axes[0, -1].images[0], ax=list(axes[:, -1]), ticks=[-2, -1, 0, 1, 2])
    bar.ax.set_yticklabels(["1/4", "1/2", "same", "2", "4"], fontsize=7)
    bar.set_label("moving / fixed volume", fontsize=7)
    if title:
        figure.suptitle(title, fontsize=9)
    with atomic_write(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})


def _zoomed(
    fixed: Tensor, moving: Tensor, displacement: Tensor, grid: Grid
) -> tuple[Tensor, Tensor, Tensor, Grid]:
    """Cut all to the part of the plane that moves by a quarter of the largest motion."""
    lengths = displacement.new_tensor(grid.spacing).view(3, 1, 1, 1)
    moves = (displacement[0] * lengths).square().sum(dim=0).amax(dim=0).sqrt()
    moving_part = (moves > _MOVES * moves.max()).nonzero()
    if not len(moving_part):
        return fixed, moving, displacement, grid
    room = [round(_ROOM_MM / s) for s in grid.spacing[1:]]
    low = [max(int(a) - r, 0) for a, r in zip(moving_part.amin(dim=0), room, strict=True)]
    high = [
        min(int(a) + r + 1, n)
        for a, r, n in zip(moving_part.amax(dim=0), room, grid.shape[1:], strict=True)
    ]
    part = (..., slice(low[0], high[0]), slice(low[1], high[1]))
    shape = (grid.shape[0], high[0] - low[0], high[1] - low[1])

    return fixed[part], moving[part], displacement[part], grid.cropped((0, *low), shape)


def _draw_row(
    row: NDArray, images: list[NDArray], field: NDArray, change: NDArray, grid: Grid
) -> None:
    fixed, moving, moved = images
    low, high = np.percentile(fixed, (1, 99.5))
    gray = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-6)}
    reach = max(float(np.percentile(abs(fixed - moving), 99)), 1e-6)
    both = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach}
    for place, image in zip(row[:3], images, strict=True):
        _show(place, image, grid, **gray)
    _show(row[3], fixed - moving, grid, **both)
    _show(row[4], fixed - moved, grid, **both)
    _show(row[5], _checkerboard(fixed, moved), grid, **gray)
    _show(row[6], fixed, grid, **gray)
    _draw_lattice(row[6], field, grid)
    # Two octaves: volumes that shrink to a quarter or grow fourfold.
    _show(row[7], change, grid, cmap="PuOr_r", vmin=-2, vmax=2)


def _show(place: Axes, image: NDArray, grid: Grid, **style: object) -> None:
    aspect = grid.spacing[1] / grid.spacing[2]
    place.imshow(image, aspect=aspect, interpolation="nearest", **style)
    place.set_xticks([])
    place.set_yticks([])


def _checkerboard(fixed: NDArray, moved: NDArray) -> NDArray:
    rows, columns = (np.arange(n) * _TILES // n for n in fixed.shape)

    return np.where((rows[:, None] + columns[None]) % 2 == 0, fixed, moved)


def _draw_lattice(place: Axes, field: NDArray, grid: Grid) -> None:
    """Draw where the lines of a regular lattice of the fixed image lie on the moving one."""
    h, w = np.mgrid[: grid.shape[1], : grid.shape[2]].astype(float)
    h, w = h + field[1], w + field[2]
    style = {"color": "#ffb000", "linewidth": 0.4}
    for k in range(0, grid.shape[1], max(round(_LINES_MM / grid.spacing[1]), 1)):
        place.plot(w[k], h[k], **style)
    for k in range(0, grid.shape[2], max(round(_LINES_MM / grid.spacing[2]), 1)):
        place.plot(w[:, k], h[:, k], **style)
    place.set_xlim(-0.5, grid.shape[2] - 0.5)
    place.set_ylim(grid.shape[1] - 0.5, -0.5)
