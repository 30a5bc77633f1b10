"""Audit images: what a chain does to an image and its labels, as a grid of slices.

Rows are transforms, each alone, and the whole chain; columns are the original and random draws.
Labels are drawn as outlines, so that what moved and what did not is seen at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augment.chain import Chain, placed
from augment.lattice import Lattice
from cardiogen.base import atomic_write
from cardiogen.ops import argmax_labels, one_hot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# As in the pictures of cardiogen.export, which lies above this layer: LV, wall, RV.
_OUTLINES = ("#d1343f", "#f0dcb4", "#2f74c0", "#6fbf73", "#b07cc6", "#e09f3e")
_CELL_INCHES, _TITLE_INCHES, _DPI = 1.7, 0.32, 110
_MARGIN_MM = 40.0


def write_preview_grid(
    path: str | Path,
    image: Tensor,
    *,
    chain: Chain,
    spacing: Sequence[float],
    seed: int = 0,
    draws: int = 4,
    labels: Tensor | None = None,
    classes: int = 4,
    overwrite: bool = False,
) -> Path:
    """Write a PNG that shows every transform of a chain, and the chain, at random strengths.

    Args:
        path: file to write, atomically.
        image: one image ``(1, 1, *S)``, 2D or 3D; of a stack the slice with most labels is shown.
        chain: what to show.
        spacing: mm per axis.
        seed: same seed, same picture.
        draws: columns beside the original.
        labels: integer map ``(1, 1, *S)``, or None; the view is what lies around them.
        classes: of the labels, with background.
        overwrite: replace the file.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    rows = preview_rows(
        image, chain=chain, spacing=spacing, seed=seed, draws=draws, labels=labels, classes=classes
    )
    figure = _figure(rows, _view(image, labels, tuple(spacing)), tuple(spacing))
    with atomic_write(path, overwrite=overwrite) as temporary:
        figure.canvas.print_png(temporary, metadata={"Software": None})

    return Path(path)


Panel = tuple[Tensor, Tensor | None]
View = tuple[int | None, slice, slice]


def preview_rows(
    image: Tensor,
    *,
    chain: Chain,
    spacing: Sequence[float],
    seed: int = 0,
    draws: int = 4,
    labels: Tensor | None = None,
    classes: int = 4,
) -> dict[str, list[Panel]]:
    """Return images and labels ``(1, 1, *S)`` by row: the original, then random draws."""
    if len(image) != 1 or image.shape[1] != 1:
        raise ValueError(f"image must have shape (1, 1, ...), got {tuple(image.shape)}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    lattice = Lattice.of(image, spacing=spacing)
    hot = None if labels is None else one_hot(labels.long(), classes)
    alone = {t.name: Chain(transforms=(t,), padding=chain.padding) for t in chain.transforms}
    rows: dict[str, list[Panel]] = {}
    for name, drawn_from in {**alone, "chain": chain}.items():
        generator = torch.Generator().manual_seed(seed)
        panels: list[Panel] = [(image, labels)]
        for _ in range(draws):
            draw = placed(drawn_from.sample(lattice, generator=generator), image)
            with torch.no_grad():
                applied = draw.apply(image, padding=drawn_from.padding)
                moved = None if hot is None else argmax_labels(applied.labels(hot))
            panels.append((applied.image, moved))
        rows[name] = panels

    return rows


def _view(image: Tensor, labels: Tensor | None, spacing: tuple[float, ...]) -> View:
    """Return the slice with most labels and a window around them, or the middle and all."""
    level = None if image.ndim == 4 else image.shape[2] // 2
    window = (slice(None), slice(None))
    if labels is None or not (labels > 0).any():
        return level, *window
    marked = labels[0, 0] > 0
    if level is not None:
        level = int(marked.flatten(1).sum(dim=1).argmax())
        marked = marked.any(dim=0)
    window = []
    for axis, step in enumerate(spacing[-2:]):
        places = marked.any(dim=1 - axis).nonzero()
        margin = round(_MARGIN_MM / step)
        window.append(slice(max(int(places[0]) - margin, 0), int(places[-1]) + margin + 1))

    return level, *window


def _figure(rows: dict[str, list[Panel]], view: View, spacing: tuple[float, ...]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = len(next(iter(rows.values())))
    size = columns * _CELL_INCHES, len(rows) * (_CELL_INCHES + _TITLE_INCHES)
    figure = Figure(figsize=size, dpi=_DPI)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.98, wspace=0.03, hspace=0.18)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    # One window for all: changes of brightness are to be seen.
    original = next(iter(rows.values()))[0][0]
    window = float(original.min()), float(original.max())
    for (name, panels), line in zip(rows.items(), axes, strict=True):
        for number, (panel, axis) in enumerate(zip(panels, line, strict=True)):
            axis.set_axis_off()
            picture, outline = (_plane(part, view) for part in panel)
            axis.imshow(picture, cmap="gray", vmin=window[0], vmax=window[1],
                        aspect=spacing[-2] / spacing[-1])  # fmt: skip
            _draw_outlines(axis, outline)
            if number == 0:
                axis.set_title(name, fontsize=8, loc="left", pad=2)

    return figure


def _draw_outlines(axis: object, labels: NDArray | None) -> None:
    if labels is None:
        return
    for code in range(1, int(labels.max()) + 1):
        region = (labels == code).astype(np.float32)
        if region.any() and not region.all():
            color = _OUTLINES[(code - 1) % len(_OUTLINES)]
            axis.contour(region, levels=[0.5], colors=[color], linewidths=0.8)


def _plane(part: Tensor | None, view: View) -> NDArray | None:
    if part is None:
        return None
    level, rows, columns = view
    plane = part[0, 0] if level is None else part[0, 0, level]

    return plane[rows, columns].detach().cpu().numpy()
