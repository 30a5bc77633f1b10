"""What is measured: cases, their inputs from a fixed seed, and the truth in float64.

Convention: displacements are odd multiples of 2^-11 voxel. Positions ``x + u`` are then exact in
float32 and never on the border of a cell, where the gradient jumps, so that float32 and float64
can be compared voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import pi, prod

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.base import keyed_seed

STEPS = 7
_TICKS = 2048
_CONTROL = 4.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operator on one size.

    Attributes:
        name: what the report calls it.
        operator: key of ``operator_of``.
        shape: voxels per axis.
        fields: batch of the displacement.
        images: batch of the image; 1 beside more fields is one shared image.
        leaves: pass name to the input that it differentiates; None runs forward alone.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    fields: int = 1
    images: int = 1
    leaves: tuple[tuple[str, int | None], ...]

    @property
    def voxels(self) -> int:
        """Voxels of the result, all samples together."""
        return self.fields * prod(self.shape)

    @property
    def floats(self) -> float:
        """Floats that a one-channel warp must move per voxel: field, image read, result."""
        return len(self.shape) + self.images / self.fields + 1


FORWARD, TO_FIELD, TO_IMAGE = "forward", "forward+backward to field", "forward+backward to image"
_WARP = ((FORWARD, None), (TO_FIELD, 1), (TO_IMAGE, 0))
_ONE_INPUT = ((FORWARD, None), ("forward+backward", 0))
_SVF = ((FORWARD, None), (TO_FIELD, 0))


def _warp(name: str, shape: tuple[int, ...], fields: int = 1, images: int = 1) -> Case:
    return Case(name=f"warp {name}", operator="warp", shape=shape, fields=fields, images=images,
                leaves=_WARP)  # fmt: skip


_SIZES = ((64,) * 3, (96,) * 3, (128,) * 3, (160,) * 3)
_OPERATORS = (
    "push", "compose", "jacobian determinant", "folding determinants", "gaussian", "box", "ffd",
    "diffusion energy", "bending energy",
)  # fmt: skip
CASES = (
    _warp("60x256²", (256, 256), 60, 60),
    *(_warp(f"{shape[0]}³", shape) for shape in _SIZES),
    _warp("12x256²", (12, 256, 256)),
    _warp("sequence 30x12x256²", (12, 256, 256), 30, 1),
    Case(name="svf 96³", operator="svf", shape=(96,) * 3, leaves=_SVF),
    *(
        Case(name=f"{operator} 96³", operator=operator, shape=(96,) * 3, leaves=_ONE_INPUT)
        for operator in _OPERATORS
    ),
)
GPU_CASES = (
    _warp("192³", (192,) * 3),
    Case(name="svf 160³", operator="svf", shape=(160,) * 3, leaves=_SVF),
)


def cases(*, device: str, quick: bool) -> list[Case]:
    """Return the cases of a device; ``quick`` keeps their names and shrinks them."""
    chosen = [*CASES, *(GPU_CASES if device == "cuda" else ())]

    return [_shrunk(case) for case in chosen] if quick else chosen


def _shrunk(case: Case) -> Case:
    fields = min(case.fields, 3)
    # Odd and unlike sizes, so that swapped axes show in the errors.
    shape = tuple(max(5, n // 12 + 2 * axis + 1) for axis, n in enumerate(case.shape))

    return replace(case, shape=shape, fields=fields, images=min(case.images, fields))


def operator_of(case: Case) -> Callable[..., Tensor]:
    """Return our public function with the settings of the case."""
    ndim = len(case.shape)
    spacing, control = (1.0,) * ndim, (_CONTROL,) * ndim
    anisotropic = (8.0, 1.4, 1.2)[-ndim:]
    operators: dict[str, Callable[..., Tensor]] = {
        "warp": ops.warp,
        "svf": lambda velocity: ops.exponentiate(velocity, steps=STEPS),
        "push": lambda values, coords: ops.push(values, coords, case.shape),
        "compose": ops.compose,
        "jacobian determinant": ops.jacobian_determinant,
        "folding determinants": ops.folding_determinants,
        "gaussian": lambda image: ops.gaussian(image, 2.0),
        "box": lambda image: ops.box(image, 4),
        "ffd": lambda c: ops.expand(c, case.shape, spacing=spacing, control_spacing=control),
        "diffusion energy": lambda field: ops.diffusion_energy(field, spacing=anisotropic),
        "bending energy": lambda field: ops.bending_energy(field, spacing=anisotropic),
    }

    return operators[case.operator]


def inputs_of(case: Case, device: str) -> tuple[Tensor, ...]:
    """Return the inputs of the operator, float32, the same for every run."""
    ndim = len(case.shape)
    image = _smooth(case.shape, case.images, 1, 1.5, seed=1)
    field = displacement(case.shape, case.fields)
    if case.operator == "warp":
        made: tuple[Tensor, ...] = (image, field)
    elif case.operator == "push":
        made = (image, ops.displaced_coords(field))
    elif case.operator == "compose":
        made = (field, displacement(case.shape, case.fields, seed=3))
    elif case.operator == "ffd":
        lengths = {"spacing": (1.0,) * ndim, "control_spacing": (_CONTROL,) * ndim}
        lattice = ops.control_shape(case.shape, **lengths)
        made = (displacement(lattice, case.fields),)
    else:
        made = (image,) if case.operator in ("gaussian", "box") else (field,)

    return tuple(tensor.to(device) for tensor in made)


def displacement(shape: tuple[int, ...], batch: int, *, seed: int = 2) -> Tensor:
    """Return a smooth random displacement ``(batch, d, *shape)`` of about 2 voxels RMS."""
    field = _smooth(shape, batch, len(shape), 8.0, seed=seed)
    amplitudes = torch.tensor([min(2.0, n / 16) for n in shape]).view(1, -1, *[1] * len(shape))

    return ((field * amplitudes * _TICKS / 2).floor() * 2 + 1) / _TICKS


def _smooth(
    shape: tuple[int, ...], batch: int, channels: int, sigma: float, *, seed: int
) -> Tensor:
    """Return noise under a Gaussian of ``sigma`` voxels (less on thin axes), of unit RMS."""
    generator = torch.Generator().manual_seed(keyed_seed(0, "bench", seed))
    axes = tuple(range(-len(shape), 0))
    gain = torch.ones(())
    for axis, size in enumerate(shape):
        last = axis == len(shape) - 1
        frequency = torch.fft.rfftfreq(size) if last else torch.fft.fftfreq(size)
        taper = torch.exp(-2 * (pi * min(sigma, size / 6) * frequency) ** 2)
        gain = gain.unsqueeze(-1) * taper
    smooth = torch.empty(batch, channels, *shape)
    for sample in smooth:
        noise = torch.randn(channels, *shape, generator=generator)
        spectrum = torch.fft.rfftn(noise, dim=axes) * gain
        sample.copy_(torch.fft.irfftn(spectrum, s=shape, dim=axes))

    return smooth / smooth.square().mean().sqrt()


def weights_of(case: Case, inputs: tuple[Tensor, ...], device: str) -> Tensor:
    """Return fixed random weights, one per number of the result."""
    with torch.no_grad():
        shape = operator_of(case)(*inputs).shape
    generator = torch.Generator().manual_seed(keyed_seed(0, "bench", 4))

    return torch.rand(shape, generator=generator).to(device)


def run(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    leaf: int | None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return ``function(*inputs)``, or the gradient of its weighted sum to input ``leaf``."""
    if leaf is None:
        with torch.no_grad():
            return function(*inputs)
    leaves = [t.detach().requires_grad_(i == leaf) for i, t in enumerate(inputs)]

    return torch.autograd.grad(function(*leaves), leaves[leaf], weights)[0]


def truth(
    case: Case, inputs: tuple[Tensor, ...], leaf: int | None, weights: Tensor | None
) -> Tensor:
    """Return the result, or the gradient to input ``leaf``, of the reference in float64.

    Samples go one by one: the reference in float64 needs about a hundred floats per voxel.
    """
    operator = operator_of(case)
    batch = max(tensor.shape[0] for tensor in inputs)
    parts = []
    for index in range(batch):
        sample = [t[min(index, len(t) - 1)].unsqueeze(0).double() for t in inputs]
        weight = None if weights is None else weights[index].unsqueeze(0).double()
        with ops.use_backend("reference"):
            parts.append(run(operator, sample, leaf, weight))
    if leaf is not None and inputs[leaf].shape[0] < batch:
        return torch.stack(parts).sum(dim=0)

    return torch.cat(parts)
