"""Template topology: one conforming biventricular surface complex for all hearts.

Vertices sit on a polar lattice of rows (0 at the base, the last ring next to the apex) and
columns. Columns are tied to the two insertions of the right ventricle, rows to its apex, so that
a vertex index means the same anatomy in every heart. The right ventricular septum uses the
vertices of the left epicardium: the two cavities share one wall, with neither gap nor overlap.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from cardiogen.data.mesh import Surface, Topology

COLUMNS = 48
ROWS = 24  # rings without the apex vertex
SEPTAL = 20  # column intervals between the insertions (columns 0..SEPTAL), 150 degrees of 360
RV_ROWS = 20  # row intervals from the base to the right ventricular apex
LID_LAYERS = 6  # intervals from the septum to the free wall across the right base

Faces = NDArray[np.int64]

_endo = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
_ENDO_APEX = ROWS * COLUMNS
_epi = _ENDO_APEX + 1 + np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
_EPI_APEX = int(_epi.max()) + 1
_LV_CENTER = _EPI_APEX + 1


def _sheet_over_septum(first: int) -> NDArray[np.int64]:
    """Indices (RV_ROWS + 1, SEPTAL + 1) of a sheet that hangs on the rim of the septum."""
    sheet = _epi[: RV_ROWS + 1, : SEPTAL + 1].copy()
    inner = (RV_ROWS, SEPTAL - 1)
    sheet[:RV_ROWS, 1:SEPTAL] = first + np.arange(inner[0] * inner[1]).reshape(inner)
    return sheet


_septum = _epi[: RV_ROWS + 1, : SEPTAL + 1]
_free = _sheet_over_septum(_LV_CENTER + 1)
_outer = _sheet_over_septum(int(_free.max()) + 1)
_lid_inner = (
    int(_outer.max())
    + 1
    + np.arange((LID_LAYERS - 1) * (SEPTAL - 1)).reshape(LID_LAYERS - 1, SEPTAL - 1)
)
VERTEX_COUNT = int(_lid_inner.max()) + 1

# Where each block of vertices lies, for the code that places them.
ENDO = slice(0, _ENDO_APEX + 1)
EPI = slice(_ENDO_APEX + 1, _EPI_APEX + 1)
LV_CENTER = _LV_CENTER
FREE_WALL = slice(_LV_CENTER + 1, int(_free.max()) + 1)
RV_OUTER = slice(int(_free.max()) + 1, int(_outer.max()) + 1)
RV_LID = slice(int(_outer.max()) + 1, VERTEX_COUNT)


def _quads(grid: NDArray[np.int64]) -> Faces:
    """Split the cells of an index grid into triangles; degenerate ones are dropped.

    The diagonal alternates like a checkerboard, so that the mesh prefers no direction; its parity
    keeps the corners at the right apex from lying on the rim with all three vertices.
    """
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    odd = (np.add.outer(np.arange(a.shape[0]), np.arange(a.shape[1])) % 2 == 0)[..., None]
    first = np.where(odd, np.stack([a, b, c], -1), np.stack([a, b, d], -1))
    second = np.where(odd, np.stack([a, c, d], -1), np.stack([b, c, d], -1))
    faces = np.concatenate([first.reshape(-1, 3), second.reshape(-1, 3)])
    proper = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    )
    return faces[proper]


def _cup(rings: NDArray[np.int64], apex: int) -> Faces:
    """Faces of a closed polar lattice, apex included, seen from outside the cup."""
    closed = np.concatenate([rings, rings[:, :1]], axis=1)
    last = closed[-1]
    tip = np.stack([np.full(COLUMNS, apex), last[1:], last[:-1]], axis=-1)
    return np.concatenate([_quads(closed)[:, ::-1], tip])


def _base_faces() -> dict[str, Faces]:
    ring_in = np.append(_endo[0], _endo[0, 0])
    ring_out = np.append(_epi[0], _epi[0, 0])
    lid = np.stack([np.full(COLUMNS, _LV_CENTER), ring_in[:-1], ring_in[1:]], axis=-1)
    layers = np.empty((LID_LAYERS + 1, SEPTAL + 1), dtype=np.int64)
    layers[0], layers[-1] = _septum[0], _free[0]
    layers[1:-1, 0], layers[1:-1, -1] = _septum[0, 0], _septum[0, -1]
    layers[1:-1, 1:-1] = _lid_inner
    return {
        "lv_lid": lid,
        "lv_rim": _quads(np.stack([ring_in, ring_out]))[:, ::-1],
        "rv_lid": _quads(layers)[:, ::-1],
        "rv_rim": _quads(np.stack([_free[0], _outer[0]]))[:, ::-1],
    }


def _parts() -> dict[str, Faces]:
    """Patches that tile all surfaces; each winds outward for the chamber that it belongs to."""
    epi = _cup(_epi, _EPI_APEX)
    # A face whose corners all lie on the septum's rim may still lie outside it.
    septum = _quads(_septum)[:, ::-1]
    inside = {tuple(sorted(face)) for face in septum.tolist()}
    septal = np.array([tuple(sorted(face)) in inside for face in epi.tolist()])
    return {
        "lv_endo": _cup(_endo, _ENDO_APEX),
        "lv_free_wall": epi[~septal],
        "septum": epi[septal],
        "rv_free_wall": _quads(_free)[:, ::-1],
        "rv_epi": _quads(_outer)[:, ::-1],
        **_base_faces(),
    }


def _aha_segments() -> NDArray[np.uint8]:
    """AHA segment of every left ventricular vertex from its row and column."""
    septal_angle = np.arange(COLUMNS)
    # Six sectors from the anterior insertion (column SEPTAL) backwards: 2 and 3 are the septum.
    free = (septal_angle - SEPTAL) / (COLUMNS - SEPTAL)
    basal = np.where(septal_angle < SEPTAL / 2, 3, 2)
    outside = septal_angle >= SEPTAL
    basal = np.where(outside, np.array([1, 6, 5, 4])[np.clip((free * 4).astype(int), 0, 3)], basal)
    # Height of a row over the cavity's apex in the average heart: 1 - cos(mu), with the right
    # ventricle ending at 20 degrees. Rows are even in mu, thirds of the length are not.
    mu = np.concatenate([np.linspace(90, 20, RV_ROWS, endpoint=False), np.linspace(20, 5, 4)])
    level = np.digitize(-(1 - np.cos(np.radians(mu))), [-2 / 3, -1 / 3, -0.03])
    rings = np.stack([
        np.choose(level[row], [basal, basal + 6, _apical_quarters(mu[row]), np.full(COLUMNS, 17)])
        for row in range(ROWS)
    ])  # fmt: skip
    segments = np.zeros(VERTEX_COUNT, dtype=np.uint8)
    segments[_endo], segments[_epi] = rings, rings
    segments[[_ENDO_APEX, _EPI_APEX]] = 17
    return segments


def _apical_quarters(mu: float) -> NDArray[np.int64]:
    """Segment 13..16 of every column at a polar angle (degrees) of the average heart.

    Four quarters of the circle about the middle of the septum at mid level; the septum itself is
    narrower than a quarter there.
    """

    def septum(at: float) -> tuple[float, float]:
        """Middle and half width of the average septum, degrees."""
        return 2.0 + 32.0 * (at / 90.0 - 0.5), 46.0 * float(np.exp(at / 90.0 - 0.5))

    middle, half = septum(mu)
    column = np.arange(COLUMNS)
    free = half + (360.0 - 2 * half) * (column - SEPTAL) / (COLUMNS - SEPTAL)
    angle = middle + np.where(column <= SEPTAL, half * (2 * column / SEPTAL - 1), free)
    quarter = np.mod(angle - septum(60.0)[0] + 45.0, 360.0) // 90.0
    return np.array([14, 13, 16, 15])[quarter.astype(int)]


REGIONS = ("lv_endo", "lv_epi", "septum", "rv_free_wall", "rv_epi", "base")


def _regions() -> NDArray[np.uint8]:
    region = np.zeros(VERTEX_COUNT, dtype=np.uint8)
    region[EPI] = REGIONS.index("lv_epi")
    region[_septum] = REGIONS.index("septum")
    region[FREE_WALL] = REGIONS.index("rv_free_wall")
    region[RV_OUTER] = REGIONS.index("rv_epi")
    region[RV_LID] = region[_LV_CENTER] = REGIONS.index("base")
    return region


@cache
def template_topology() -> Topology:
    """Return the topology that all population hearts share."""
    parts = _parts()

    def join(*names: str) -> Faces:
        return np.concatenate([parts[name] for name in names])

    surfaces = {
        Surface.LV_ENDO: join("lv_endo", "lv_lid"),
        Surface.LV_EPI: join("lv_free_wall", "septum", "lv_rim", "lv_lid"),
        # The septum winds outward for the left ventricle: turned round for the right one.
        Surface.RV_ENDO: np.concatenate(
            [parts["septum"][:, ::-1], parts["rv_free_wall"], parts["rv_lid"]]
        ),
        Surface.EPI: join("lv_free_wall", "rv_epi", "lv_rim", "lv_lid", "rv_lid", "rv_rim"),
    }
    return Topology(
        surfaces=surfaces,
        parts=parts,
        aha_segment=_aha_segments(),
        region=_regions(),
        region_names=REGIONS,
    )
