"""Topology of a heart mesh: faces, named closed surfaces and vertex regions, shared by all hearts.

Convention: vertices are world RAS mm, ``(V, 3)`` or ``(T, V, 3)``; faces ``(F, 3)`` int64 wind
counter-clockwise seen from outside the surface they bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Surface(IntEnum):
    """Closed surfaces that a heart mesh carries."""

    LV_ENDO = 1
    LV_EPI = 2
    RV_ENDO = 3
    EPI = 4


@dataclass(frozen=True, eq=False)
class Topology:
    """What all meshes of one template share.

    Attributes:
        surfaces: closed, outward faces ``(F_s, 3)`` of every surface, lids included. ``LV_ENDO``
            bounds the left blood pool, ``LV_EPI`` blood pool and myocardium together, ``RV_ENDO``
            the right blood pool, ``EPI`` both ventricles with the right wall.
        parts: open, named patches for display, ``(F_p, 3)`` each: ``lv_endo``, ``lv_epi``,
            ``rv_septum``, ``rv_free_wall``, ``base``, ``epi``.
        aha_segment: AHA segment 1..17 of every vertex of the left ventricle, 0 elsewhere ``(V,)``.
        region: index into ``region_names`` of every vertex ``(V,)``.
        region_names: names of the vertex regions.
    """

    surfaces: Mapping[Surface, NDArray[np.int64]]
    parts: Mapping[str, NDArray[np.int64]]
    aha_segment: NDArray[np.uint8]
    region: NDArray[np.uint8]
    region_names: tuple[str, ...]

    @property
    def vertex_count(self) -> int:
        """Number of vertices V."""
        return len(self.region)

    def mirrored(self) -> Topology:
        """Return the topology for vertices in a world that mirrors the heart.

        There every face would wind inward: all are turned round, so that volumes stay positive.
        """
        return replace(
            self,
            surfaces={name: faces[:, ::-1] for name, faces in self.surfaces.items()},
            parts={name: faces[:, ::-1] for name, faces in self.parts.items()},
        )

    @property
    def all_faces(self) -> NDArray[np.int64]:
        """Faces of the whole model without doubles: every part once, ``(F, 3)``."""
        return np.concatenate(list(self.parts.values()))

    @property
    def face_part(self) -> NDArray[np.uint8]:
        """Index of the part of every row of ``all_faces``, ``(F,)``."""
        sizes = [len(faces) for faces in self.parts.values()]
        return np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)
