"""Kernels give the same bits on any threads: of torch, of a pool, of Python, and after forks."""

import functools
import gc
import hashlib
import os
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cardiogen import ops
from cardiogen.base import CardiogenError
from cardiogen.ops import use_backend
from cardiogen.ops.kernels import cpu
from cardiogen.ops.kernels.cpu import LAUNCHERS, active_launcher, jit, launch

ROOT = Path(ops.__file__).parents[2]
# Several chunks of lines and several slabs of slices.
SHAPE = (13, 43, 47)
_PATIENCE = 60  # seconds after which a hanging child is ended


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def digest(shape=SHAPE, *, batch=3):
    """Hash the bits that every kernel writes: values and gradients."""
    image = noise(batch, 2, *shape).requires_grad_()
    field = noise(batch, len(shape), *shape, seed=1).mul(2).requires_grad_()
    coords = ops.displaced_coords(field).detach()
    results = [
        ops.warp(image, field),
        ops.warp(image, field, padding="zeros"),
        ops.push(image, coords, shape),
        ops.compose(field, field),
        ops.exponentiate(field, steps=3),
        ops.gaussian(image, 1.5),
        ops.jacobian_determinant(field),
        ops.folding_determinants(field.detach()),
        ops.bending_energy(field, spacing=(1.0, 1.2, 1.4)[-len(shape) :]),
        ops.diffusion_energy(field, spacing=(1.0, 1.2, 1.4)[-len(shape) :]),
    ]
    found = hashlib.sha256()
    for result in results:
        weight = noise(*result.shape, seed=2)
        leaves = [image, field] if result.requires_grad else []
        grads = torch.autograd.grad(result, leaves, weight, allow_unused=True) if leaves else ()
        for tensor in (result, *grads):
            found.update(b"" if tensor is None else tensor.detach().numpy().tobytes())
    return found.digest()


@functools.cache
def serial_digest():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return digest()
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with use_backend("auto"):
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=LAUNCHERS)
def launcher(request, monkeypatch):
    monkeypatch.setenv("CARDIOGEN_THREADS", request.param)
    if request.param == "openmp" and launch._openmp_parallel() is None:
        pytest.skip("this torch has no OpenMP runtime that can be called")
    return request.param


def in_forked_child(function):
    """Return the bytes that ``function`` returns in a forked child, which must end well."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns that a process with threads forks, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        signal.alarm(_PATIENCE)
        # As in a worker of a DataLoader: torch's own operators would wait for lost threads.
        torch.set_num_threads(1)
        try:
            os.write(write, function())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return found


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(launcher, threads):
    torch.set_num_threads(threads)
    assert active_launcher() == launcher
    assert digest() == serial_digest()


@pytest.mark.parametrize("shape", [(1, 67, 71), (5, 3, 2), (67, 71), (2, 1030)])
def test_any_number_of_threads_on_thin_shapes_and_shared_batches(launcher, shape):
    found = set()
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        found.add(digest(shape))
    assert len(found) == 1


def test_without_a_choice_torch_runs_the_kernels_on_linux(monkeypatch):
    monkeypatch.delenv("CARDIOGEN_THREADS", raising=False)
    wanted = "pool" if launch._openmp_parallel() is None else "openmp"
    assert active_launcher() == wanted


@pytest.mark.parametrize("named", ["tbb", "", "OPENMP"])
def test_unknown_launchers_are_refused(monkeypatch, named):
    monkeypatch.setenv("CARDIOGEN_THREADS", named)
    message = f"CG-U12 CARDIOGEN_THREADS: found '{named}'; expected one of openmp, pool, serial"
    with pytest.raises(CardiogenError, match=message):
        active_launcher()
    with pytest.raises(CardiogenError, match=message):
        ops.warp(noise(3, 1, *SHAPE), torch.zeros(3, 3, *SHAPE))


def test_openmp_is_refused_where_torch_has_none(monkeypatch):
    monkeypatch.setenv("CARDIOGEN_THREADS", "openmp")
    monkeypatch.setattr(launch, "_openmp_parallel", lambda: None)
    launch._launcher.cache_clear()
    with pytest.raises(CardiogenError, match="CG-U12 CARDIOGEN_THREADS: found 'openmp', which"):
        active_launcher()
    monkeypatch.delenv("CARDIOGEN_THREADS")
    assert active_launcher() == "pool"
    assert digest() == serial_digest()
    launch._launcher.cache_clear()


@needs_fork
def test_forked_children_work_after_their_parent_did(launcher):
    assert digest() == serial_digest()
    assert in_forked_child(digest) == serial_digest()
    assert in_forked_child(lambda: active_launcher().encode()) == b"serial"
    # The parent goes on with its threads, and so may children of children.
    assert active_launcher() == launcher
    assert digest() == serial_digest()
    assert in_forked_child(lambda: in_forked_child(digest)) == serial_digest()


@needs_fork
def test_forked_children_work_alone_whatever_the_number_of_threads(launcher):
    image, field = noise(3, 2, *SHAPE), noise(3, 3, *SHAPE, seed=1)

    def bits():
        torch.set_num_threads(4)
        moved = cpu.sample(image, field, fade=False, relative=True)
        found = hashlib.sha256(moved.numpy().tobytes())
        found.update(cpu.compose(field, field).numpy().tobytes())
        return found.digest()

    assert in_forked_child(bits) == bits()


@needs_fork
def test_four_forked_children_at_once(launcher):
    wanted, found = serial_digest(), []
    threads = [
        threading.Thread(target=lambda: found.append(in_forked_child(digest))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


def test_four_python_threads_at_once(launcher):
    wanted, found = serial_digest(), []

    def work():
        # The back-end and torch's number of threads are each thread's own.
        torch.set_num_threads(2)
        with use_backend("auto"):
            found.extend(digest() for _ in range(2))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 8


@needs_fork
def test_forks_wait_for_kernels_that_another_thread_compiles(monkeypatch):
    """A child forked while any lock is held would wait for it forever."""
    started, release = threading.Event(), threading.Event()

    def compile_slowly(signature, function):
        started.set()
        assert release.wait(_PATIENCE)
        return SimpleNamespace(address=7)

    monkeypatch.setattr(jit, "compile_cached", compile_slowly)
    slow, other = (jit.Kernel(lambda job, chunk, room: None) for _ in range(2))
    thread = threading.Thread(target=lambda: slow.address)
    thread.start()
    assert started.wait(_PATIENCE)
    threading.Timer(0.2, release.set).start()
    assert in_forked_child(lambda: bytes([slow.address, other.address])) == bytes([7, 7])
    thread.join()


def test_without_new_threads_those_there_are_do_the_work(monkeypatch):
    """At the end of the interpreter pools take no more work."""
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    monkeypatch.setenv("CARDIOGEN_THREADS", "pool")
    monkeypatch.setattr(launch, "_pool", lambda size: ended)
    assert digest() == serial_digest()


def test_helpers_hold_their_memory_when_the_caller_is_interrupted(monkeypatch):
    go_on, ended = threading.Event(), threading.Event()

    def work(job):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt("stopped by hand")
        go_on.wait(_PATIENCE)
        ended.set()

    monkeypatch.setenv("CARDIOGEN_THREADS", "pool")
    image, field = noise(3, 1, *SHAPE), noise(3, 3, *SHAPE)
    ops.warp(image, field)
    monkeypatch.setattr(launch, "_worker", lambda: work)
    with pytest.raises(KeyboardInterrupt, match="stopped by hand"):
        ops.warp(image, field)
    held = weakref.ref(field)
    del field
    gc.collect()
    assert held() is not None
    go_on.set()
    ended.wait(_PATIENCE)


_LAYERS = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
import torch
from cardiogen import ops

torch.set_num_threads(2)
image, field = torch.rand(1, 1, 23, 67, 71), torch.randn(1, 3, 23, 67, 71)

def work(found):
    found.append((ops.warp(image, field).sum() + ops.exponentiate(field, steps=2).sum()).item())

found = []
threads = [threading.Thread(target=work, args=(found,)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(set(found)) == 1, found
child = os.fork()
if child == 0:
    work(found)
    os._exit(len(set(found)) - 1)
assert os.waitpid(child, 0)[1] == 0
import numba
try:
    numba.threading_layer()
except ValueError:
    print("no parallel layer was started")
"""


def run(script, *arguments, **variables):
    known = {k: v for k, v in os.environ.items() if not k.startswith(("CARDIOGEN_", "NUMBA_"))}
    found = subprocess.run(
        [sys.executable, script, str(ROOT), *arguments], env=known | variables, timeout=_PATIENCE,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    return found.stdout


@needs_fork
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_threading_layers_of_numba_do_not_matter(tmp_path, layer):
    script = tmp_path / "layers.py"
    script.write_text(_LAYERS)
    found = run(script, NUMBA_THREADING_LAYER=layer, OMP_NUM_THREADS="2")
    assert found == "no parallel layer was started\n"


_WORKERS = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from torch.utils.data import DataLoader, Dataset
from cardiogen import ops
from cardiogen.ops.kernels.cpu import active_launcher

torch.manual_seed(0)
FIELD = torch.linspace(-3, 3, 3 * 12 * 31 * 29).view(1, 3, 12, 31, 29)

class Warps(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        field = (FIELD * (index + 1)).requires_grad_()
        image = torch.linspace(0, 1, 12 * 31 * 29).view(1, 1, 12, 31, 29)
        ops.warp(image, field).square().sum().backward()
        where = torch.utils.data.get_worker_info()
        launcher = active_launcher() if where is not None else "here"
        return ops.exponentiate(field.detach(), steps=2)[0], field.grad[0], launcher

if __name__ == "__main__":
    here = [Warps()[k] for k in range(4)]
    for context in sys.argv[2:]:
        loader = DataLoader(Warps(), num_workers=2, multiprocessing_context=context)
        for k, (moved, slope, launcher) in enumerate(loader):
            assert torch.equal(moved[0], here[k][0]), (context, k)
            assert torch.equal(slope[0], here[k][1]), (context, k)
            print(context, launcher[0])
"""


@needs_fork
def test_workers_of_a_data_loader(tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(_WORKERS)
    found = run(script, "fork", "spawn", OMP_NUM_THREADS="2", CARDIOGEN_THREADS="pool")
    assert found == "fork serial\n" * 4 + "spawn pool\n" * 4


_FORKED_BEFORE_ANY_KERNEL = """
import os, sys
sys.path.insert(0, sys.argv[1])
import torch
from cardiogen import ops

torch.set_num_threads(2)
torch.ones(1 << 20).add(1)  # starts torch's own threads, which no child has
child = os.fork()
if child == 0:
    ops.warp(torch.rand(1, 1, 40, 40, 40), torch.rand(1, 3, 40, 40, 40))
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


def test_children_forked_before_the_first_kernel_work(tmp_path):
    script = tmp_path / "forked.py"
    script.write_text(_FORKED_BEFORE_ANY_KERNEL)
    command = [sys.executable, str(script), str(ROOT)]
    found = subprocess.run(command, timeout=_PATIENCE, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
