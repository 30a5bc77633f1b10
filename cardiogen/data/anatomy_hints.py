"""What label maps of hearts cannot be: empty, inside out, of impossible size, ES above ED.

Rough by intention: counts of voxels and of their neighbors, no model of the heart. Validity in
full is measured elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError
from cardiogen.data.grid import Grid
from cardiogen.data.labels import LABEL_MAPS, Structure

_VOLUME_ML = (5.0, 2000.0)
# Shares of a cavity's outline that touch myocardium: nearly 1 for LV, under a half for RV.
_SWAP_MARGIN = 0.1
_STRUCTURES = (Structure.LV, Structure.MYO, Structure.RV)


def anatomy_faults(
    frames: Mapping[str, NDArray[np.uint8]],
    paths: Mapping[str, Path],
    grid: Grid,
    label_map: str,
) -> Iterator[CardiogenError]:
    """Yield the faults of the structures at ED and ES.

    Args:
        frames: structures ``(D, H, W)`` under ``"ed"`` and ``"es"``, either may be absent.
        paths: file of each frame.
        grid: lattice of the frames.
        label_map: name of the map that they were decoded with.

    Yields:
        L37 for structures that are missing, L41 if LV and RV look swapped, L43 if ES holds more
        blood than ED, L44 for volumes at ED outside 5 to 2000 mL.
    """
    volumes = {
        name: {s: float((frame == s).sum() * grid.voxel_volume_ml) for s in _STRUCTURES}
        for name, frame in frames.items()
    }
    for name, of in volumes.items():
        absent = [s.name for s in _STRUCTURES if of[s] == 0]
        if absent:
            yield CardiogenError(
                "L37", paths[name], found=f"classes missing at {name}: {', '.join(absent)}",
                expected="LV, MYO and RV", remedy="labeling them, or excluding the subject",
            )  # fmt: skip
    for name, frame in frames.items():
        yield from _swap_faults(frame, paths[name], grid, label_map)
    yield from _volume_faults(volumes, paths)


def enclosure(labels: NDArray[np.uint8], structure: Structure, grid: Grid) -> float:
    """Return the share of a structure's outline within slices that touches the myocardium.

    Slices are cut across the axis of largest spacing; on isotropic grids all axes count.
    """
    spacing = np.array(grid.spacing)
    through = spacing > 1.5 * spacing.min()
    axes = [axis for axis in range(3) if not through[axis]]
    touching, outline = 0, 0
    inside = labels == structure
    for axis in axes:
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        for here, there in ((tuple(first), tuple(second)), (tuple(second), tuple(first))):
            edge = inside[here] & ~inside[there]
            outline += int(edge.sum())
            touching += int((edge & (labels[there] == Structure.MYO)).sum())
    return touching / outline if outline else 0.0


def require_label_map(
    labels: NDArray[np.uint8], path: str | Path, grid: Grid, label_map: str
) -> None:
    """Refuse labels that another label map makes a heart of: read wrongly, LV and RV swap.

    Looks at the frame with most labels, and only where it shows all three structures.

    Args:
        labels: structures ``(T, D, H, W)`` or ``(D, H, W)``.
        path: their file.
        grid: their lattice.
        label_map: name of the map that they were decoded with.

    Raises:
        CardiogenError: L41, naming the maps that would fit.
    """
    frames = labels.reshape(-1, *grid.shape)
    frame = frames[np.count_nonzero(frames, axis=(1, 2, 3)).argmax()]
    if all((frame == structure).any() for structure in _STRUCTURES):
        for fault in _swap_faults(frame, path, grid, label_map):
            raise fault


def _swap_faults(
    labels: NDArray[np.uint8], path: str | Path, grid: Grid, label_map: str
) -> Iterator[CardiogenError]:
    left, right = (enclosure(labels, s, grid) for s in (Structure.LV, Structure.RV))
    if right <= left + _SWAP_MARGIN:
        return
    codes = {structure: code for code, structure in LABEL_MAPS[label_map].items()}
    fits = [name for name, mapping in LABEL_MAPS.items()
            if mapping.get(codes[Structure.LV]) == Structure.RV]  # fmt: skip
    yield CardiogenError(
        "L41", path,
        found=f"myocardium encloses {right:.0%} of the RV and {left:.0%} of the LV, so LV and RV "
        f"look swapped under the label map {label_map}",
        expected="myocardium around the LV",
        remedy=f"--label-map {' or '.join(fits)}" if fits else "another --label-map",
    )  # fmt: skip


def _volume_faults(
    volumes: Mapping[str, Mapping[Structure, float]], paths: Mapping[str, Path]
) -> Iterator[CardiogenError]:
    low, high = _VOLUME_ML
    for structure, volume in volumes.get("ed", {}).items():
        if volume > 0 and not low < volume < high:
            yield CardiogenError(
                "L44", paths["ed"], found=f"{structure.name} volume {volume:.4g} mL at ED",
                expected=f"{low:g} to {high:g} mL", remedy="checking spacing and labels",
            )  # fmt: skip
    if "ed" in volumes and "es" in volumes:
        for structure in (Structure.LV, Structure.RV):
            ed, es = volumes["ed"][structure], volumes["es"][structure]
            if ed > 0 and es >= ed:
                yield CardiogenError(
                    "L43", paths["es"],
                    found=f"{structure.name} volume {es:.4g} mL at ES, {ed:.4g} mL at ED",
                    expected="more blood at ED than at ES", remedy="swapping ED and ES",
                )  # fmt: skip
