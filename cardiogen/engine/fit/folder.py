"""The folder of a run: one process at a time, begun or gone on with, never mixed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cardiogen.base import CardiogenError, Note
from cardiogen.engine.fit.checkpoint import (
    find_checkpoints,
    newest_checkpoint,
    remove_stale,
    restore,
)
from cardiogen.engine.fit.config import FitConfig
from cardiogen.engine.fit.processes import Processes
from cardiogen.engine.fit.state import Training


def checkpoints_of(folder: Path) -> Path:
    """Return where the checkpoints of a run are kept."""
    return folder / "checkpoints"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder of a run against other processes; the lock ends with its process.

    Raises:
        CardiogenError: O04 if another process holds it, R01 if the folder cannot be made.
    """
    import fcntl  # not on every system, and of no use before a run

    try:
        checkpoints_of(folder).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CardiogenError(
            "R01", folder, found=error.strerror or str(error), expected="a writable folder",
            remedy="another folder",
        ) from error  # fmt: skip
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CardiogenError(
                "O04", folder, found="a run that another process works on",
                expected="one process a folder", remedy="waiting for it, or another folder",
            ) from error  # fmt: skip
        yield
    finally:
        os.close(descriptor)


def set_out(
    run: Training,
    config: FitConfig,
    folder: Path | None,
    processes: Processes,
    *,
    resume: bool,
    fingerprint: str,
) -> list[Note]:
    """Bring a run to its first step, or to that of the newest good checkpoint of its folder.

    Returns:
        Notes of damaged checkpoints that were passed over.
    """
    path, notes = None, []
    if folder is not None and processes.rank == 0:
        path, notes = _find_start(folder, resume)
    # One process looks, all of them read: several nodes need a folder that all can see.
    path = processes.from_first(path)
    if path is not None:
        restore(path, run, config, fingerprint)
    else:
        processes.share_weights(run.module)
    return notes


def check_fresh(folder: Path) -> None:
    """Refuse (O01) the folder of a run that has begun, where none is to be gone on with."""
    if find_checkpoints(checkpoints_of(folder)):
        raise CardiogenError(
            "O01", folder, found="the checkpoints of a run", expected="a folder without",
            remedy="--resume to go on with it, or another folder",
        )  # fmt: skip


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run whose result is kept elsewhere; its tables stay."""
    for path in find_checkpoints(checkpoints_of(folder)):
        shutil.rmtree(path)


def _find_start(folder: Path, resume: bool) -> tuple[Path | None, list[Note]]:
    place = checkpoints_of(folder)
    remove_stale(place)
    if not resume:
        check_fresh(folder)
    return newest_checkpoint(place)
