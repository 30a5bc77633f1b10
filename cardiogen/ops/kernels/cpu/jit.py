"""How kernels are written and compiled: decorators, the job they read, and their place on disk.

A kernel is a compiled C function ``kernel(job, chunk, room)``. ``job`` is an array of 64-bit
words: the first ``HEADER`` steer the launch, the others are the kernel's own addresses and
numbers; ``room`` is the address of memory of the thread's own. Arrays are made of addresses
alone: Numba counts the references of arrays that it allocates itself, which took a third of the
time of short rows (a push of 96^3 values to their own voxels 3.6 ms, uncounted 2.2 ms). A kernel
works on its chunk through ``@rows`` functions, whose array arguments do not overlap: without that
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
from numba import cfunc, njit, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder

# Next chunk, number of chunks, kernel; next thread, where rooms begin, bytes of a room.
HEADER = 6
JOB = types.CPointer(types.int64)
_OPTIONS = {"nogil": True, "error_model": "numpy"}
compiling = threading.RLock()


class _NoAliasCompiler(CompilerBase):
    """Numba's compiler, told that array arguments do not overlap and are not counted."""

    _needs_wrapper = False

    def define_pipelines(self) -> list:
        self.state.flags.noalias = True
        self.state.flags.nrt = False
        # Nobody calls these functions from Python; a wrapper takes a quarter of the compilation.
        self.state.flags.no_cpython_wrapper = True
        self.state.flags.no_cfunc_wrapper = not self._needs_wrapper
        return [DefaultPassBuilder.define_nopython_pipeline(self.state)]


class _KernelCompiler(_NoAliasCompiler):
    """The same for what threads call: a C function."""

    _needs_wrapper = True


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
                    signature = types.void(JOB, types.int64, types.int64)
                    self._compiled = compile_cached(signature, self._function)
        return self._compiled.address


def compile_cached(signature: object, function: Callable) -> object:
    """Compile a C function, on disk if there is a place for it."""
    before = numba.config.CACHE_DIR
    place = str(cache_folder() or "")
    numba.config.CACHE_DIR = place
    try:
        return cfunc(signature, cache=bool(place), pipeline_class=_KernelCompiler)(function)
    except Exception as fault:
        # A full disk or a damaged file stops no warp; whatever else is wrong is raised again.
        if not place:
            raise
        warnings.warn(
            f"kernels are compiled without {place}, which could not be used ({fault!r}); try "
            "removing it", stacklevel=2,
        )  # fmt: skip
        return cfunc(signature, pipeline_class=_KernelCompiler)(function)
    finally:
        numba.config.CACHE_DIR = before


def cache_folder() -> Path | None:
    """Return a folder for compiled kernels, or None if there is no place for one.

    In ``NUMBA_CACHE_DIR`` if that is set, else in the package, else in the user's cache.

    Its name holds a digest of the kernels' source: Numba looks at one file alone and would go on
    with old code when a function in another one changes.
    """
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(path.read_bytes())
    named = numba.config.CACHE_DIR
    places = [Path(named)] if named else [package / "__pycache__", *_user_cache()]
    for root in places:
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
