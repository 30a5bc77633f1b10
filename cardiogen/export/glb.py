"""A beating heart as one GLB file (glTF 2.0 with morph targets), for browsers, slides and Blender.

Convention: the buffers hold mm in the space that ``asset.extras`` names; the root node turns them
into what glTF asks for, meters with +Y up (superior) and the patient's front toward the viewer
(+Z anterior, +X left). Frame 0 is the base shape and every other frame one morph target; between
frames t and t+1 only their two weights differ from zero, so that players with few active targets
show the right shape, and the last key returns to frame 0.
Written by hand: of trimesh's exporter only 40 lines of JSON would remain beside the morph targets.
Reference: glTF 2.0 specification, sections 3.7.2.2 (morph targets) and 3.11 (animations).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import atomic_write
from cardiogen.data.mesh import Surface, Topology
from cardiogen.export.marks import Marks
from cardiogen.export.palette import EPI_ROSE, LV_RED, RV_BLUE, linear
from cardiogen.export.space import Space, check_space, to_space
from cardiogen.export.surface import compact, vertex_normals

_FLOAT, _USHORT, _UINT = 5126, 5123, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963


@dataclass(frozen=True)
class Look:
    """Name and color of a surface: linear RGBA, where alpha under 1 makes it see-through."""

    name: str
    rgba: tuple[float, float, float, float]
    roughness: float


SURFACE_LOOKS: Mapping[Surface, Look] = {
    Surface.LV_ENDO: Look("LV", (*linear(LV_RED), 1.0), 0.45),
    Surface.RV_ENDO: Look("RV", (*linear(RV_BLUE), 1.0), 0.45),
    Surface.EPI: Look("EPI", (*linear(EPI_ROSE), 0.26), 0.6),
}


@dataclass
class _Buffer:
    """Binary chunk in the making, with its views and accessors."""

    data: bytearray = field(default_factory=bytearray)
    views: list[dict] = field(default_factory=list)
    accessors: list[dict] = field(default_factory=list)

    def add(self, values: NDArray, kind: str, *, target: int | None = None) -> int:
        """Append an array and return the number of its accessor."""
        view = {"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes}
        self.views.append(view | ({"target": target} if target else {}))
        self.data += values.tobytes()
        self.data += bytes(-len(self.data) % 4)
        flat = values.reshape(len(values), -1)
        self.accessors.append({
            "bufferView": len(self.views) - 1,
            "componentType": {"f": _FLOAT, "H": _USHORT, "I": _UINT}[values.dtype.char],
            "count": len(values),
            "type": kind,
            "min": flat.min(axis=0).tolist(),
            "max": flat.max(axis=0).tolist(),
        })  # fmt: skip
        return len(self.accessors) - 1


def write_glb(
    path: str | Path,
    vertices: NDArray[np.float64],
    topology: Topology,
    *,
    phases: ArrayLike,
    cycle_s: float = 1.0,
    space: Space = "ras",
    marks: Marks,
    extras: Mapping[str, str | float | int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the surfaces of ``SURFACE_LOOKS`` that the topology has, beating in a loop.

    Args:
        path: ``.glb`` file to write, atomically.
        vertices: ``(T, V, 3)`` world RAS mm; T = 1 gives a still heart.
        topology: closed surfaces.
        phases: fraction of the cycle of every frame ``(T,)``, increasing, within one cycle.
        cycle_s: duration of one beat, seconds.
        space: space of the buffers; the heart looks the same in viewers either way.
        marks: origin of the heart, for ``asset.extras``.
        extras: further facts for ``asset.extras``.
        overwrite: whether an existing file may be replaced.

    Raises:
        CardiogenError: O01 if the file exists.
    """
    phases = np.asarray(phases, dtype=np.float64)
    if phases.shape != vertices.shape[:1] or (np.diff(phases) <= 0).any():
        raise ValueError(f"phases must be {len(vertices)} increasing numbers, got {phases}")
    if phases[-1] - phases[0] >= 1:
        raise ValueError(f"phases must lie within one cycle, got {phases[0]} to {phases[-1]}")
    buffer = _Buffer()
    points = to_space(vertices, space)
    shown = {s: look for s, look in SURFACE_LOOKS.items() if s in topology.surfaces}
    meshes = [
        _add_mesh(buffer, points, topology.surfaces[surface], look.name, material)
        for material, (surface, look) in enumerate(shown.items())
    ]
    if not meshes:
        raise ValueError(f"topology must have one of {', '.join(s.name for s in SURFACE_LOOKS)}")
    facts = {
        "space": f"buffers in {check_space(space).upper()} mm, root node to Y-up meters",
        **marks.flags,
        "cycle_s": cycle_s,
        "first_phase": float(phases[0]),
        **(extras or {}),
    }
    tree = {
        "asset": {"version": "2.0", "generator": "cardiogen", "extras": facts},
        "scene": 0,
        "scenes": [{"name": "heart", "nodes": [0]}],
        "nodes": [
            {"name": "heart", "matrix": _to_viewer(points[0], space),
             "children": list(range(1, len(meshes) + 1))},
            *({"name": mesh["name"], "mesh": m} for m, mesh in enumerate(meshes)),
        ],
        "meshes": meshes,
        "materials": [_material(look) for look in shown.values()],
    }  # fmt: skip
    if len(points) > 1:
        tree["animations"] = [_add_animation(buffer, phases, cycle_s, len(meshes))]
    tree |= {
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.data)}],
    }
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(_glb_bytes(tree, bytes(buffer.data)))
    return Path(path)


def _add_mesh(
    buffer: _Buffer, points: NDArray[np.float64], faces: NDArray, name: str, material: int
) -> dict:
    """Append one surface with its morph targets; return its glTF mesh."""
    used, faces = compact(faces)
    shapes = points[:, used]
    # Differences are taken in float64, so base + target is the frame to float32 rounding.
    deltas = (shapes[1:] - shapes[0]).astype("<f4")
    normals = vertex_normals(shapes[0], faces).astype("<f4")
    indices = faces.reshape(-1).astype("<u2" if len(used) < 2**16 else "<u4")
    primitive = {
        "attributes": {
            "POSITION": buffer.add(shapes[0].astype("<f4"), "VEC3", target=_VERTEX_BUFFER),
            "NORMAL": buffer.add(normals, "VEC3", target=_VERTEX_BUFFER),
        },
        "indices": buffer.add(indices, "SCALAR", target=_INDEX_BUFFER),
        "material": material,
        "mode": 4,
    }
    mesh = {"name": name, "primitives": [primitive]}
    if len(deltas):
        primitive["targets"] = [
            {"POSITION": buffer.add(delta, "VEC3", target=_VERTEX_BUFFER)} for delta in deltas
        ]
        names = [f"frame_{t:03d}" for t in range(1, len(points))]
        mesh |= {"weights": [0.0] * len(deltas), "extras": {"targetNames": names}}
    return mesh


def _add_animation(
    buffer: _Buffer, phases: NDArray[np.float64], cycle_s: float, mesh_count: int
) -> dict:
    """Append the beat: key t has weight 1 on target t, the first and the last key none."""
    frames = len(phases)
    times = np.append(phases - phases[0], 1.0) * cycle_s
    weights = np.zeros((frames + 1, frames - 1), dtype="<f4")
    weights[1:frames] = np.eye(frames - 1)
    sampler = {
        "input": buffer.add(times.astype("<f4"), "SCALAR"),
        "output": buffer.add(weights.reshape(-1), "SCALAR"),
        "interpolation": "LINEAR",
    }
    channels = [
        {"sampler": 0, "target": {"node": 1 + m, "path": "weights"}} for m in range(mesh_count)
    ]
    return {"name": "beat", "samplers": [sampler], "channels": channels}


def _to_viewer(points: NDArray[np.float64], space: Space) -> list[float]:
    """Return the column-major matrix (X left, Y superior, Z anterior) m, heart at the origin."""
    to_ras = to_space(np.eye(3), space)
    viewer = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]]) @ to_ras * 1e-3
    matrix = np.eye(4)
    matrix[:3, :3] = viewer
    matrix[:3, 3] = -viewer @ (points.min(axis=0) + points.max(axis=0)) / 2
    return matrix.T.reshape(-1).tolist()


def _material(look: Look) -> dict:
    translucent = look.rgba[3] < 1
    return {
        "name": look.name,
        "pbrMetallicRoughness": {
            "baseColorFactor": list(look.rgba),
            "metallicFactor": 0.0,
            "roughnessFactor": look.roughness,
        },
        "alphaMode": "BLEND" if translucent else "OPAQUE",
        "doubleSided": False,
    }


def _glb_bytes(tree: dict, data: bytes) -> bytes:
    text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(data)
    head = b"glTF" + struct.pack("<2I", 2, total)
    chunks = struct.pack("<I", len(text)) + b"JSON" + text
    return head + chunks + struct.pack("<I", len(data)) + b"BIN\0" + data
