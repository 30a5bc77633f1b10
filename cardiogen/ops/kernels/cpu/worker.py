"""What every thread of a launch runs, and the words of a job that steer it."""

from __future__ import annotations

from numba import types

from cardiogen.ops.kernels.cpu.intrinsics import call_kernel, take
from cardiogen.ops.kernels.cpu.jit import JOB, compile_cached, compiling


def _work(job):
    """Take chunks until none is left; every thread of a launch runs this."""
    room = job[4] + take(job, 3) * job[5]
    chunk = take(job, 0)
    while chunk < job[1]:
        call_kernel(job[2], job, chunk, room)
        chunk = take(job, 0)


def worker_address() -> int:
    """Return the address of the C function ``work(job)`` that a launch gives to its threads."""
    return _worker().address


def _worker() -> object:
    global _compiled_worker
    with compiling:
        if _compiled_worker is None:
            _compiled_worker = compile_cached(types.void(JOB), _work)
        return _compiled_worker


_compiled_worker: object = None
