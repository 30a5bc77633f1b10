"""CPU kernels in Numba behind raw functions: contiguous float32 tensors in and out, no autograd.

Kernels are compiled when first called and kept on disk (``jit``), and run on torch's threads
(``launch``). The same functions for CUDA are in ``kernels.cuda``. All sums are taken in one order
whatever the number of threads, so results are bit-identical.
"""

from __future__ import annotations

from torch import Tensor

from cardiogen.ops.kernels.cpu.composition import compose, compose_backward_self
from cardiogen.ops.kernels.cpu.crossing import crossing_pairs
from cardiogen.ops.kernels.cpu.folding import folding_determinants
from cardiogen.ops.kernels.cpu.jacobian import jacobian_determinant, jacobian_determinant_backward
from cardiogen.ops.kernels.cpu.launch import LAUNCHERS, active_launcher
from cardiogen.ops.kernels.cpu.roughness import stiffness
from cardiogen.ops.kernels.cpu.sampling import coords_gradient, sample
from cardiogen.ops.kernels.cpu.scatter import push
from cardiogen.ops.kernels.cpu.separable import banded


def sample_backward(
    grad: Tensor,
    image: Tensor,
    coords: Tensor,
    *,
    fade: bool,
    relative: bool,
    wants: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of ``<grad, sample(image, coords)>``, summed over what is shared.

    Args:
        grad: ``(B, C, *out)``.
        image: ``(Bi, C, *S)``.
        coords: ``(Bc, d, *out)``, voxels.
        fade: as in ``sample``.
        relative: as in ``sample``.
        wants: whether the gradients of image and of coords are wanted.
    """
    image_grad = coords_grad = None
    if wants[0]:
        image_grad = push(
            grad, coords, tuple(image.shape[2:]), fade=fade, relative=relative,
            images=image.shape[0],
        )  # fmt: skip
    if wants[1]:
        coords_grad = coords_gradient(grad, image, coords, fade=fade, relative=relative)

    return image_grad, coords_grad


__all__ = [
    "LAUNCHERS",
    "active_launcher",
    "banded",
    "compose",
    "compose_backward_self",
    "crossing_pairs",
    "folding_determinants",
    "jacobian_determinant",
    "jacobian_determinant_backward",
    "push",
    "sample",
    "sample_backward",
    "stiffness",
]
