"""From a path to checked NIfTI bytes: regular file, known format, whole, checksum right, bounded.

nibabel stops reading gzip at the last byte it needs, so a wrong checksum or surplus bytes pass it
unseen, and a few kilobytes can inflate to gigabytes. Here every byte is inflated under limits that
come from the header before anything gives the bytes a meaning.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from cardiogen.base import CardiogenError, Exit, Note, read_bounded
from cardiogen.data.nifti_header import (
    check_extensions,
    check_type,
    checked_shape,
    parse_header,
    text_notes,
    voxel_offset,
)

DEFAULT_LIMIT = 4 << 30  # bytes of one volume or sequence
_FREE_RATIO_BYTES = 256 << 20  # below this any compression ratio is harmless
_MAX_RATIO = 600  # measured: label maps of real hearts reach 310, zeros alone 1030
_PIECE = 1 << 18
_MAX_MEMBERS = 100_000  # gzip files may be concatenated; empty members must not keep us busy

_LOOKS_LIKE = (
    (b"version https://git-lfs", "N41", "what looks like a git-lfs pointer", "git lfs pull"),
    (b"<!doctype", "N42", "what looks like a web page", "downloading the file itself"),
    (b"<html", "N42", "what looks like a web page", "downloading the file itself"),
    (b"PK\x03\x04", "N46", "a zip archive", "unpacking the archive yourself"),
    (b"BZh", "N46", "bzip2 data", "gzip compression"),
    (b"\xfd7zXZ", "N46", "xz data", "gzip compression"),
    (b"\x28\xb5\x2f\xfd", "N46", "zstandard data", "gzip compression"),
    (b"NRRD", "N30", "an NRRD file, not NIfTI", "converting it to .nii.gz"),
)


@dataclass(frozen=True, eq=False)
class RawNifti:
    """Checked bytes of one file.

    Attributes:
        header: the fields by their NIfTI names, a NumPy record in the file's byte order.
        version: 1 or 2.
        shape: stored shape (x, y, z[, t]).
        voxels: exactly the bytes of the voxels.
        notes: what was seen on the way.
    """

    header: np.void
    version: int
    shape: tuple[int, ...]
    voxels: memoryview
    notes: tuple[Note, ...]


def load_raw(path: str | Path, *, limit: int | None = None) -> RawNifti:
    """Read a single-file NIfTI-1 or -2, raw or gzip, and verify that it is whole.

    Args:
        path: file to read; its content decides the format, not its name.
        limit: most bytes of header and voxels to accept. By default 4 GiB, and files over 256 MiB
            may not shrink more than 600-fold in gzip; a given limit lifts that second rule.

    Raises:
        CardiogenError: N01-N12, N30-N35, N41-N49 as in the list of malformed inputs; exit 6 for
            N07 and N08 (too large).
    """
    path = Path(path)
    cap = DEFAULT_LIMIT if limit is None else limit
    content = read_bounded(path, limit=cap, family="N")
    if not content:
        raise CardiogenError(
            "N01", path, found="an empty file, 0 bytes", expected="a NIfTI image",
            remedy="copying or exporting the file again",
        )  # fmt: skip
    _refuse_lookalikes(content, path)
    gzipped = content[:2] == b"\x1f\x8b"
    head = _inflated_head(content, path) if gzipped else content[:540]
    if gzipped:
        _refuse_lookalikes(head, path)
    header, version = parse_header(head, path)
    shape = checked_shape(header, path)
    check_type(header, path)
    size = prod(shape) * int(header["bitpix"]) // 8
    offset = voxel_offset(header, version, path)
    total = offset + size
    _check_size(shape, size, total, cap, path)
    if gzipped and limit is None and total > max(_FREE_RATIO_BYTES, _MAX_RATIO * len(content)):
        raise CardiogenError(
            "N08", path, found=f"{len(content)} bytes that inflate to {_human(total)}",
            expected=f"a compression ratio of at most {_MAX_RATIO} above "
            f"{_human(_FREE_RATIO_BYTES)}",
            remedy="--max-volume, if the file is what you expect", exit_code=Exit.RESOURCES,
        )  # fmt: skip
    whole = _inflate(content, total, path) if gzipped else content
    _check_length(len(whole), offset, total, path)
    extended = check_extensions(whole, 540 if version == 2 else 348, offset, header, path)
    notes = _name_notes(path, gzipped=gzipped) + text_notes(header, extended, path)
    return RawNifti(header, version, shape, memoryview(whole)[offset:], notes)


def _human(size: int) -> str:
    amount, unit = float(size), "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if amount >= 100 else f"{amount:.3g} {unit}"


def _refuse_lookalikes(content: bytes, path: Path) -> None:
    start = content[:256].lstrip().lower()
    for magic, code, found, remedy in _LOOKS_LIKE:
        if content.startswith(magic) or (magic.islower() and start.startswith(magic)):
            raise CardiogenError(
                code, path, found=found, expected="a NIfTI file (format: .nii or .nii.gz)",
                remedy=remedy,
            )  # fmt: skip


def _inflated_head(content: bytes, path: Path) -> bytes:
    """Return the first 540 bytes of a gzip stream (fewer if it holds fewer)."""
    try:
        inflater = zlib.decompressobj(wbits=31)
        head = inflater.decompress(content[: 1 << 16], 540)
    except zlib.error as error:
        raise _damaged(error, path) from error
    if len(head) < 348 and not inflater.eof:
        raise _truncated(len(head), "at least 348", path)
    if head[:2] == b"\x1f\x8b":
        raise CardiogenError(
            "N45", path, found="gzip data inside gzip data (format: compressed twice)",
            expected="a NIfTI file compressed once", remedy="gunzip once",
        )  # fmt: skip
    return head


def _damaged(error: zlib.error, path: Path) -> CardiogenError:
    reason = str(error).rpartition(": ")[2]
    return CardiogenError(
        "N03", path, found=f"damaged gzip data, its checksum differs ({reason})",
        expected="a gzip stream that matches its own checksum", remedy="copying the file again",
    )  # fmt: skip


def _truncated(present: int, expected: int | str, path: Path) -> CardiogenError:
    return CardiogenError(
        "N02", path, found=f"a gzip stream truncated at byte {present} of {expected}",
        expected="the whole file", remedy="copying or downloading the file again",
    )  # fmt: skip


def _check_size(shape: tuple[int, ...], size: int, total: int, cap: int, path: Path) -> None:
    if total > cap:
        raise CardiogenError(
            "N07", path, found=f"declared {_human(size)} > cap ({' x '.join(map(str, shape))})",
            expected=f"at most {_human(cap)}", remedy="--max-volume, or a smaller image",
            exit_code=Exit.RESOURCES,
        )  # fmt: skip


def _pieces(content: bytes, path: Path) -> Iterator[bytes]:
    """Yield what the gzip members of ``content`` hold; checksums and lengths are verified."""
    position, members = 0, 0
    while position < len(content):
        if content[position : position + 2] != b"\x1f\x8b" or members == _MAX_MEMBERS:
            raise CardiogenError(
                "N04", path, found=f"{len(content) - position} surplus bytes after the gzip end",
                expected="nothing after the gzip stream", remedy="copying the file again",
            )  # fmt: skip
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof and position < len(content):
            fed = content[position : position + _PIECE]
            position += len(fed)
            yield inflater.decompress(fed, _PIECE)
            while inflater.unconsumed_tail:
                yield inflater.decompress(inflater.unconsumed_tail, _PIECE)
        if not inflater.eof:
            # Output may still wait inside after the last input byte was taken.
            yield inflater.flush()
        if not inflater.eof:
            raise EOFError
        position -= len(inflater.unused_data)
        members += 1


def _inflate(content: bytes, total: int, path: Path) -> bytearray:
    """Return all inflated bytes, at most ``total``; a longer stream is refused when it gets so."""
    whole = bytearray()
    try:
        for piece in _pieces(content, path):
            whole += piece
            if len(whole) > total:
                raise CardiogenError(
                    "N08b", path, found=f"surplus bytes: more than the declared {total}",
                    expected=f"{total} bytes of header and voxels",
                    remedy="exporting the file again",
                )  # fmt: skip
    except zlib.error as error:
        raise _damaged(error, path) from error
    except EOFError as error:
        raise _truncated(len(whole), total, path) from error
    return whole


def _check_length(present: int, offset: int, total: int, path: Path) -> None:
    if present == total:
        return
    if present > total:
        raise CardiogenError(
            "N04", path, found=f"{present - total} surplus bytes after the voxels",
            expected=f"{total} bytes", remedy="exporting the file again",
        )  # fmt: skip
    if present <= 544 and present <= offset:
        raise CardiogenError(
            "N06", path, found=f"a header only ({present} bytes), no voxel data",
            expected=f"{total} bytes", remedy="copying or exporting the file again",
        )  # fmt: skip
    if present <= offset:
        raise CardiogenError(
            "N32", path, found=f"vox_offset={offset}, past the end ({present} bytes)",
            expected="voxels inside the file", remedy="exporting the file again",
        )  # fmt: skip
    raise CardiogenError(
        "N05", path, found=f"a file that has {present} of {total} bytes",
        expected="the whole file", remedy="copying or downloading the file again",
    )  # fmt: skip


def _name_notes(path: Path, *, gzipped: bool) -> tuple[Note, ...]:
    named_gz = path.suffix.lower() == ".gz"
    if gzipped and not named_gz:
        return (Note("N43", str(path), "the real format is gzip although the name says raw"),)
    if named_gz and not gzipped:
        return (Note("N44", str(path), "the real format is raw although the name says gzip"),)
    return ()
