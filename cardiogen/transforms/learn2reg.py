"""Displacements as the Learn2Reg scorer reads them.

Convention: the scorer warps with ``map_coordinates(moving, identity + field)`` on the stored
arrays, so the field is in voxels of the fixed image with components and axes in stored order
(X, Y, Z), which is ours reversed. Full size is ``(X, Y, Z, 3)``, ``.npz`` or ``.nii.gz``; the half
size of 2020 and 2021 is float16 ``(3, X/2, Y/2, Z/2)``, ``.npz`` alone, still in voxels of the
full size, which the scorer enlarges by ``scipy.ndimage.zoom(component, 2, order=2)``.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.base import CardiogenError, atomic_write, read_bounded
from cardiogen.data.grid import Grid
from cardiogen.data.nifti_bytes import load_raw
from cardiogen.data.nifti_write import write_image
from cardiogen.transforms.field import Displacement
from cardiogen.transforms.nifti_field import checked_field, stored_vectors, unscaled_floats

_LIMIT = 2 << 30
_HALF_MAX = 65504.0


def write_learn2reg(
    path: str | Path,
    displacement: Tensor,
    grid: Grid,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> None:
    """Write one displacement as a submission to Learn2Reg.

    Args:
        path: destination, ``.npz`` or ``.nii.gz``, e.g. ``disp_0001_0002.npz`` (fixed, moving).
        displacement: ``fixed_to_moving`` ``(1, 3, D, H, W)``, voxels.
        grid: lattice of the fixed image.
        half: float16 at half size, channels first; wants ``.npz`` and even sizes, since the scorer
            doubles them.
        overwrite: replace an existing file.

    Raises:
        CardiogenError: O01 if the file exists, R01 if it cannot be written.
        ValueError: for a displacement, grid or suffix that the format cannot hold.
    """
    path = Path(path)
    field = checked_field(displacement, grid)
    if path.name.endswith(".nii.gz") and not half:
        # The scorer's fourth axis takes the place of time.
        write_image(path, field[::-1].astype(np.float32), grid, overwrite=overwrite)
        return
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, or in .nii.gz at full size, got {path.name}")
    array = _halved(field) if half else _stored_order(field).transpose(1, 2, 3, 0)
    packed = io.BytesIO()
    np.savez_compressed(packed, np.ascontiguousarray(array))
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(packed.getvalue())


def read_learn2reg(path: str | Path, grid: Grid, *, limit: int = _LIMIT) -> Displacement:
    """Read a submission as the scorer does.

    Args:
        path: ``.npz`` (full or half size) or ``.nii.gz``.
        grid: lattice of the fixed image: an ``.npz`` does not know it.
        limit: most bytes to accept, compressed and not.

    Raises:
        CardiogenError: S74 for a file of another shape or kind, N01-N49 as ``data.read_image``,
            S47 unreadable, R02 too large.
    """
    path = Path(path)
    if path.name.endswith((".nii", ".nii.gz")):
        raw = load_raw(path, limit=limit)
        if len(raw.shape) != 4 or not unscaled_floats(raw):
            raise _refused(path, f"shape {raw.shape} or numbers that are no plain floats", grid)
        array = stored_vectors(raw, path).T
    else:
        array = _loaded(path, limit)
    size = grid.shape[::-1]
    if array.shape == (3, *(n // 2 for n in size)) and not any(n % 2 for n in size):
        from scipy.ndimage import zoom

        field = np.stack([zoom(component.astype(np.float32), 2, order=2) for component in array])
    elif array.shape == (*size, 3):
        field = np.moveaxis(array, -1, 0)
    else:
        raise _refused(path, f"shape {array.shape}", grid)
    ours = np.ascontiguousarray(field[::-1].transpose(0, 3, 2, 1), dtype=np.float32)
    if not np.isfinite(ours).all():
        raise _refused(path, "NaN or infinity", grid)

    return Displacement(grid, torch.from_numpy(ours).unsqueeze(0))


def _stored_order(field: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return ``(3, D, H, W)`` as ``(3, X, Y, Z)`` with components x, y, z."""
    return field[::-1].transpose(0, 3, 2, 1).astype(np.float32)


def _halved(field: NDArray[np.floating]) -> NDArray[np.float16]:
    """Return the field at half size, where the scorer's zoom will look for it."""
    sizes = field.shape[1:]
    if any(n % 2 for n in sizes):
        raise ValueError(f"displacement must have even sizes to be halved, got {sizes}")
    if abs(field).max() > _HALF_MAX:
        raise ValueError(f"displacement must fit float16, got {abs(field).max():.3g} voxels")
    image = torch.from_numpy(np.ascontiguousarray(field, dtype=np.float32)).unsqueeze(0)
    small, _ = ops.resize(image, tuple(n // 2 for n in sizes), affine=np.eye(4))

    return _stored_order(small[0].numpy()).astype(np.float16)


def _loaded(path: Path, limit: int) -> NDArray[np.floating]:
    """Return the one array of an ``.npz``; its declared size is bounded before it is inflated."""
    content = read_bounded(path, limit=limit, family="S")
    try:
        with np.load(io.BytesIO(content)) as packed:
            declared = sum(member.file_size for member in packed.zip.infolist())
            if len(packed.files) != 1 or declared > limit:
                raise ValueError(f"arrays {packed.files[:4]} of {declared} bytes")
            array = packed[packed.files[0]]
    except Exception as error:  # a damaged archive raises errors of half a dozen modules
        raise CardiogenError(
            "S74", path, found=f"no readable array ({type(error).__name__}: {error})",
            expected="an .npz with one array of any name", remedy="writing the file again",
        ) from error  # fmt: skip
    if array.dtype.kind != "f":
        raise CardiogenError(
            "S74", path, found=f"numbers of type {array.dtype}", expected="floating point",
            remedy="writing the file again",
        )  # fmt: skip
    return array


def _refused(path: Path, found: str, grid: Grid) -> CardiogenError:
    size = grid.shape[::-1]
    return CardiogenError(
        "S74", path, found=found,
        expected=f"finite voxel displacements (X, Y, Z, 3) with X, Y, Z = {size}, or float16 "
        f"(3, {', '.join(str(n // 2) for n in size)}) where all sizes are even",
        remedy="the field of this fixed image",
    )  # fmt: skip
