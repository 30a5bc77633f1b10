"""The one place where an operator chooses its implementation.

Every operator that has a fast form calls ``choose(reference, *tensors)(...)``, where ``reference``
is its torch form. ``CARDIOGEN_KERNELS`` or ``use_backend`` say which forms may be taken:
``reference`` means torch alone, ``auto`` the fastest one that fits the tensors: compiled loops
(Numba) on CPU, Triton kernels on CUDA. Whatever those cannot do goes to the reference: float64,
tensors inside ``torch.func`` transforms, forward-mode derivatives, ``torch.compile`` and tracing,
tensor subclasses, and axes beyond 32-bit indices; also sampling of orders 0 and 3, energies with
weights, and the gradient of the folding determinants.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor

from cardiogen.ops.kernels import backend
from cardiogen.ops.kernels.autograd import transformed
from cardiogen.ops.kernels.backend import BACKENDS, active_backend, use_backend
from cardiogen.ops.kernels.functions import FAST

Operator = TypeVar("Operator", bound=Callable)
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def choose(reference: Operator, *tensors: Tensor) -> Operator:
    """Return the implementation of an operator for these tensors under the active back-end.

    Args:
        reference: torch form of the operator; the others have its signature and agree with it.
        tensors: the arguments that device, dtype and shape are judged by.
    """
    if torch.compiler.is_compiling():
        return reference
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"tensors must be on one device, got {sorted(map(str, devices))}")
    fast = FAST.get(reference.__name__)
    if active_backend() == "reference" or fast is None or not _fit(tensors):
        return reference
    kernels = _kernels(tensors[0].device.type)

    return reference if kernels is None else partial(fast, kernels, reference)


def cpu_kernels() -> ModuleType | None:
    """Return the compiled CPU loops, for arrays that no operator takes; None if there are none."""
    return None if active_backend() == "reference" else _kernels("cpu")


def _fit(tensors: tuple[Tensor, ...]) -> bool:
    """Return whether tensors are plain float32 or narrower data that kernels can point at."""
    if torch.jit.is_tracing() or transformed(*tensors):
        return False
    return all(
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.dtype in _DTYPES
        and tensor.numel() > 0
        and tensor[0, 0].numel() <= backend.MOST_VOXELS
        for tensor in tensors
    )


@cache
def _kernels(device: str) -> ModuleType | None:
    """Return the kernels of a kind of device, or None with a warning that says why there are none.

    Neither Numba nor Triton is imported before a tensor needs it.
    """
    if device == "cpu":
        try:
            importlib.import_module("numba")
        except ImportError as fault:  # not installed, or too old for the numpy that is
            warnings.warn(
                f"warps on CPU take the slow reference, since numba cannot be imported ({fault}); "
                "try pip install --upgrade numba", stacklevel=3,
            )  # fmt: skip
            return None
        return importlib.import_module("cardiogen.ops.kernels.cpu")
    if device == "cuda":
        cuda = importlib.import_module("cardiogen.ops.kernels.cuda")
        reason = cuda.available()
        if reason is not None:
            warnings.warn(f"warps on CUDA take the slow reference: {reason}", stacklevel=3)
            return None
        return cuda
    return None


__all__ = ["BACKENDS", "active_backend", "choose", "cpu_kernels", "use_backend"]
