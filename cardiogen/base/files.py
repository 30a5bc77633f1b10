"""Files that are either whole or absent: atomic writing, whole-folder outputs, bounded reading.

A file is written beside its destination, flushed to disk, renamed over it, and the folder entry is
flushed too. Rename without fsync can leave an empty file after a power cut (ALICE, OSDI 2014).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cardiogen.base.errors import CardiogenError, Exit

_TEMP_PREFIX = ".cg-tmp-"
MARKER = ".cardiogen-output"
_MARKER_TEXT = "Made by cardiogen as a whole; --overwrite may replace this folder as a whole.\n"


def _fsync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists_error(path: Path) -> CardiogenError:
    return CardiogenError(
        "O01", path, found="an existing output", expected="a path that is not there yet",
        remedy="another --out, or --overwrite to replace it",
    )  # fmt: skip


def _write_error(path: Path, error: OSError) -> CardiogenError:
    return CardiogenError(
        "R01", path, found=error.strerror or str(error), expected="a writable place with room",
        remedy="freeing space, or another --out",
    )  # fmt: skip


@contextmanager
def atomic_write(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path``, else it vanishes.

    The temporary name keeps the suffixes of ``path``, since writers choose formats by them.

    Raises:
        CardiogenError: O01 if ``path`` exists and ``overwrite`` is false, R01 if writing fails.
    """
    path = Path(path)
    if not overwrite and path.exists():
        raise _exists_error(path)
    temporary = path.with_name(f"{_TEMP_PREFIX}{uuid.uuid4().hex}{''.join(path.suffixes)}")
    try:
        yield temporary
        _fsync_path(temporary)
        os.replace(temporary, path)
        _fsync_path(path.parent)
    except OSError as error:
        raise _write_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` as a whole, or vanishes on failure.

    The folder gets a marker file. ``overwrite`` replaces only what carries it, so that no slip of
    the pen (``--out ~ --overwrite``) can delete a folder that cardiogen did not make. An old
    folder is moved aside first and deleted only once the new one stands.

    Raises:
        CardiogenError: O01 if ``path`` exists and ``overwrite`` is false, O03 if it is not a
            folder that cardiogen made, R01 if writing fails.
    """
    path = Path(path)
    check_replaceable(path, overwrite)
    temporary = path.with_name(f"{_TEMP_PREFIX}{uuid.uuid4().hex}")
    retired = path.with_name(f"{_TEMP_PREFIX}{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        (temporary / MARKER).write_text(_MARKER_TEXT, encoding="utf-8")
        yield temporary
        _fsync_tree(temporary)
        if path.exists():
            check_replaceable(path, overwrite)
            os.replace(path, retired)
        os.replace(temporary, path)
        _fsync_path(path.parent)
    except OSError as error:
        if retired.exists() and not path.exists():
            os.replace(retired, path)
        raise _write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def check_replaceable(path: Path, overwrite: bool) -> None:
    """Refuse a destination that holds anything but an output of ours that may be replaced."""
    if not path.exists() and not path.is_symlink():
        return
    empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
    if empty:
        return
    if not overwrite:
        raise _exists_error(path)
    if path.is_symlink() or not (path / MARKER).is_file():
        raise CardiogenError(
            "O03", path, found="something that cardiogen did not make",
            expected=f"a folder of cardiogen's (with {MARKER}) or a path that is not there yet",
            remedy="another --out: only cardiogen's own outputs are replaced",
        )  # fmt: skip


def _fsync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            _fsync_path(Path(place) / name)
        _fsync_path(Path(place))


def write_json(path: str | Path, content: object, *, overwrite: bool = False) -> None:
    """Write ``content`` as strict, indented JSON (no NaN), atomically."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_bounded(path: str | Path, *, limit: int, family: str = "N") -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes.

    Args:
        path: file to read; links are followed, but FIFOs, sockets, devices and folders are
            refused before they are opened, since opening a FIFO may wait for ever.
        limit: most bytes to accept.
        family: family letter of the error codes (``N`` images, ``C`` tables, ``M`` models).

    Raises:
        CardiogenError: ``<family>47`` for what is no readable regular file, R02 above the limit.
    """
    path = Path(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise CardiogenError(
                f"{family}47", path, found=kind, expected="a regular file", remedy="its full path"
            )
        if status.st_size > limit:
            raise CardiogenError(
                "R02", path, found=f"{status.st_size} bytes", expected=f"at most {limit} bytes",
                remedy="a smaller file, or a higher limit where the command offers one",
                exit_code=Exit.RESOURCES,
            )  # fmt: skip
        with path.open("rb") as stream:
            # Not the limit: read() sets aside as much as it is asked for.
            content = stream.read(status.st_size + 1)
    except OSError as error:
        raise CardiogenError(
            f"{family}47", path, found=error.strerror or type(error).__name__,
            expected="a readable regular file", remedy="checking the path and its permissions",
        ) from error  # fmt: skip
    if len(content) != status.st_size:
        raise CardiogenError(
            f"{family}51", path, found="a size that changed while it was read",
            expected="a file that nothing else writes to", remedy="waiting for the writer to end",
        )  # fmt: skip
    return content


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
