"""Print the seconds of the first call of operators: compiling included, then read from disk.

Every figure is that of a fresh process with nothing of ours compiled (its ``NUMBA_CACHE_DIR`` is
a new folder), after torch and ``cardiogen.ops`` are imported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_SET_UP = """
import time, torch
from cardiogen import ops
image, field = torch.rand(1, 1, 20, 20, 20), torch.rand(1, 3, 20, 20, 20).mul(.1)
began = time.perf_counter()
{call}
print(time.perf_counter() - began)
"""
_CALLS = {
    "warp": "ops.warp(image, field)",
    "warp and its gradient": "ops.warp(image, field.requires_grad_()).sum().backward()",
    "push": "ops.push(image, field, (20, 20, 20))",
    "compose": "ops.compose(field, field)",
    "exponentiate": "ops.exponentiate(field, steps=3)",
    "invert": "ops.invert(field)",
    "gaussian": "ops.gaussian(image, 1.5)",
    "jacobian_determinant": "ops.jacobian_determinant(field)",
    "folding": "ops.folding(field)",
    "bending_energy": "ops.bending_energy(field, spacing=(1.0, 1.0, 1.0))",
}


def first_call_s(call: str, cache: str) -> float:
    """Return the seconds of one call in a process of its own."""
    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    told = subprocess.run(
        [sys.executable, "-c", _SET_UP.format(call=call)], capture_output=True, text=True,
        check=True, env={**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": paths},
    )  # fmt: skip

    return float(told.stdout)


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.stdout.write(f"{'operator':24}compiled  from disk (s)\n")
    for name, call in _CALLS.items():
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = first_call_s(call, cache), first_call_s(call, cache)
        sys.stdout.write(f"{name:24}{cold:8.2f}{warm:11.2f}\n")


if __name__ == "__main__":
    main()
