"""Peak memory of one run, above its inputs: in a process of its own on CPU, by torch on a GPU.

``python -m bench.peak CASE PASS CONTENDER [--quick]`` prints bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from bench.cases import Case, cases, inputs_of, weights_of
from bench.contenders import Contender, make

_SCRIPTS = Path(__file__).resolve().parents[1]
# A fixed threshold makes malloc hand every large block back, so that none is reused unseen.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def gpu_peak(contender: Contender, leaf: int | None, weights: Tensor | None) -> int:
    """Return the bytes that one run allocates at most above what there was."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = contender.call(leaf, weights)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    del result

    return peak


def cpu_peak(case: Case, pass_name: str, name: str, *, quick: bool) -> int | None:
    """Return the bytes that the first full run of a fresh process takes; None off Linux."""
    if not _CLEAR.exists():
        return None
    paths = [str(_SCRIPTS), str(_SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "bench.peak", case.name, pass_name, name]
    told = subprocess.run(
        [*command, "--quick"] if quick else command,
        env={**os.environ, **_MALLOC, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode != 0:
        raise RuntimeError(f"peak memory of {name} on {case.name} failed: {told.stderr[-2000:]}")

    return int(told.stdout.split()[-1])


def status(field: str) -> int:
    """Return a figure of this process in bytes: VmRSS now, or VmHWM at most since the reset."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", _STATUS.read_text()).group(1))


def _measure(case: Case, small: Case, pass_name: str, name: str) -> int:
    # On a small case first: compiled code and thread pools are no part of the answer.
    leaf = dict(case.leaves)[pass_name]
    for which in (small, case):
        inputs = inputs_of(which, "cpu")
        weights = weights_of(which, inputs, "cpu") if leaf is not None else None
        contender = make(name, which, inputs)
        if which is small:
            contender.call(leaf, weights)
    _CLEAR.write_text("5")
    before = status("VmRSS")
    result = contender.call(leaf, weights)
    peak = status("VmHWM") - before
    del result

    return max(0, peak)


def main() -> None:
    """Print the peak of one contender."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("case", "pass_name", "contender"):
        parser.add_argument(name)
    parser.add_argument("--quick", action="store_true")
    o = parser.parse_args()
    full, small = (
        next(c for c in cases(device="cpu", quick=q) if c.name == o.case) for q in (o.quick, True)
    )
    print(_measure(full, small, o.pass_name, o.contender))


if __name__ == "__main__":
    main()
