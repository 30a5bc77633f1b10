"""Run a kernel over its chunks on torch's threads.

Chunks are taken from a shared counter. Where torch was built with an OpenMP runtime that can be
called (GCC's and Intel's on Linux), kernels run in that runtime's own team: a second set of
threads would fight for the cores with torch's, which stay awake for milliseconds after each
operator (measured on 2 cores: a warp of 128^3 right after a torch operator 6.0 ms with threads of
our own, 4.0 ms in torch's team). Elsewhere a pool of Python threads does it. A forked child has
none of its parent's threads, so it works alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cardiogen.base import CardiogenError
from cardiogen.ops.kernels.backend import is_forked
from cardiogen.ops.kernels.cpu.jit import Kernel, compiling
from cardiogen.ops.kernels.cpu.worker import worker_address

LAUNCHERS = ("openmp", "pool", "serial")
_VARIABLE = "CARDIOGEN_THREADS"
# Rooms of two threads share no cache line.
_APART = 128
_pools: dict[int, ThreadPoolExecutor] = {}
_pool_lock = threading.Lock()


def launch(kernel: Kernel, chunks: int, *arguments: Tensor | float, room: int = 0) -> None:
    """Run ``kernel(job, chunk, room)`` for every chunk and wait.

    Args:
        kernel: compiled function; it may not fail.
        chunks: number of independent parts.
        arguments: contiguous CPU tensors (passed as addresses), whole numbers and floats (passed
            as the bits of a float64), in the kernel's order.
        room: memory that a thread needs for itself, in float32.
    """
    threads = 1 if is_forked() else min(torch.get_num_threads(), chunks)
    size = 4 * room + _APART
    rooms = np.empty(threads * size, dtype=np.uint8)
    words = [_word(argument) for argument in arguments]
    header = [0, chunks, kernel.address, 0, rooms.ctypes.data, size]
    job = np.array([*header, *words], dtype=np.int64)
    run = _run_serial if threads == 1 else _launcher(os.environ.get(_VARIABLE))
    run(job.ctypes.data, threads, (job, rooms, arguments))


def _word(argument: Tensor | float) -> int:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, float):
        return int(np.float64(argument).view(np.int64))
    return int(argument)


def active_launcher() -> str:
    """Return how kernels are run now: ``openmp``, ``pool`` or ``serial``."""
    if is_forked():
        return "serial"
    names = {_run_openmp: "openmp", _run_pool: "pool", _run_serial: "serial"}

    return names[_launcher(os.environ.get(_VARIABLE))]


@cache
def _launcher(named: str | None) -> Callable[[int, int, tuple], None]:
    if named is None:
        return _run_openmp if _openmp_parallel() is not None else _run_pool
    if named == "openmp" and _openmp_parallel() is None:
        raise CardiogenError(
            "U12", _VARIABLE, found="'openmp', which this torch has none of that can be called",
            expected="pool or serial", remedy=f"unset {_VARIABLE}",
        )  # fmt: skip
    if named not in LAUNCHERS:
        raise CardiogenError(
            "U12", _VARIABLE, found=repr(named), expected=f"one of {', '.join(LAUNCHERS)}",
            remedy=f"unset {_VARIABLE}",
        )  # fmt: skip
    return {"openmp": _run_openmp, "pool": _run_pool, "serial": _run_serial}[named]


def _run_openmp(job: int, threads: int, used: tuple) -> None:
    _openmp_parallel()(worker_address(), job, threads, 0)


def _run_serial(job: int, threads: int, used: tuple) -> None:
    _worker()(job)


def _run_pool(job: int, threads: int, used: tuple) -> None:
    helpers = []
    for _ in range(threads - 1):
        try:
            helpers.append(_pool(threads - 1).submit(_help, job, used))
        except RuntimeError:
            # No thread starts at the end of the interpreter; those there are do the work.
            break
    _worker()(job)
    # Also a helper that starts only after the last chunk is taken reads the job.
    for helper in helpers:
        helper.result()


def _help(job: int, used: tuple) -> None:
    """Work on a job and hold what it points at, should its caller be interrupted meanwhile."""
    _worker()(job)


@cache
def _worker() -> Callable[[int], None]:
    # ctypes releases the interpreter's lock for the time of the call.
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(worker_address())


@cache
def _openmp_parallel() -> Callable | None:
    """Return ``GOMP_parallel`` of the OpenMP runtime that torch itself runs on, or None."""
    if not sys.platform.startswith("linux"):
        return None
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # Looked up through torch's library, the name is found in the runtime that it loaded.
        function = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None

    return function


def _pool(size: int) -> ThreadPoolExecutor:
    with _pool_lock:
        if size not in _pools:
            _pools[size] = ThreadPoolExecutor(size, thread_name_prefix="cardiogen-kernels")
        return _pools[size]


if hasattr(os, "register_at_fork"):
    # A child forked while another thread compiles would wait for that thread's lock forever.
    os.register_at_fork(
        before=compiling.acquire,
        after_in_parent=compiling.release,
        after_in_child=compiling.release,
    )


__all__ = ["LAUNCHERS", "active_launcher", "launch"]
