"""Anatomical validity of label maps: written rules, each with its name and neighborhood.

``structure-present``  LV, MYO and RV are there.
``known-labels``       no code but the four structures.
``one-component``      every structure is one piece (26 neighbors; between thick slices, pieces
                       that come within half a slice distance of each other are one).
``no-holes``           every background voxel reaches the border of the image (6 neighbors).
``lv-enclosed``        below the basal third of its length no LV voxel has a face in common with
                       background or RV (in a stack of thick slices, within a slice: from one to
                       the next a slanting ventricle shifts by more than its wall).
``lv-rv-apart``        no LV voxel has a face in common with RV.
``rv-on-myo``          RV and MYO have faces in common.
``solid-ventricle``    LV and MYO together have no handle and no cavity (Euler number 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.measure.frame import lv_frame, opening_faces, stack_axis
from cardiogen.measure.violation import Violation

# Share of the cavity's length, from the base, in which it may be open: valves and a tilted plane.
OPEN_BASE = 1 / 3

_LV, _MYO, _RV = Structure.LV, Structure.MYO, Structure.RV


def check_labels(labels: ArrayLike, grid: Grid) -> list[Violation]:
    """Return every broken rule of every frame; an empty list is a valid heart.

    Args:
        labels: structures ``(T, D, H, W)`` or one frame ``(D, H, W)``.
        grid: their lattice.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (3, 4) or labels.shape[-3:] != grid.shape:
        raise ValueError(f"labels must be (T, D, H, W) on grid {grid.shape}, got {labels.shape}")
    frames = labels.reshape(-1, *grid.shape)
    return [
        Violation(rule, index, detail)
        for index, frame in enumerate(frames)
        for rule, detail in _check_frame(frame, grid)
    ]


def _check_frame(frame: NDArray, grid: Grid) -> Iterator[tuple[str, str]]:
    odd = [int(code) for code in np.flatnonzero(np.bincount(frame.reshape(-1))) if code > 3]
    if odd:
        yield "known-labels", f"codes {odd}"
    absent = [s.name for s in (_LV, _MYO, _RV) if not (frame == s).any()]
    if absent:
        yield "structure-present", f"no {', '.join(absent)}"
    box, heart, placed = _cropped(frame, grid)
    if not box:
        return
    yield from _components(heart, placed)
    yield from _holes(heart)
    yield from _contacts(heart)
    if not {"LV", "MYO"} & set(absent):
        yield from _enclosure(heart, placed)
        yield from _solid(heart)


def _cropped(frame: NDArray, grid: Grid) -> tuple[bool, NDArray, Grid]:
    """The heart's box with one voxel of background around it: most of the image is empty."""
    inside = frame != Structure.BACKGROUND
    low, high = [], []
    for axis in range(3):
        used = np.flatnonzero(inside.any(axis=tuple(k for k in range(3) if k != axis)))
        if len(used) == 0:
            return False, frame, grid
        low.append(int(used[0]))
        high.append(int(used[-1]) + 1)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    start = tuple(a - 1 for a in low)
    shape = tuple(b - a + 2 for a, b in zip(low, high, strict=True))
    return True, np.pad(frame[box], 1), grid.cropped(start, shape)


def _components(heart: NDArray, grid: Grid) -> Iterator[tuple[str, str]]:
    from scipy.ndimage import label

    across = stack_axis(grid)
    for structure in (_LV, _MYO, _RV):
        neighbors = np.ones((3, 3, 3), dtype=bool)
        if across is not None:
            neighbors.swapaxes(0, across)[[0, 2]] = False
        pieces, count = label(heart == structure, structure=neighbors)
        sizes = np.bincount(pieces.reshape(-1), minlength=1)[1:]
        if across is not None and count > 1:
            joined = _join_slices(np.moveaxis(pieces, across, 0), np.delete(grid.spacing, across),
                                  reach=grid.spacing[across] / 2)  # fmt: skip
            count = int(joined.max()) + 1
            sizes = np.bincount(joined, weights=sizes).astype(int)
        if count > 1:
            shown = ", ".join(str(n) for n in np.sort(sizes)[::-1][:5])
            yield "one-component", f"{structure.name} in {count} pieces of {shown} voxels"


def _join_slices(pieces: NDArray, spacing: NDArray, *, reach: float) -> NDArray[np.int32]:
    """Group the pieces 1..n of single slices ``(K, H, W)`` that reach the next slice's pieces.

    Returns:
        Group of every piece, ``(n,)`` from 0.
    """
    from scipy.ndimage import distance_transform_edt
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [np.empty((0, 2), dtype=np.int64)]
    for lower, upper in pairwise(pieces):
        if lower.any() and upper.any():
            for one, other in ((lower, upper), (upper, lower)):
                distance, nearest = distance_transform_edt(
                    one == 0, sampling=spacing, return_indices=True
                )
                close = (other > 0) & (distance <= reach)
                links.append(np.stack([one[tuple(nearest)][close], other[close]], axis=1))
    pairs = np.unique(np.concatenate(links), axis=0) - 1
    size = int(pieces.max())
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def _holes(heart: NDArray) -> Iterator[tuple[str, str]]:
    from scipy.ndimage import label

    pieces, count = label(heart == Structure.BACKGROUND)
    if count > 1:
        # The outermost voxel belongs to the background that surrounds the heart.
        lost = int((pieces > 0).sum() - (pieces == pieces[0, 0, 0]).sum())
        yield "no-holes", f"{count - 1} enclosed pockets of background, {lost} voxels"


def _contacts(heart: NDArray) -> Iterator[tuple[str, str]]:
    lv_rv = rv_myo = 0
    for axis in range(3):
        swapped = heart.swapaxes(0, axis)
        # Products of codes tell pairs apart: LV x RV = 3, MYO x RV = 6.
        product = swapped[:-1] * swapped[1:]
        pair = swapped[:-1] != swapped[1:]
        lv_rv += int(((product == _LV * _RV) & pair).sum())
        rv_myo += int(((product == _MYO * _RV) & pair).sum())
    if lv_rv:
        yield "lv-rv-apart", f"{lv_rv} faces between LV and RV"
    if not rv_myo and (heart == _RV).any() and (heart == _MYO).any():
        yield "rv-on-myo", "RV and MYO do not touch"


def _enclosure(heart: NDArray, grid: Grid) -> Iterator[tuple[str, str]]:
    try:
        frame = lv_frame(heart, grid)
    except CardiogenError as error:
        yield "lv-enclosed", error.found
        return
    centers, areas = opening_faces(heart, grid)
    low = frame.fraction(centers) < 1 - OPEN_BASE
    if frame.stack_axis is not None:
        low &= np.abs(areas @ frame.axis) < 0.5 * np.linalg.norm(areas, axis=1)
    if low.any():
        lowest = float(frame.fraction(centers[low]).min())
        yield (
            "lv-enclosed",
            (
                f"{int(low.sum())} open faces of LV below its basal third, lowest at {lowest:.2f} "
                "of its length"
            ),
        )


def _solid(heart: NDArray) -> Iterator[tuple[str, str]]:
    from skimage.measure import euler_number

    ventricle = (heart == _LV) | (heart == _MYO)
    number = int(euler_number(ventricle, connectivity=3))
    if number != 1:
        yield "solid-ventricle", f"Euler number of LV and MYO together is {number}, not 1"
