"""Write NIfTI-1 files that the reader accepts: world in sform and qform, mm and seconds, no clock.

Equal content gives equal bytes: the gzip header holds neither time nor name.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cardiogen.base import atomic_write
from cardiogen.data.grid import Grid
from cardiogen.data.nifti_geometry import check_lattice

_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
_PIECE = 1 << 22
_MAX_SIZE = 32767
# Fast levels first: label maps shrink a hundredfold at level 1 already.
_GZIP_LEVEL = 1


def write_image(
    path: str | Path,
    data: NDArray,
    grid: Grid,
    *,
    frame_time_s: float | None = None,
    description: str = "cardiogen",
    overwrite: bool = False,
) -> None:
    """Write an image or label codes.

    Args:
        path: destination; ``.nii`` is written raw, ``.nii.gz`` compressed.
        data: ``(D, H, W)`` or ``(T, D, H, W)``, real. Booleans become uint8 and 64-bit integers
            int32, since few viewers read them.
        grid: lattice of one frame.
        frame_time_s: time between frames in seconds, stored in pixdim[4].
        description: header text, at most 79 ASCII characters.
        overwrite: replace an existing file.

    Raises:
        CardiogenError: O01 if the file exists, R01 if it cannot be written, N19 or N22 for a grid
            that no reader should accept.
        ValueError: for data that do not fit the grid or the format.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"path must end in .nii or .nii.gz, got {path.name}")
    data = _storable(np.asarray(data))
    if data.ndim not in (3, 4) or data.shape[-3:] != grid.shape or max(data.shape) > _MAX_SIZE:
        raise ValueError(f"data must be ([T,] D, H, W) on grid {grid.shape}, got {data.shape}")
    if frame_time_s is not None and not (np.isfinite(frame_time_s) and frame_time_s > 0):
        raise ValueError(f"frame_time_s must be positive, got {frame_time_s}")
    check_lattice(grid.affine, path)
    header = _header(data, grid, frame_time_s, description)
    with atomic_write(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
        gzipped = path.name.endswith(".gz")
        packer = zlib.compressobj(_GZIP_LEVEL, wbits=31) if gzipped else None
        for piece in (header, *_pieces(data)):
            stream.write(packer.compress(piece) if packer else piece)
        if packer:
            stream.write(packer.flush())


def _storable(data: NDArray) -> NDArray:
    if data.dtype == bool:
        data = data.astype(np.uint8)
    if data.dtype in (np.int64, np.uint64):
        narrow = data.astype(np.int32)
        if not np.array_equal(narrow, data):
            raise ValueError("data must fit into int32, got larger 64-bit integers")
        data = narrow
    if data.dtype.str[1:] not in _TYPES:
        raise ValueError(f"data must be 8-32 bit integers, float32 or float64, got {data.dtype}")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise ValueError("data must be finite, got NaN or Inf")
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("<"))


def _pieces(data: NDArray) -> list[memoryview]:
    flat = memoryview(data).cast("B")
    return [flat[start : start + _PIECE] for start in range(0, len(flat), _PIECE)]


def _header(data: NDArray, grid: Grid, frame_time_s: float | None, description: str) -> bytes:
    """Return 352 bytes: header and the empty extension flag."""
    from nibabel import Nifti1Header

    if len(description) > 79 or not description.isascii():
        raise ValueError(f"description must be ASCII of at most 79 characters, got {description}")
    affine = grid.affine[:, [2, 1, 0, 3]]
    header = Nifti1Header(endianness="<")
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape[::-1])
    header.set_xyzt_units("mm", "sec" if data.ndim == 4 else None)
    header.set_qform(affine, code="scanner", strip_shears=True)
    # A qform cannot hold even a tiny shear; where it would stray, the sform stands alone.
    stored = header.get_qform()
    corner = np.array([n - 1 for n in grid.shape[::-1]])
    if abs(stored[:3, :3] @ corner + stored[:3, 3] - affine[:3, :3] @ corner
           - affine[:3, 3]).max() > 0.01:  # fmt: skip
        header["qform_code"] = 0
    header.set_sform(affine, code="scanner")
    if data.ndim == 4:
        header["pixdim"][4] = 0.0 if frame_time_s is None else frame_time_s
    header["descrip"] = description.encode()
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return header.binaryblock + bytes(4)
