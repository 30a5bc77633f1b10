"""How kernels are written and compiled: decorators, the job they read, and their place on disk.

A kernel is a compiled C function ``kernel(job, chunk, room)``. ``job`` is an array of 64-bit
words: the first ``HEADER`` steer the launch, the others are the kernel's own addresses and
numbers; ``room`` is the address of memory of the thread's own. Arrays are made of addresses
alone: Numba counts the references of arrays that it allocates itself, which takes longer than the
work on a short row (a push of 96^3 values 3.6 ms, without the counting 2.0 ms). A kernel works
on its chunk through ``@rows`` functions, whose array arguments do not overlap: without that
promise the compiler cannot vectorize reads at computed places. Numba makes it for the bodies of
its own parallel loops alone, and those cannot run in forked children; so the promise is made here
and the threads are started in ``launch``.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numba
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.extending import intrinsic

# Next chunk, number of chunks, kernel; next thread, where rooms begin, bytes of a room.
HEADER = 6
_JOB = types.CPointer(types.int64)
_OPTIONS = {"nogil": True, "error_model": "numpy"}
compiling = threading.RLock()


class _NoAliasCompiler(CompilerBase):
    """Numba's compiler, told that array arguments do not overlap and are not counted."""

    def define_pipelines(self) -> list:
        self.state.flags.noalias = True
        self.state.flags.nrt = False
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


def rows(function: Callable) -> Callable:
    """Compile a loop over rows that do not overlap; products and sums may be fused."""
    return njit(pipeline_class=_NoAliasCompiler, fastmath={"contract"}, **_OPTIONS)(function)


def sums(function: Callable) -> Callable:
    """Compile a sum over a row whose terms may be taken in another, but fixed, order."""
    fast = {"contract", "reassoc"}

    return njit(pipeline_class=_NoAliasCompiler, fastmath=fast, **_OPTIONS)(function)


def exact_rows(function: Callable) -> Callable:
    """Compile a loop whose every operation rounds, so that its bits do not depend on its split."""
    return njit(pipeline_class=_NoAliasCompiler, **_OPTIONS)(function)


def inline(function: Callable) -> Callable:
    """Compile a helper into its callers."""
    return njit(forceinline=True, error_model="numpy", pipeline_class=_NoAliasCompiler)(function)


class Kernel:
    """A C function ``(job, chunk, room)``, compiled or read from disk when first asked for."""

    def __init__(self, function: Callable) -> None:
        self._function = function
        self._compiled: object = None
        self.__doc__ = function.__doc__

    @property
    def address(self) -> int:
        """Where the compiled function lies."""
        # No other lock than this may be held while a kernel is compiled: forks wait for it alone,
        # and a cached_property of Python 3.11 has one of its own.
        if self._compiled is None:
            with compiling:
                if self._compiled is None:
                    signature = types.void(_JOB, types.int64, types.int64)
                    self._compiled = compile_cached(signature, self._function)
        return self._compiled.address


def compile_cached(signature: object, function: Callable) -> object:
    """Compile a C function, on disk if there is a place for it."""
    before = numba.config.CACHE_DIR
    place = before or str(cache_folder() or "")
    numba.config.CACHE_DIR = place
    try:
        return cfunc(signature, cache=bool(place), pipeline_class=_NoAliasCompiler)(function)
    except Exception as fault:
        # A full disk or a damaged file stops no warp; whatever else is wrong is raised again.
        if not place:
            raise
        warnings.warn(
            f"kernels are compiled without {place}, which could not be used ({fault!r}); try "
            "removing it", stacklevel=2,
        )  # fmt: skip
        return cfunc(signature, pipeline_class=_NoAliasCompiler)(function)
    finally:
        numba.config.CACHE_DIR = before


def cache_folder() -> Path | None:
    """Return a folder for compiled kernels: in the package, else in the user's cache, else None.

    Its name holds a digest of the kernels' source: Numba looks at one file alone and would go on
    with old code when a function in another one changes.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(path.read_bytes())
    for root in (package / "__pycache__", *_user_cache()):
        folder = root / f"kernels-{digest.hexdigest()[:12]}"
        if _is_writable(folder):
            return folder
    return None


def _user_cache() -> list[Path]:
    named = os.environ.get("XDG_CACHE_HOME")
    try:
        return [(Path(named) if named else Path.home() / ".cache") / "cardiogen"]
    except RuntimeError:  # a container's user may have no home
        return []


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@intrinsic(prefer_literal=True)
def arguments(typing_context, job, count):
    """Return the ``count`` words of a job after its header."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    result = types.UniTuple(types.int64, count.literal_value)

    def generate(context, builder, signature, values):
        words = [
            builder.load(builder.gep(values[0], [ir.Constant(ir.IntType(64), HEADER + k)]))
            for k in range(count.literal_value)
        ]
        return context.make_tuple(builder, result, words)

    return result(job, count), generate


@intrinsic
def _take(typing_context, job, word):
    """Return a word of a job and add 1 to it, as one step for all threads."""

    def generate(context, builder, signature, values):
        place = builder.gep(values[0], [values[1]])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(job, types.int64), generate


@intrinsic
def _call(typing_context, address, job, chunk, room):
    def generate(context, builder, signature, values):
        word = context.get_value_type(signature.args[1])
        kind = ir.FunctionType(ir.VoidType(), [word, ir.IntType(64), ir.IntType(64)])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(address, job, chunk, room), generate


@intrinsic
def read(typing_context, array, index):
    """Return ``array[index]`` for an int32 index from 0: vectorized, one gather instruction."""

    def generate(context, builder, signature, values):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0]).data
        at = builder.sext(values[1], ir.IntType(64))
        return builder.load(builder.gep(data, [at], inbounds=True))

    return array.dtype(array, types.int32), generate


@intrinsic
def prefetch(typing_context, array, index):
    """Ask for the cache line that holds ``array[index]``."""

    def generate(context, builder, signature, values):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0]).data
        place = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(8).as_pointer())
        hint = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, hint, hint, hint])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, hint(0), hint(2), hint(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def add_at(typing_context, array, index, value):
    """Add to ``array[index]`` for an int32 index from 0."""

    def generate(context, builder, signature, values):
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0]).data
        place = builder.gep(data, [builder.sext(values[1], ir.IntType(64))], inbounds=True)
        builder.store(builder.fadd(builder.load(place), values[2]), place)
        return context.get_dummy_value()

    return types.void(array, types.int32, array.dtype), generate


@intrinsic
def add32(typing_context, first, second):
    """Add int32 numbers; Numba's own sum would be an int64."""

    def generate(context, builder, signature, values):
        return builder.add(values[0], values[1])

    return types.int32(types.int32, types.int32), generate


@intrinsic
def real(typing_context, word):
    """Return the float64 whose bits a word of a job holds."""

    def generate(context, builder, signature, values):
        return builder.bitcast(values[0], ir.DoubleType())

    return types.float64(types.int64), generate


def _pointer_to(item: types.Type) -> Callable:
    @intrinsic
    def pointer(typing_context, address):
        def generate(context, builder, signature, values):
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return types.CPointer(item)(address), generate

    return pointer


_float_pointer = _pointer_to(types.float32)
_double_pointer = _pointer_to(types.float64)
_int_pointer = _pointer_to(types.int32)


@inline
def floats(address, size):
    """Return the float32 array of ``size`` items at an address."""
    return carray(_float_pointer(address), size)


@inline
def doubles(address, size):
    """Return the float64 array of ``size`` items at an address."""
    return carray(_double_pointer(address), size)


@inline
def ints(address, size):
    """Return the int32 array of ``size`` items at an address."""
    return carray(_int_pointer(address), size)


@inline
def room_rows(room, first, count, size):
    """Return ``count`` rows ``(count, size)`` of a thread's room, after its ``first`` rows."""
    return carray(_float_pointer(room + 4 * first * size), (count, size))


@inline
def room_squares(room, first, size):
    """Return rows in a square ``(3, 3, size)`` of a thread's room, after its ``first`` rows."""
    return carray(_float_pointer(room + 4 * first * size), (3, 3, size))


def _work(job):
    """Take chunks until none is left; every thread of a launch runs this."""
    room = job[4] + _take(job, 3) * job[5]
    chunk = _take(job, 0)
    while chunk < job[1]:
        _call(job[2], job, chunk, room)
        chunk = _take(job, 0)


def worker_address() -> int:
    """Return the address of the C function ``work(job)`` that a launch gives to its threads."""
    return _worker().address


def _worker() -> object:
    global _compiled_worker
    with compiling:
        if _compiled_worker is None:
            _compiled_worker = compile_cached(types.void(_JOB), _work)
        return _compiled_worker


_compiled_worker: object = None
