"""What a NIfTI header claims about sizes, types and offsets, checked before nibabel sees it.

Only limits are judged here, on the raw fields of the 348 (NIfTI-1) or 540 bytes (NIfTI-2); what
the fields mean for the world is in ``nifti_geometry.py``.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import numpy as np

from cardiogen.base import CardiogenError, Note

_EXTENSION_LIMIT = 16 << 20

# NIfTI datatype code -> bits per voxel, for the real types that a heart image can have.
_DATATYPE_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
_SUPPORTED = "uint8/16/32/64, int8/16/32/64, float32 or float64"


def parse_header(head: bytes, path: Path) -> tuple[np.void, int]:
    """Return the header record and NIfTI version; the meaning of the fields comes later."""
    from nibabel import nifti1, nifti2

    sizes = {int.from_bytes(head[:4], order): order for order in ("big", "little")}
    version = 1 if 348 in sizes else 2 if 540 in sizes else 0
    if not version:
        raise _not_nifti(path, f"bytes {head[:4].hex(' ')} at the start, not NIfTI")
    wanted = 348 if version == 1 else 540
    if len(head) < wanted:
        raise CardiogenError(
            "N05", path, found=f"a file that has {len(head)} of {wanted} bytes of its header",
            expected="the whole file", remedy="copying or downloading the file again",
        )  # fmt: skip
    layout = nifti1.header_dtype if version == 1 else nifti2.header_dtype
    order = ">" if sizes[wanted] == "big" else "<"
    header = np.frombuffer(head[:wanted], layout.newbyteorder(order))[0]
    _check_magic(bytes(header["magic"]), version, path)
    return header, version


def _check_magic(magic: bytes, version: int, path: Path) -> None:
    """Refuse pairs of files and Analyze; NumPy has dropped the trailing zero bytes."""
    if not magic:
        raise CardiogenError(
            "N49", path, found="an Analyze 7.5 header (unsupported: left-right unknown)",
            expected="a NIfTI file", remedy="converting from the original DICOM files",
        )  # fmt: skip
    if magic in (b"ni1", b"ni2"):
        paired = path.suffix.lower() in (".hdr", ".img")
        raise CardiogenError(
            "N48" if paired else "N30b", path, found="the header of a NIfTI pair without .img",
            expected="header and voxels in one file",
            remedy="converting the pair to one .nii.gz",
        )  # fmt: skip
    if magic != b"n+%d" % version:
        raise _not_nifti(path, f"magic {magic!r}, not NIfTI")


def _not_nifti(path: Path, found: str) -> CardiogenError:
    return CardiogenError(
        "N30", path, found=found, expected="a NIfTI file (.nii or .nii.gz)",
        remedy="converting the file to NIfTI",
    )  # fmt: skip


def checked_shape(header: np.void, path: Path) -> tuple[int, ...]:
    """Return the stored sizes; refuse what is no count of axes or voxels (N09-N12)."""
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise CardiogenError(
            "N09" if dim[0] == 0 else "N10", path, found=f"dim[0]={dim[0]}",
            expected="dim[0] 1..7, the number of axes", remedy="exporting the file again",
        )  # fmt: skip
    for axis, size in enumerate(dim[1 : dim[0] + 1], start=1):
        if size <= 0:
            raise CardiogenError(
                "N11" if size else "N12", path,
                found=f"dim[{axis}]={size}" + ("" if size else ", so no voxels"),
                expected="a positive size on every axis", remedy="exporting the file again",
            )  # fmt: skip
    return tuple(dim[1 : dim[0] + 1])


def check_type(header: np.void, path: Path) -> None:
    """Refuse voxel types that are not real numbers (N34) or contradict bitpix (N33)."""
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code not in _DATATYPE_BITS:
        names = {1: "1-bit", 32: "complex64", 128: "RGB24", 1792: "complex128", 2304: "RGBA32"}
        raise CardiogenError(
            "N34", path, found=f"datatype {code} ({names.get(code, 'unknown')})",
            expected=_SUPPORTED, remedy="converting the voxels to a real type",
        )  # fmt: skip
    if bits != _DATATYPE_BITS[code]:
        raise CardiogenError(
            "N33", path, found=f"bitpix={bits} with datatype {code}",
            expected=f"bitpix={_DATATYPE_BITS[code]} for datatype {code}",
            remedy="exporting the file again",
        )  # fmt: skip


def voxel_offset(header: np.void, version: int, path: Path) -> int:
    """Return the first byte of the voxels; refuse what cannot be one (N32)."""
    least = 352 if version == 1 else 544
    offset = float(header["vox_offset"])
    if not isfinite(offset) or offset < least or offset != int(offset):
        raise CardiogenError(
            "N32", path, found=f"vox_offset={offset:g}",
            expected=f"a whole number of at least {least}", remedy="exporting the file again",
        )  # fmt: skip
    if offset > least + _EXTENSION_LIMIT:
        raise CardiogenError(
            "N32", path, found=f"vox_offset={offset:g}",
            expected=f"at most {_EXTENSION_LIMIT >> 20} MiB before the voxels",
            remedy="exporting the file again without extensions",
        )  # fmt: skip
    return int(offset)


def check_extensions(
    whole: bytes | bytearray, header_size: int, offset: int, header: np.void, path: Path
) -> bool:
    """Walk the extension chain before the voxels; return whether there is any extension."""
    order = "big" if header.dtype["dim"].base.str.startswith(">") else "little"
    position, any_found = header_size + 4, False
    if not whole[header_size]:
        return False
    while position < offset:
        size = int.from_bytes(whole[position : position + 4], order, signed=True)
        if size == 0 and not any(whole[position:offset]):
            break  # padding after the last extension
        if size < 16 or size % 16 or position + size > offset:
            raise CardiogenError(
                "N35", path, found=f"a header extension of {size} bytes at byte {position}",
                expected=f"a multiple of 16 that ends before the voxels at {offset}",
                remedy="exporting the file again without extensions",
            )  # fmt: skip
        position, any_found = position + size, True
    return any_found


def text_notes(header: np.void, extended: bool, path: Path) -> tuple[Note, ...]:
    """Name the header fields that may hold private text; their values are shown nowhere."""
    fields = [f for f in ("descrip", "aux_file", "db_name", "intent_name")
              if f in header.dtype.names and bytes(header[f])]  # fmt: skip
    if bytes(header["descrip"]).startswith((b"cardiogen", b"SYNTHETIC cardiogen")):
        fields.remove("descrip")
    fields += ["extensions"] if extended else []
    if not fields:
        return ()
    text = f"header text in {', '.join(fields)} may identify a person; it is not carried over"
    return (Note("N35d", str(path), text),)
