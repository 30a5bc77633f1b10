"""GPU kernels in Triton behind raw functions: contiguous float32 tensors in and out, no autograd.

Importing this package does not import Triton; the first call of a function does. ``available``
says beforehand whether that will work. A CPU twin with the same functions is ``kernels.cpu``.
"""

from cardiogen.ops.kernels.cuda.lattice import (
    banded,
    folding_determinants,
    jacobian_determinant,
    jacobian_determinant_backward,
    stiffness,
)
from cardiogen.ops.kernels.cuda.sampling import (
    compose,
    compose_backward_self,
    push,
    sample,
    sample_backward,
)
from cardiogen.ops.kernels.cuda.status import available

__all__ = [
    "available",
    "banded",
    "compose",
    "compose_backward_self",
    "folding_determinants",
    "jacobian_determinant",
    "jacobian_determinant_backward",
    "push",
    "sample",
    "sample_backward",
    "stiffness",
]
