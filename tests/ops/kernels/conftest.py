"""Where Triton's kernels are tested: on the GPU if there is one, else in Triton's interpreter."""

import importlib.metadata
import os
import sys

import numpy as np
import pytest
import torch

from cardiogen.ops.kernels.cuda import status

# The interpreter is chosen for good when triton is first imported, so before any test runs.
_TOO_LATE = "triton" in sys.modules and not status.interpreted()
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def triton_device() -> str:
    """Device of the tensors; skips where the kernels cannot run."""
    reason = status.available.__wrapped__() or _interpreter_fault()
    if reason is not None:
        pytest.skip(f"no Triton kernels: {reason}")
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def gpu(triton_device) -> None:
    """Skips where there is no GPU."""
    if triton_device == "cpu":
        pytest.skip("no GPU")


def _interpreter_fault() -> str | None:
    if not status.interpreted():
        return None
    if _TOO_LATE:
        return "triton was imported before its interpreter was chosen"
    newest_numpy = np.lib.NumpyVersion(np.__version__) >= "2.4.0"
    if newest_numpy and importlib.metadata.version("triton").startswith("3.6."):
        return "the interpreter of triton 3.6 cannot count loops with numpy 2.4"
    return None
