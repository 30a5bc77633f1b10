"""Read a closed surface from a binary STL or PLY file and return its volume.

Counts in a header are compared with the size of the file before anything is allocated, so that a
lying header can neither exhaust memory nor yield an empty mesh in silence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import CardiogenError, read_bounded
from cardiogen.measure.mesh_validity import check_closed
from cardiogen.measure.volumes import mesh_volume

_READ = (".stl", ".ply")
_OTHERS = (".vtp", ".vtu", ".vtk", ".pvd", ".glb", ".gltf", ".obj", ".off")
_LIMIT = 1 << 30
_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip

Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]


def is_mesh(path: str | Path) -> bool:
    """Whether a file name is that of a mesh, of a format that is read or one that is not."""
    return Path(path).suffix.lower() in _READ + _OTHERS


def closed_volume(path: str | Path) -> float:
    """Return the volume inside the closed surface of a file, mL (vertices in mm).

    Raises:
        CardiogenError: S60-S64 as ``read_mesh``; S65 if the surface is open or twisted.
    """
    vertices, faces = read_mesh(path)
    for rule, detail in check_closed(faces):
        raise CardiogenError(
            "S65", path, found=f"{rule}: {detail}", expected="a closed surface",
            remedy="closing its openings with lids",
        )  # fmt: skip
    return abs(float(mesh_volume(vertices, faces)))


def read_mesh(path: str | Path) -> Mesh:
    """Read vertices ``(V, 3)`` and triangles ``(F, 3)`` of a binary STL or PLY file.

    Equal corners of an STL become one vertex.

    Raises:
        CardiogenError: S60 for another format, S61 where counts and size of the file disagree,
            S62 without faces, S63 for coordinates that are not finite, S64 for indices that
            point to no vertex.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _READ:
        raise CardiogenError(
            "S60", path, found=f"a {suffix} file",
            expected="a closed surface (binary .stl or .ply), a NIfTI label map or a folder",
            remedy="for generated hearts their measures.csv and frames.csv, or their STL files",
        )  # fmt: skip
    content = read_bounded(path, limit=_LIMIT, family="S")
    vertices, faces = (_parse_ply if suffix == ".ply" else _parse_stl)(content, path)
    if len(faces) == 0:
        raise _fault("S62", path, "no faces", "a closed surface")
    if not np.isfinite(vertices).all():
        raise _fault("S63", path, "coordinates that are not finite", "numbers in mm")
    if faces.min() < 0 or faces.max() >= len(vertices):
        found = f"indices {faces.min()} to {faces.max()} for {len(vertices)} vertices"
        raise _fault("S64", path, found, "indices of vertices that exist")
    return vertices, faces


def _parse_stl(content: bytes, path: str | Path) -> Mesh:
    if len(content) < 84:
        raise _fault("S61", path, f"{len(content)} bytes", "a binary STL of at least 84 bytes")
    count = int(np.frombuffer(content, "<u4", 1, offset=80)[0])
    needed = 84 + count * _STL.itemsize
    if needed != len(content):
        if content[:5] == b"solid":
            raise _fault("S60", path, "a text STL", "a binary STL")
        found = f"{count} faces, which take {needed} bytes, in {len(content)} bytes"
        raise _fault("S61", path, found, "a size that fits the count")
    corners = np.frombuffer(content, _STL, count, offset=84)["corners"].reshape(-1, 3)
    vertices, faces = np.unique(corners, axis=0, return_inverse=True)
    return vertices.astype(np.float64), faces.reshape(-1, 3).astype(np.int64)


def _parse_ply(content: bytes, path: str | Path) -> Mesh:
    """Parse ``binary_little_endian`` PLY with elements ``vertex`` and ``face``, in this order."""
    end = content.find(b"end_header\n", 0, 1 << 16)
    if not content.startswith(b"ply\n") or end < 0:
        raise _fault("S60", path, "no PLY header", "a PLY file")
    header = content[:end].decode("ascii", errors="replace").split("\n")[1:]
    counts, fields, face_type = _ply_header(header, path)
    vertex_type = np.dtype(fields)
    start = end + len(b"end_header\n")
    needed = counts["vertex"] * vertex_type.itemsize + counts["face"] * face_type.itemsize
    if needed != len(content) - start:
        found = f"{counts}, which take {needed} bytes, in {len(content) - start} bytes"
        raise _fault("S61", path, found, "a size that fits the counts (triangles only)")
    points = np.frombuffer(content, vertex_type, counts["vertex"], offset=start)
    start += counts["vertex"] * vertex_type.itemsize
    faces = np.frombuffer(content, face_type, counts["face"], offset=start)
    if (faces["count"] != 3).any():
        raise _fault("S60", path, "faces that are not triangles", "triangles")
    vertices = np.stack([points[axis] for axis in "xyz"], axis=-1).astype(np.float64)
    return vertices, faces["index"].astype(np.int64)


def _ply_header(
    header: list[str], path: str | Path
) -> tuple[dict[str, int], list[tuple[str, str]], np.dtype]:
    """Element counts, fields of a vertex and the type of a triangle."""
    counts: dict[str, int] = {}
    fields: list[tuple[str, str]] = []
    face_type: np.dtype | None = None
    words = [line.split() for line in header if line and not line.startswith(("comment", "obj_"))]
    for word in words:
        match word:
            case ["format", "binary_little_endian", "1.0"]:
                pass
            case ["element", ("vertex" | "face") as name, number] if number.isdecimal():
                counts[name] = int(number[:18])
            case ["property", kind, name] if kind in _PLY_TYPES and list(counts) == ["vertex"]:
                fields.append((name, "<" + _PLY_TYPES[kind]))
            case ["property", "list", length, kind, _] if (
                {length, kind} <= set(_PLY_TYPES) and len(counts) == 2 and face_type is None
            ):
                index = (f"<{_PLY_TYPES[kind]}", 3)
                face_type = np.dtype([("count", f"<{_PLY_TYPES[length]}"), ("index", *index)])
            case _:
                found = f"header line {' '.join(word)!r}"
                raise _fault("S60", path, found, "binary_little_endian vertices and triangles")
    names = [name for name, _ in fields]
    if face_type is None or not {"x", "y", "z"} <= set(names) or len(set(names)) < len(names):
        raise _fault("S60", path, "no x, y, z or no faces", "vertices with x, y, z and triangles")
    return counts, fields, face_type


def _fault(code: str, path: str | Path, found: str, expected: str) -> CardiogenError:
    return CardiogenError(
        code, path, found=found, expected=expected, remedy="exporting the surface again"
    )
