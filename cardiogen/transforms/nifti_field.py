"""Displacements as NIfTI vector images, in the world of NIfTI (RAS) or that of ITK and ANTs (LPS).

Both are 5D, ``(X, Y, Z, 1, 3)``, in mm, and pull back: the vector at a point of the fixed image
leads to its point of the moving image. They differ in one number of the header and two signs:

- intent 1006 (displacement vectors) holds RAS mm, as NIfTI defines; this is our own convention,
  and ITK converts it when it reads and writes (since early 2023, pull request 3884).
- intent 1007 (vectors) is what ITK and ANTs write (``1Warp.nii.gz``): the numbers are LPS mm.

So the reader needs no telling, and refuses other intents rather than guess two signs.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, atomic_write
from cardiogen.data.grid import Grid
from cardiogen.data.nifti_bytes import RawNifti, load_raw
from cardiogen.data.nifti_geometry import Prefer, check_lattice, place
from cardiogen.transforms.field import Displacement

Convention = Literal["nifti", "itk"]
_INTENTS: dict[Convention, int] = {"nifti": 1006, "itk": 1007}
# World axes (x, y, z) of a convention from RAS; it is its own inverse.
_SIGNS: dict[Convention, tuple[float, float, float]] = {
    "nifti": (1.0, 1.0, 1.0),
    "itk": (-1.0, -1.0, 1.0),
}
_TYPES = {16: "f4", 64: "f8"}
_MAX_MM = 1e6
_GZIP_LEVEL = 1


def write_displacement(
    path: str | Path,
    displacement: Tensor,
    grid: Grid,
    *,
    convention: Convention,
    overwrite: bool = False,
) -> None:
    """Write one displacement as a NIfTI vector image in mm, float32 (float64 if it is).

    Args:
        path: destination, ``.nii`` or ``.nii.gz``.
        displacement: ``fixed_to_moving`` ``(1, 3, D, H, W)``, voxels, as
            ``transform.displacement(grid)`` gives it.
        grid: its lattice.
        convention: ``"nifti"`` (RAS, intent 1006) or ``"itk"`` (LPS, intent 1007, for ITK and
            ANTs).
        overwrite: replace an existing file.

    Raises:
        CardiogenError: O01 if the file exists, R01 if it cannot be written, N19 or N22 for a grid
            that no reader should accept.
        ValueError: for a displacement that does not fit the grid or is not finite.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"path must end in .nii or .nii.gz, got {path.name}")
    if convention not in _INTENTS:
        raise ValueError(f"convention must be 'nifti' or 'itk', got {convention!r}")
    field = checked_field(displacement, grid)
    check_lattice(grid.affine, path)
    world = np.einsum("ij,jdhw->idhw", grid.affine[:3, :3], field.astype(np.float64))
    world = world * np.array(_SIGNS[convention])[:, None, None, None]
    dtype = "<f8" if displacement.dtype == torch.float64 else "<f4"
    content = _header(grid, dtype, _INTENTS[convention]) + world.astype(dtype).tobytes()
    if path.name.endswith(".gz"):
        content = zlib.compress(content, _GZIP_LEVEL, wbits=31)
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def read_displacement(
    path: str | Path, *, prefer: Prefer | None = None, limit: int | None = None
) -> Displacement:
    """Read a NIfTI vector image of either convention as a transform on the file's own grid.

    Args:
        path: ``.nii`` or ``.nii.gz`` of this package, ITK, SimpleITK or ANTs.
        prefer: which of sform, qform, pixdim to believe where they disagree.
        limit: most bytes to accept, by default 4 GiB.

    Raises:
        CardiogenError: N52 for what is no displacement in mm, N26 if it is not finite, N01-N49 as
            ``data.read_image``.
    """
    raw = load_raw(path, limit=limit)
    convention = _convention(raw, path)
    with np.errstate(all="ignore"):
        placement = place(raw.header, raw.shape[:3], path, prefer=prefer)
    grid = Grid(raw.shape[2::-1], placement.affine[:, [2, 1, 0, 3]])
    world = stored_vectors(raw, path)[:, 0] * np.array(_SIGNS[convention])[:, None, None, None]
    voxels = np.einsum("ij,jdhw->idhw", grid.inverse[:3, :3], world)
    dtype = torch.float64 if int(raw.header["datatype"]) == 64 else torch.float32

    return Displacement(grid, torch.from_numpy(voxels).to(dtype).unsqueeze(0))


def checked_field(displacement: Tensor, grid: Grid) -> NDArray[np.floating]:
    """Return one displacement ``(1, 3, *S)`` as an array ``(3, *S)``, refusing what is none."""
    if tuple(displacement.shape) != (1, 3, *grid.shape):
        raise ValueError(
            f"displacement must have shape (1, 3, D, H, W) on grid {grid.shape}, "
            f"got {tuple(displacement.shape)}"
        )
    field = displacement.detach().cpu()[0]
    if not torch.isfinite(field).all():
        raise ValueError("displacement must be finite, got NaN or infinity")
    return field.to(torch.promote_types(field.dtype, torch.float32)).numpy()


def _header(grid: Grid, dtype: str, intent: int) -> bytes:
    """Return 352 bytes: header and the empty extension flag."""
    from nibabel import Nifti1Header

    affine = grid.affine[:, [2, 1, 0, 3]]
    header = Nifti1Header(endianness="<")
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape((*grid.shape[::-1], 1, 3))
    header.set_xyzt_units("mm")
    header.set_qform(affine, code="scanner", strip_shears=True)
    # A qform cannot hold even a tiny shear; where it would stray, the sform stands alone.
    if not np.allclose(header.get_qform(), affine, rtol=0, atol=1e-4):
        header["qform_code"] = 0
    header.set_sform(affine, code="scanner")
    header["intent_code"] = intent
    header["descrip"] = b"cardiogen displacement"
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + bytes(4)


def _convention(raw: RawNifti, path: str | Path) -> Convention:
    intent = int(raw.header["intent_code"])
    names = {code: name for name, code in _INTENTS.items()}
    vectors = len(raw.shape) == 5 and raw.shape[3:] == (1, 3)
    if not vectors or intent not in names or not unscaled_floats(raw):
        raise CardiogenError(
            "N52", path,
            found=f"shape {raw.shape}, intent {intent}, datatype {int(raw.header['datatype'])}",
            expected="shape (X, Y, Z, 1, 3) of unscaled float32 or float64 with intent 1006 "
            "(RAS mm) or 1007 (LPS mm, as ITK and ANTs write)",
            remedy="a displacement field as ITK, ANTs or cardiogen write it",
        )  # fmt: skip
    return names[intent]


def unscaled_floats(raw: RawNifti) -> bool:
    """Whether the voxels are float32 or float64 that the header does not scale."""
    slope, offset = float(raw.header["scl_slope"]), float(raw.header["scl_inter"])
    ignored = slope == 0.0 or np.isnan(slope)
    return int(raw.header["datatype"]) in _TYPES and (ignored or (slope, offset) == (1.0, 0.0))


def stored_vectors(raw: RawNifti, path: str | Path) -> NDArray[np.float64]:
    """Return unscaled floats, components first (storage reversed); N26 if not finite."""
    order = ">" if raw.header.dtype["dim"].base.str.startswith(">") else "<"
    stored = np.frombuffer(raw.voxels, order + _TYPES[int(raw.header["datatype"])])
    vectors = stored.reshape(raw.shape[::-1]).astype(np.float64)
    if not (abs(vectors) < _MAX_MM).all():
        raise CardiogenError(
            "N26", path, found="NaN or infinite vectors", expected="finite displacements",
            remedy="exporting or repairing the file",
        )  # fmt: skip
    return vectors
