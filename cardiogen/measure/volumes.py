"""Volumes, mass and ejection fraction of both ventricles, per frame and per subject.

Convention: volumes in mL, mass in g, from label maps (voxels x volume of a voxel) or from closed
meshes (divergence theorem). Papillary muscles belong to the blood pool ("smooth" convention).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.data.grid import Grid
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Surface, Topology
from cardiogen.data.sequence import Sequence

if TYPE_CHECKING:
    import pandas as pd

MYOCARDIAL_DENSITY = 1.05  # g/mL
_LEFT_AT_ES = 0.005  # share of the stroke volume

# The ten columns of ukbb_cardiac's tables, in its order, and the mass/volume ratio.
PHENOTYPES = (
    "LVEDV (mL)", "LVESV (mL)", "LVSV (mL)", "LVEF (%)", "LVCO (L/min)", "LVM (g)",
    "RVEDV (mL)", "RVESV (mL)", "RVSV (mL)", "RVEF (%)", "LVM/LVEDV (g/mL)",
)  # fmt: skip

STRUCTURES = (Structure.LV, Structure.MYO, Structure.RV)

Source = Literal["labels", "mesh"]
Volumes = dict[Structure, NDArray[np.float64]]


def label_volumes(labels: ArrayLike, grid: Grid) -> Volumes:
    """Return the volume of every structure: number of voxels x |det affine|.

    Args:
        labels: structures ``(T, D, H, W)`` or one frame ``(D, H, W)``.
        grid: their lattice.

    Returns:
        Structure -> ``(T,)`` mL; zero where a structure is not labeled.
    """
    labels = np.asarray(labels)
    if labels.shape[-3:] != grid.shape or labels.ndim not in (3, 4):
        raise ValueError(f"labels must be (T, D, H, W) on grid {grid.shape}, got {labels.shape}")
    frames = labels.reshape(-1, int(np.prod(grid.shape)))
    counts = np.stack([[np.count_nonzero(frame == s) for s in STRUCTURES] for frame in frames])
    return dict(zip(STRUCTURES, counts.T * grid.voxel_volume_ml, strict=True))


def mesh_volume(vertices: ArrayLike, faces: ArrayLike) -> NDArray[np.float64]:
    """Return the signed volume inside a closed surface: ``sum a . (b x c) / 6``.

    Positive for outward winding. Corners are seen from one of them: exact arithmetic would not
    notice, floating-point arithmetic far from the origin does.

    Args:
        vertices: ``(..., V, 3)`` mm, any leading axes.
        faces: ``(F, 3)`` indices, shared by all.

    Returns:
        Volumes ``(...)``, mL.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    faces = np.asarray(faces)
    if faces.size and not 0 <= faces.min() <= faces.max() < vertices.shape[-2]:
        raise ValueError(f"faces must name vertices 0 to {vertices.shape[-2] - 1}")
    origin = vertices[..., faces[0, :1], :] if len(faces) else 0.0
    # Coordinates first, and no index checked: gathering is several times faster so. It leaves rows
    # whose sums are taken in one order, whatever the frames beside them.
    x, y, z = np.ascontiguousarray(np.moveaxis(vertices - origin, -1, 0))
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (
        tuple(each.take(index, axis=-1, mode="clip") for each in (x, y, z))
        for index in np.ascontiguousarray(faces.T)
    )
    triple = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    return triple.sum(axis=-1) / 6000.0


def mesh_volumes(vertices: ArrayLike, topology: Topology) -> Volumes:
    """Return the volume of every structure from the closed surfaces of a heart mesh.

    LV is inside ``LV_ENDO``, MYO between ``LV_EPI`` and ``LV_ENDO``, RV inside ``RV_ENDO``. A
    surface that the topology lacks gives NaN.

    Args:
        vertices: ``(T, V, 3)`` or ``(V, 3)`` world RAS mm.
        topology: the surfaces.

    Returns:
        Structure -> ``(T,)`` mL.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    if vertices.ndim == 2:
        vertices = vertices[None]
    missing = np.full(len(vertices), np.nan)
    inside = {
        s: mesh_volume(vertices, f) for s, f in topology.surfaces.items() if s != Surface.EPI
    }
    endo = inside.get(Surface.LV_ENDO, missing)
    return {
        Structure.LV: endo,
        Structure.MYO: inside.get(Surface.LV_EPI, missing) - endo,
        Structure.RV: inside.get(Surface.RV_ENDO, missing),
    }


def end_of_ejection(lv_ml: ArrayLike, *, full_ml: float | None = None) -> int:
    """Return the first frame whose LV has emptied all but 0.5 % of the stroke.

    The volume rests at its least for a while, so the least volume itself is no time.

    Args:
        lv_ml: volumes in the order of time ``(T,)``.
        full_ml: volume before ejection; the largest of ``lv_ml`` by default.
    """
    lv_ml = np.asarray(lv_ml, dtype=np.float64)
    least = lv_ml.min()
    full = lv_ml.max() if full_ml is None else full_ml

    return int(np.argmax(lv_ml <= least + _LEFT_AT_ES * (full - least)))


def end_systole(lv_ml: ArrayLike, *, ed: int) -> int | None:
    """Return the frame of least LV volume, or None if no frame but ``ed`` has one."""
    lv_ml = _labeled(lv_ml)
    lv_ml[ed] = np.nan
    return None if np.isnan(lv_ml).all() else int(np.nanargmin(lv_ml))


def phenotypes(
    volumes: Mapping[Structure, ArrayLike],
    *,
    ed: int = 0,
    es: int | None = None,
    cycle_s: float | None = None,
) -> dict[str, float]:
    """Return the clinical phenotypes of one subject under ukbb_cardiac's column names.

    ``SV = EDV - ESV``, ``EF = 100 SV / EDV``, ``CO = SV / cycle``, ``LVM = 1.05 MYO`` at ED.

    Args:
        volumes: structure -> ``(T,)`` mL. Zero means "not labeled" and gives NaN, since a heart
            without a cavity has no stroke volume that could be reported.
        ed: frame of end-diastole.
        es: frame of end-systole; None (only ED is there) leaves what depends on it NaN.
        cycle_s: duration of the cycle in seconds; unknown leaves the cardiac output NaN, for a
            guessed heart rate is not a measurement.

    Returns:
        The eleven ``PHENOTYPES``.
    """
    at = {s: _labeled(volumes.get(s, np.zeros(1 + max(ed, es or 0)))) for s in STRUCTURES}
    row = dict.fromkeys(PHENOTYPES, float("nan"))
    for name, structure in (("LV", Structure.LV), ("RV", Structure.RV)):
        end_diastolic = at[structure][ed]
        end_systolic = at[structure][es] if es is not None else np.nan
        row[f"{name}EDV (mL)"] = float(end_diastolic)
        row[f"{name}ESV (mL)"] = float(end_systolic)
        row[f"{name}SV (mL)"] = float(end_diastolic - end_systolic)
        row[f"{name}EF (%)"] = float(100.0 * (1.0 - end_systolic / end_diastolic))
    if cycle_s is not None:
        row["LVCO (L/min)"] = row["LVSV (mL)"] * 60.0 / cycle_s / 1000.0
    row["LVM (g)"] = float(MYOCARDIAL_DENSITY * at[Structure.MYO][ed])
    row["LVM/LVEDV (g/mL)"] = row["LVM (g)"] / row["LVEDV (mL)"]
    return row


def _labeled(volume: ArrayLike) -> NDArray[np.float64]:
    """Volumes with NaN where there is nothing."""
    volume = np.array(volume, dtype=np.float64)
    volume[volume == 0] = np.nan
    return volume


def sequence_volumes(sequence: Sequence, *, source: Source | None = None) -> Volumes:
    """Return the volumes of every frame of a sequence.

    Args:
        sequence: a heart with labels, meshes or both.
        source: what to measure; None takes the labels where there are some, else the mesh.

    Raises:
        ValueError: if the sequence has nothing of that kind.
    """
    if source is None:
        source = "labels" if sequence.labels is not None else "mesh"
    if source == "labels" and sequence.labels is not None and sequence.grid is not None:
        return label_volumes(sequence.labels, sequence.grid)
    if source == "mesh" and sequence.vertices is not None and sequence.topology is not None:
        return mesh_volumes(sequence.vertices, sequence.topology)
    raise ValueError(f"sequence must have {source} to measure, {sequence.subject_id!r} has none")


def measure_sequence(
    sequence: Sequence, *, source: Source | None = None
) -> tuple[dict[str, float], pd.DataFrame]:
    """Return the phenotypes of a subject and the volumes of its frames.

    ED is the sequence's; ES too, or the frame of least LV volume if the sequence names none. Where
    one frame serves as both, it is ES alone: what needs ED is NaN.

    Args:
        sequence: a heart with labels, meshes or both.
        source: what the phenotypes come from; None takes labels where there are some.

    Returns:
        Row of ``PHENOTYPES``, and a table with one line per frame: ``frame``, ``phase``,
        ``ED/ES`` and ``LV (mL)``, ``MYO (mL)``, ``RV (mL)``; where both labels and meshes exist,
        the volumes of the other source follow as ``LV mesh (mL)`` or ``LV labels (mL)``, ...
    """
    import pandas as pd

    has_labels, has_mesh = sequence.labels is not None, sequence.vertices is not None
    source = source or ("labels" if has_labels else "mesh")
    volumes = sequence_volumes(sequence, source=source)
    es = sequence.es
    if es is None:
        es = end_systole(volumes[Structure.LV], ed=sequence.ed)
    names = np.full(len(sequence), "", dtype=object)
    names[sequence.ed] = "ED"
    if es is not None:
        names[es] = "ES"
    frames = pd.DataFrame(
        {"frame": np.arange(len(sequence)), "phase": sequence.phases, "ED/ES": names}
    )
    for structure in STRUCTURES:
        frames[f"{structure.name} (mL)"] = volumes[structure]
    if has_labels and has_mesh:
        other: Source = "mesh" if source == "labels" else "labels"
        for structure, value in sequence_volumes(sequence, source=other).items():
            frames[f"{structure.name} {other} (mL)"] = value
    row = phenotypes(volumes, ed=sequence.ed, es=es, cycle_s=sequence.cycle_s)
    if es == sequence.ed:
        row = {name: value if "ESV" in name else np.nan for name, value in row.items()}
    return row, frames
