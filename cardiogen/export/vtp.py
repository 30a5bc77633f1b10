"""Meshes as VTP (XML PolyData) and their time series as PVD, for ParaView, PyVista and 3D Slicer.

Convention: appended raw little-endian blocks, each compressed by zlib; UInt32 block headers; equal
input gives equal bytes. Lengths are mm; the field data name space and origin of the mesh. No light
library writes this format (trimesh has none, VTK weighs 564 MB).
Reference: VTK file formats, "XML file formats", appended data and compressed blocks.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import atomic_write
from cardiogen.data.mesh import Topology
from cardiogen.export.marks import Marks
from cardiogen.export.space import Space, check_space, to_space

_VTK_TYPES = {
    "|u1": "UInt8", "<i4": "Int32", "<i8": "Int64", "<f4": "Float32", "<f8": "Float64",
}  # fmt: skip
# Level 1 keeps 25 frames of 7,000 vertices under half a second; level 6 saves 5 % of the bytes.
_ZLIB_LEVEL = 1

FieldValue = str | float | int | Sequence[str]


@dataclass(frozen=True, eq=False)
class DataArray:
    """One named array, encoded as it lies in the file; what frames share is encoded once."""

    name: str
    vtk_type: str
    components: int
    block: bytes


def encode_array(name: str, values: ArrayLike) -> DataArray:
    """Return ``values`` ``(N,)`` or ``(N, K)`` as a compressed block with its VTK header.

    Raises:
        ValueError: for an empty array or a dtype that VTK files do not hold.
    """
    values = np.asarray(values)
    values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    if values.dtype.str not in _VTK_TYPES or values.ndim not in (1, 2) or not values.size:
        raise ValueError(
            f"values of {name} must be a filled (N,) or (N, K) array of dtype "
            f"{', '.join(_VTK_TYPES)}, got {values.dtype.str} {values.shape}"
        )
    packed = zlib.compress(values.tobytes(), _ZLIB_LEVEL)
    header = struct.pack("<4I", 1, values.nbytes, 0, len(packed))
    components = values.shape[1] if values.ndim == 2 else 1
    return DataArray(name, _VTK_TYPES[values.dtype.str], components, header + packed)


def encode_faces(faces: NDArray[np.integer]) -> tuple[DataArray, DataArray]:
    """Return triangles ``(F, 3)`` as the two arrays of a VTK cell list."""
    ends = 3 * np.arange(1, len(faces) + 1, dtype=np.int32)
    connectivity = np.asarray(faces, dtype=np.int32).reshape(-1)
    return encode_array("connectivity", connectivity), encode_array("offsets", ends)


def polydata_bytes(
    points: NDArray[np.float64],
    faces: tuple[DataArray, DataArray],
    *,
    point_data: Sequence[DataArray] = (),
    cell_data: Sequence[DataArray] = (),
    fields: Mapping[str, FieldValue],
) -> bytes:
    """Return a whole VTP file; ``points`` ``(V, 3)`` are stored as float32 (7e-6 mm at 100 mm)."""
    coords = encode_array("Points", np.asarray(points, dtype=np.float32))
    face_count = struct.unpack_from("<I", faces[1].block, 4)[0] // 4
    groups = [
        ("PointData", point_data), ("CellData", cell_data), ("Points", [coords]), ("Polys", faces),
    ]  # fmt: skip
    lines, blocks, offset = [], [], 0
    for tag, arrays in groups:
        lines.append(f"<{tag}>")
        for array in arrays:
            lines.append(
                f'<DataArray type="{array.vtk_type}" Name={quoteattr(array.name)} '
                f'NumberOfComponents="{array.components}" format="appended" offset="{offset}"/>'
            )
            blocks.append(array.block)
            offset += len(array.block)
        lines.append(f"</{tag}>")
    head = [
        '<?xml version="1.0"?>',
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt32" '
        'compressor="vtkZLibDataCompressor">',
        "<PolyData>",
        *_field_lines(fields),
        f'<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfLines="0" '
        f'NumberOfStrips="0" NumberOfPolys="{face_count}">',
    ]
    tail = ["</Piece>", "</PolyData>", '<AppendedData encoding="raw">', "_"]
    text = "\n".join([*head, *lines, *tail]).encode()
    return text + b"".join(blocks) + b"\n</AppendedData>\n</VTKFile>\n"


def _field_lines(fields: Mapping[str, FieldValue]) -> list[str]:
    lines = ["<FieldData>"]
    for name, value in fields.items():
        if isinstance(value, float | int):
            kind = "Float64" if isinstance(value, float) else "Int32"
            lines.append(
                f'<DataArray type="{kind}" Name={quoteattr(name)} NumberOfTuples="1" '
                f'format="ascii">{value!r}</DataArray>'
            )
            continue
        texts = [value] if isinstance(value, str) else list(value)
        # VTK keeps strings as their byte codes, each ended by 0.
        codes = " ".join(str(code) for text in texts for code in (*text.encode(), 0))
        lines.append(
            f'<Array type="String" Name={quoteattr(name)} NumberOfTuples="{len(texts)}" '
            f'format="ascii">{codes}</Array>'
        )
    return [*lines, "</FieldData>"]


def write_vtp(
    path: str | Path,
    vertices: ArrayLike,
    faces: NDArray[np.integer],
    *,
    point_data: Mapping[str, ArrayLike] | None = None,
    cell_data: Mapping[str, ArrayLike] | None = None,
    fields: Mapping[str, FieldValue] | None = None,
    space: Space = "ras",
    marks: Marks,
    overwrite: bool = False,
) -> Path:
    """Write one triangle mesh.

    Args:
        path: file to write, atomically.
        vertices: ``(V, 3)`` world RAS mm.
        faces: ``(F, 3)``, outward.
        point_data: arrays of V rows by name.
        cell_data: arrays of F rows by name.
        fields: what else to say about the mesh, by name.
        space: space of the written points.
        marks: origin of the heart; the fields ``synthetic`` and ``extrapolated`` (1 or 0) keep it.
        overwrite: whether an existing file may be replaced.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    content = polydata_bytes(
        to_space(vertices, space),
        encode_faces(faces),
        point_data=[encode_array(name, values) for name, values in (point_data or {}).items()],
        cell_data=[encode_array(name, values) for name, values in (cell_data or {}).items()],
        fields=_origin_fields(space, marks) | dict(fields or {}),
    )
    return _write_bytes(Path(path), content, overwrite)


def write_mesh_series(
    folder: str | Path,
    vertices: NDArray[np.float64],
    topology: Topology,
    *,
    times: ArrayLike,
    ed: int = 0,
    point_data: Mapping[str, ArrayLike] | None = None,
    space: Space = "ras",
    marks: Marks,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``mesh/frame_000.vtp`` ... and ``heart.pvd``, which plays them in ParaView.

    Vertices carry ``aha_segment``, ``region`` and ``displacement_mm`` (distance from ED), faces
    carry ``part``; the names of regions and parts are in the field data.

    Args:
        folder: folder of ``heart.pvd``.
        vertices: ``(T, V, 3)`` world RAS mm.
        topology: faces and vertex labels shared by all frames.
        times: seconds (or phases) of the frames ``(T,)``, increasing.
        ed: frame from which displacements are measured.
        point_data: further arrays ``(T, V)`` or ``(T, V, K)`` by name, e.g. wall thickness in mm.
        space: space of the written points.
        marks: origin of the heart.
        overwrite: whether existing files may be replaced.

    Returns:
        The written paths, ``heart.pvd`` last.
    """
    folder = Path(folder)
    times = np.asarray(times, dtype=np.float64)
    if times.shape != vertices.shape[:1] or (np.diff(times) <= 0).any():
        raise ValueError(f"times must be {len(vertices)} increasing numbers, got {times}")
    (folder / "mesh").mkdir(parents=True, exist_ok=True)
    faces = encode_faces(topology.all_faces)
    labels = [
        encode_array("aha_segment", topology.aha_segment),
        encode_array("region", topology.region),
    ]
    parts = [encode_array("part", topology.face_part)]
    fields = _origin_fields(space, marks) | {
        "region_names": topology.region_names,
        "part_names": tuple(topology.parts),
    }
    moved = np.linalg.norm(vertices - vertices[ed], axis=-1).astype(np.float32)
    points = to_space(vertices, space)
    written = []
    for t, time in enumerate(times):
        scalars = [encode_array("displacement_mm", moved[t])]
        scalars += [encode_array(k, np.asarray(v)[t]) for k, v in (point_data or {}).items()]
        content = polydata_bytes(
            points[t], faces, point_data=labels + scalars, cell_data=parts,
            fields=fields | {"TimeValue": float(time)},
        )  # fmt: skip
        written.append(_write_bytes(folder / "mesh" / f"frame_{t:03d}.vtp", content, overwrite))
    names = [path.relative_to(folder).as_posix() for path in written]
    return [*written, _write_pvd(folder / "heart.pvd", names, times, marks, overwrite)]


def _origin_fields(space: Space, marks: Marks) -> dict[str, FieldValue]:
    return {"SPACE": check_space(space).upper(), "unit": "mm"} | marks.cells


def _write_pvd(
    path: Path, names: Sequence[str], times: NDArray[np.float64], marks: Marks, overwrite: bool
) -> Path:
    lines = [
        '<?xml version="1.0"?>',
        # The format has no place for facts of its own.
        f"<!-- {' '.join(['cardiogen', *marks.words])} -->",
        '<VTKFile type="Collection" version="0.1" byte_order="LittleEndian">',
        "<Collection>",
        *(f'<DataSet timestep="{float(time)!r}" group="" part="0" file={quoteattr(name)}/>'
          for name, time in zip(names, times, strict=True)),
        "</Collection>",
        "</VTKFile>",
    ]  # fmt: skip
    return _write_bytes(path, ("\n".join(lines) + "\n").encode(), overwrite)


def _write_bytes(path: Path, content: bytes, overwrite: bool) -> Path:
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)
    return path
