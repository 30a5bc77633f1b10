"""Closed surfaces as binary STL, named as ukb-atlas names them (``LV_ED.stl``, ``EPI_ES.stl``).

Written with numpy: trimesh takes 0.9 s to import and leaves its 80-byte header blank, yet the
header is the only place where an STL can say in which space it lies.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import atomic_write
from cardiogen.data.mesh import Surface, Topology
from cardiogen.export.marks import Marks
from cardiogen.export.space import Space, space_tag, to_space

STL_NAMES = {Surface.LV_ENDO: "LV", Surface.RV_ENDO: "RV", Surface.EPI: "EPI"}

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def write_stl(
    path: str | Path,
    vertices: ArrayLike,
    faces: NDArray[np.integer],
    *,
    name: str,
    space: Space = "ras",
    marks: Marks,
    overwrite: bool = False,
) -> Path:
    """Write one surface; ``vertices`` ``(V, 3)`` world RAS mm, ``faces`` ``(F, 3)`` outward.

    Raises:
        CardiogenError: O01 if the file exists.
        ValueError: if ``name`` does not fit the header.
    """
    title = " ".join(["cardiogen", name, space_tag(space), "mm", *marks.words])
    if len(title.encode()) > 80:
        raise ValueError(f"name must fit an 80-byte header, got {name!r}")
    corners = to_space(vertices, space)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    records = np.zeros(len(faces), dtype=_RECORD)
    # A face without area has no normal; the format asks for zeros there.
    np.divide(normals, length, out=normals, where=length > 0)
    records["normal"], records["corners"] = normals, corners
    with atomic_write(path, overwrite=overwrite) as temporary:
        header = title.encode().ljust(80) + np.uint32(len(faces)).astype("<u4").tobytes()
        temporary.write_bytes(header + records.tobytes())
    return Path(path)


def write_stl_surfaces(
    folder: str | Path,
    vertices: ArrayLike,
    topology: Topology,
    *,
    frame_name: str,
    space: Space = "ras",
    marks: Marks,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``LV_<frame_name>.stl``, ``RV_...`` and ``EPI_...`` of one frame ``(V, 3)``.

    Surfaces that the topology does not have are left out.
    """
    paths = []
    for surface, short in STL_NAMES.items():
        if surface in topology.surfaces:
            name = f"{short}_{frame_name}"
            paths.append(write_stl(
                Path(folder) / f"{name}.stl", vertices, topology.surfaces[surface], name=name,
                space=space, marks=marks, overwrite=overwrite,
            ))  # fmt: skip
    return paths
