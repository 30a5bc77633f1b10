"""Meshes of a whole cohort in one zarr store: few files, any heart read in milliseconds.

``vertices (N, T, V, 3)`` are whole numbers of hundredths of a millimeter (int16), 32 hearts a
file; ``faces/<surface> (F, 3)`` and ``phases (T,)`` are shared by all. Row k is row k of the
tables beside the store. Needs the package zarr (``pip install 'cardiogen[cohort]'``).
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cardiogen.base import CardiogenError, Exit
from cardiogen.data.mesh import Topology
from cardiogen.export.space import Space, to_space

if TYPE_CHECKING:
    import zarr

STORE = "meshes.zarr"
SHARD = 32  # hearts a file
UNIT_MM = 0.01
_VERSION = 1


def require_zarr() -> None:
    """Refuse (U31, exit 2) to write a store without the package zarr, before any work."""
    if importlib.util.find_spec("zarr") is None:
        raise CardiogenError(
            "U31", "--format", found="zarr, which is not installed", expected="zarr 3 or newer",
            remedy="pip install 'cardiogen[cohort]', or --format vtp", exit_code=Exit.USAGE,
        )  # fmt: skip


class MeshStore:
    """Meshes of hearts with one topology and one set of phases."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self.group = group
        self._vertices = group["vertices"]

    @classmethod
    def create(
        cls, path: str | Path, topology: Topology, phases: ArrayLike, *, space: Space = "ras",
        facts: dict[str, object] | None = None,
    ) -> Self:  # fmt: skip
        """Make an empty store.

        Args:
            path: folder that is not there yet.
            topology: of all hearts.
            phases: ``(T,)``.
            space: axes of the vertices.
            facts: further attributes, such as marks and the model.

        Raises:
            CardiogenError: U31 without zarr.
        """
        require_zarr()
        import zarr

        phases = np.asarray(phases, dtype=np.float64)
        group = zarr.create_group(store=str(path), zarr_format=3, overwrite=False)
        group.attrs.update(
            {
                "format": "cardiogen meshes",
                "version": _VERSION,
                "unit": f"{UNIT_MM} mm",
                "space": space.upper(),
                **(facts or {}),
            }
        )
        shape = (len(phases), topology.vertex_count, 3)
        group.create_array(
            "vertices", shape=(0, *shape), chunks=(1, *shape), shards=(SHARD, *shape),
            dtype="int16", fill_value=0,
        )  # fmt: skip
        group.create_array("phases", data=phases)
        faces = group.create_group("faces")
        for surface, own in topology.surfaces.items():
            faces.create_array(surface.name, data=np.ascontiguousarray(own, dtype=np.int32))
        return cls(Path(path), group)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store to read or to go on with.

        Raises:
            CardiogenError: U31 without zarr, S90 for what is no such store.
        """
        require_zarr()
        import zarr

        try:
            group = zarr.open_group(str(path), mode="r+")
            known = group.attrs.get("version") == _VERSION and "vertices" in group
        except (OSError, ValueError, KeyError) as error:
            raise _no_store(path, type(error).__name__) from error
        if not known:
            raise _no_store(path, "a store of another kind")
        return cls(Path(path), group)

    def __len__(self) -> int:
        return self._vertices.shape[0]

    @property
    def phases(self) -> NDArray[np.float64]:
        """Phases ``(T,)`` of every heart."""
        return self.group["phases"][:]

    def vertices(self, heart: int) -> NDArray[np.float32]:
        """Return the meshes ``(T, V, 3)`` of one heart, mm."""
        if not 0 <= heart < len(self):
            raise ValueError(f"heart must be 0 to {len(self) - 1}, got {heart}")
        return self._vertices[heart].astype(np.float32) * np.float32(UNIT_MM)

    def append(self, meshes: ArrayLike) -> None:
        """Add hearts ``(K, T, V, 3)`` of :func:`packed`, and flush them to disk."""
        meshes = np.asarray(meshes)
        first = len(self)
        if meshes.dtype != np.int16 or meshes.shape[1:] != self._vertices.shape[1:]:
            raise ValueError(
                f"meshes must be int16 (K, *{self._vertices.shape[1:]}), "
                f"got {meshes.dtype} {meshes.shape}"
            )
        self._vertices.resize((first + len(meshes), *self._vertices.shape[1:]))
        self._vertices[first:] = meshes
        for shard in range(first // SHARD, (first + len(meshes) - 1) // SHARD + 1):
            _flush(self.path / "vertices" / "c" / str(shard) / "0" / "0" / "0")
        _flush(self.path / "vertices" / "zarr.json")

    def truncate(self, hearts: int) -> None:
        """Forget all but the first hearts."""
        if not 0 <= hearts <= len(self):
            raise ValueError(f"hearts must be 0 to {len(self)}, got {hearts}")
        self._vertices.resize((hearts, *self._vertices.shape[1:]))


def packed(vertices: NDArray, space: Space) -> NDArray[np.int16]:
    """Return world RAS meshes ``(T, V, 3)`` mm in hundredths of a millimeter of a space."""
    units = np.rint(to_space(vertices, space) / UNIT_MM)
    limit = np.iinfo(np.int16).max
    if not (np.abs(units) <= limit).all():
        raise ValueError(f"vertices must lie within {limit * UNIT_MM:.0f} mm of the origin")
    return units.astype(np.int16)


def _flush(file: Path) -> None:
    # An empty shard has no file: hearts are never all zeros, so that each of ours has one.
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_store(path: str | Path, found: str) -> CardiogenError:
    return CardiogenError(
        "S90", path, found=found, expected=f"{STORE} as cardiogen generate writes it",
        remedy="the folder inside the cohort",
    )  # fmt: skip
