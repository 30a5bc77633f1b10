"""Compiled kernels are kept on disk where that is possible, and never read from other code."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import types
from numba.core import caching

from cardiogen import ops
from cardiogen.ops.kernels.cpu import intrinsics, jit
from cardiogen.ops.kernels.cpu.worker import worker_address

ROOT = Path(ops.__file__).parents[2]
SIGNATURE = types.void(types.CPointer(types.int64), types.int64, types.int64)
_PATIENCE = 120

# A kernel that compiles in a moment; where it is kept is decided for all kernels alike.
_TINY = """
from cardiogen.ops.kernels.cpu import intrinsics, jit

@jit.Kernel
def double(job, chunk, room):
    values_at, = intrinsics.arguments(job, 1)
    values = intrinsics.floats(values_at, 4)
    values[chunk] *= 2
"""
_RUN_TINY = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch
from tiny import double
from cardiogen.ops.kernels.cpu import jit, launch

values = torch.arange(4.0)
launch.launch(double, 4, values)
assert values.tolist() == [0, 2, 4, 6]
print(jit.cache_folder())
"""


def run(script, *arguments, **variables):
    """Run a script in a new process and return what it printed."""
    known = {k: v for k, v in os.environ.items() if not k.startswith(("CARDIOGEN_", "NUMBA_"))}
    found = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env=known | variables,
        timeout=_PATIENCE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    return found.stdout.strip()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of what kernels need, whose files may be replaced."""
    root = tmp_path_factory.mktemp("package")
    for part in ("base", "ops"):
        shutil.copytree(
            ROOT / "cardiogen" / part, root / "cardiogen" / part,
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
    shutil.copy(ROOT / "cardiogen" / "__init__.py", root / "cardiogen")
    (root / "tiny.py").write_text(_TINY)
    return root


def run_tiny(root, user_cache):
    # No __pycache__ by Python itself: the tests put files in its place.
    variables = {"XDG_CACHE_HOME": str(user_cache), "PYTHONDONTWRITEBYTECODE": "1"}
    return Path(run(_RUN_TINY, root, root, **variables))


@pytest.fixture(scope="module")
def folder(package, tmp_path_factory):
    """Where a first process kept its kernel."""
    return run_tiny(package, tmp_path_factory.mktemp("user"))


def block(place):
    """Put a file where a folder is wanted: nobody can write there, not even root."""
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")


def state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def tiny():
    """Signature and body of a small kernel."""

    def triple(job, chunk, room):
        (values_at,) = intrinsics.arguments(job, 1)
        values = intrinsics.floats(values_at, 4)
        values[chunk] *= 3

    return SIGNATURE, triple


def applied(compiled):
    values = np.ones(4, np.float32)
    header = [0, 4, compiled.address, *[0] * (jit.HEADER - 3)]
    job = np.array([*header, values.ctypes.data], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(worker_address())(job.ctypes.data)
    return values.tolist()


def test_neither_import_nor_reference_loads_a_compiler():
    script = """
import sys
import cardiogen.ops as ops
import torch

def compilers():
    return {name.split(".")[0] for name in sys.modules} & {"numba", "llvmlite", "triton"}

assert not compilers()
image, field = torch.zeros(1, 1, 3, 4, 5), torch.zeros(1, 3, 3, 4, 5)
ops.warp(image.double(), field.double())
with ops.use_backend("reference"):
    ops.warp(image, field)
assert not compilers()
"""
    run(script, PYTHONPATH=str(ROOT))


def test_kernels_are_kept_in_the_package_and_read_from_there(package, folder, tmp_path):
    assert folder.parent == package / "cardiogen/ops/kernels/cpu/__pycache__"
    assert folder.name.startswith("kernels-")
    kept = state(folder)
    assert any(path.suffix == ".nbc" for path in kept)
    # Were anything compiled again, files would be new or newer.
    assert run_tiny(package, tmp_path) == folder
    assert state(folder) == kept
    assert not any(tmp_path.iterdir())


def test_changed_source_gets_a_new_folder(package, folder, tmp_path):
    kept = state(folder)
    lines = package / "cardiogen/ops/kernels/cpu/lines.py"
    text = lines.read_text()
    try:
        lines.write_text(text + "\n# changed\n")
        after = run_tiny(package, tmp_path)
    finally:
        lines.write_text(text)
    assert after != folder
    assert after.parent == folder.parent
    assert state(after)
    assert state(folder) == kept


def test_a_package_that_cannot_be_written_to_leaves_the_users_cache(package, tmp_path):
    place = package / "cardiogen/ops/kernels/cpu/__pycache__"
    block(place)
    try:
        folder = run_tiny(package, tmp_path)
        assert folder.parent == tmp_path / "cardiogen"
        assert any(path.suffix == ".nbc" for path in state(folder))
    finally:
        place.unlink()


def test_without_any_place_kernels_still_run(tiny, tmp_path, monkeypatch):
    for place in (tmp_path / "package" / "__pycache__", tmp_path / "user" / "cardiogen"):
        block(place)
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "package" / "jit.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    before = state(tmp_path)
    assert jit.cache_folder() is None
    assert applied(jit.compile_cached(*tiny)) == [3.0] * 4
    assert state(tmp_path) == before


def test_a_cache_of_numbas_own_is_respected(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert applied(jit.compile_cached(*tiny)) == [3.0] * 4
    assert any(path.suffix == ".nbc" for path in state(tmp_path))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_damaged_entries_are_done_without(tiny, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    jit.compile_cached(*tiny)
    for path in state(tmp_path):
        if path.suffix == suffix:
            path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="kernels are compiled without .*; try removing it"):
        compiled = jit.compile_cached(*tiny)
    assert applied(compiled) == [3.0] * 4


def test_a_full_disk_is_done_without(tiny, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert applied(jit.compile_cached(*tiny)) == [3.0] * 4


def test_the_choice_of_a_folder(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jit, "_is_writable", lambda folder: asked.append(folder) or False)
    assert jit.cache_folder() is None
    package, user = asked
    assert package.parent == Path(jit.__file__).parent / "__pycache__"
    assert user.parent == tmp_path / "cardiogen"
    assert package.name == user.name
    monkeypatch.delenv("XDG_CACHE_HOME")
    jit.cache_folder()
    assert asked[-1] == Path.home() / ".cache/cardiogen" / user.name


def test_no_home_is_no_fault(monkeypatch, tmp_path):
    """Containers run users without a home or with one that is not theirs."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(jit, "_is_writable", lambda folder: False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert jit.cache_folder() is None


def test_faults_of_the_kernel_are_raised(monkeypatch):
    def wrong(job, chunk, room):
        return chunk.nothing

    monkeypatch.setattr(jit, "cache_folder", lambda: None)
    with pytest.raises(numba.TypingError, match="Unknown attribute 'nothing'"):
        jit.compile_cached(SIGNATURE, wrong)


def test_compiling_leaves_numbas_configuration_alone(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(jit, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    assert applied(jit.compile_cached(*tiny)) == [3.0] * 4
    assert not numba.config.CACHE_DIR
