"""Who is measured: our operators, their torch reference, and other ways to the same result.

Convention: a contender is made from a case and its inputs outside the timing, in whatever units
and layout it likes best; what is timed is what its users call for every new displacement. All
repeat the border (SimpleITK, which cannot, is compared inside the image alone).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.cases import FORWARD, STEPS, Case, operator_of, run
from cardiogen import ops


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A function of tensors that does the work of a case.

    Attributes:
        function: what is timed, of ``inputs``.
        inputs: in the order of the inputs of the case.
        read: brings its result to the layout of ours.
        exact: inputs that are those of the case, so that gradients to them can be compared.
        differentiable: whether it has gradients.
        inside: whether only voxels that read inside the image can be compared.
    """

    function: Callable[..., object]
    inputs: tuple[Tensor, ...]
    read: Callable[[object], Tensor] = lambda result: result
    exact: tuple[int, ...] = (0, 1)
    differentiable: bool = True
    inside: bool = False

    def call(self, leaf: int | None, weights: Tensor | None) -> object:
        """Run once, forward or to the gradient of input ``leaf``."""
        return run(self.function, self.inputs, leaf, weights)


Inputs = tuple[Tensor, ...]
OURS, REFERENCE, FORMULA, ALONE = "cardiogen", "reference", "formula", "grid_sample alone"
MONAI, INTERPOL, ITK, DEEPALI = "MONAI", "torch-interpol", "SimpleITK", "deepali"
MODULES = {MONAI: "monai", INTERPOL: "interpol", ITK: "SimpleITK", DEEPALI: "deepali"}


def installed(name: str) -> bool:
    """Return whether the package of a contender is there; ours need none."""
    return name not in MODULES or importlib.util.find_spec(MODULES[name]) is not None


def contenders_of(case: Case, pass_name: str, device: str) -> list[str]:
    """Return who takes part in one pass of a case, installed or not."""
    names = [OURS, REFERENCE]
    if case.operator == "svf":
        names += [FORMULA, MONAI, DEEPALI]
    elif case.operator == "warp":
        names += [FORMULA, ALONE, MONAI, INTERPOL, DEEPALI]
        if pass_name == FORWARD and device == "cpu":
            names.append(ITK)

    return names


def make(name: str, case: Case, inputs: Inputs) -> Contender:
    """Return a contender, ready to run on these inputs."""
    if name in (OURS, REFERENCE):
        return _own(case, inputs, "auto" if name == OURS else "reference")
    makers = {
        ("warp", FORMULA): _formula_warp,
        ("svf", FORMULA): _formula_svf,
        ("warp", ALONE): _grid_sample_alone,
        ("warp", MONAI): _monai_warp,
        ("svf", MONAI): _monai_svf,
        ("warp", INTERPOL): _interpol_warp,
        ("warp", ITK): _itk_warp,
        ("warp", DEEPALI): _deepali_warp,
        ("svf", DEEPALI): _deepali_svf,
    }

    return makers[case.operator, name](inputs)


def _own(case: Case, inputs: Inputs, backend: str) -> Contender:
    operator = operator_of(case)

    def function(*tensors: Tensor) -> Tensor:
        with ops.use_backend(backend):
            return operator(*tensors)

    return Contender(function=function, inputs=inputs)


def _normalized(coords: Tensor) -> Tensor:
    """Return positions ``(B, d, *S)`` in voxels as torch wants them: [-1, 1], last axis first."""
    for axis, size in enumerate(coords.shape[2:]):
        coords[:, axis] = 2 * (coords[:, axis] / (size - 1) - 0.5)

    # VoxelMorph orders the components by a list of indices, which copies; flip would be faster.
    return coords.movedim(1, -1)[..., list(reversed(range(coords.shape[1])))]


def _formula(image: Tensor, displacement: Tensor) -> Tensor:
    """Warp as VoxelMorph describes it: identity + displacement, normalize, ``grid_sample``."""
    axes = [torch.arange(n, device=displacement.device) for n in displacement.shape[2:]]
    identity = torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)
    coords = _normalized(identity.to(displacement.dtype) + displacement)

    return _grid_sample(image, coords)


def _grid_sample(image: Tensor, coords: Tensor) -> Tensor:
    shared = image.expand(coords.shape[0], *image.shape[1:])

    return torch.nn.functional.grid_sample(
        shared, coords, mode="bilinear", padding_mode="border", align_corners=True
    )


def _formula_warp(inputs: Inputs) -> Contender:
    return Contender(function=_formula, inputs=inputs)


def _formula_svf(inputs: Inputs) -> Contender:
    def function(velocity: Tensor) -> Tensor:
        field = velocity / 2**STEPS
        for _ in range(STEPS):
            field = field + _formula(field, field)
        return field

    return Contender(function=function, inputs=inputs)


def _grid_sample_alone(inputs: Inputs) -> Contender:
    image, field = inputs
    coords = _normalized(ops.displaced_coords(field)).contiguous()

    return Contender(function=_grid_sample, inputs=(image, coords), exact=(0,))


def _quiet_block(name: str, **settings: object) -> torch.nn.Module:
    """Return a block of MONAI, which warns where its own compiled sampler is missing."""
    from monai.networks import blocks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(blocks, name)(padding_mode="border", **settings)


def _monai_warp(inputs: Inputs) -> Contender:
    block = _quiet_block("Warp")

    def function(image: Tensor, field: Tensor) -> Tensor:
        return block(image.expand(field.shape[0], *image.shape[1:]), field)

    return Contender(function=function, inputs=inputs)


def _monai_svf(inputs: Inputs) -> Contender:
    return Contender(function=_quiet_block("DVF2DDF", num_steps=STEPS), inputs=inputs)


def _interpol_warp(inputs: Inputs) -> Contender:
    import interpol

    def function(image: Tensor, field: Tensor) -> Tensor:
        coords = interpol.add_identity_grid(field.movedim(1, -1))
        shared = image.expand(field.shape[0], *image.shape[1:])
        return interpol.grid_pull(shared, coords, bound="replicate", extrapolate=True)

    return Contender(function=function, inputs=inputs)


def _itk_warp(inputs: Inputs) -> Contender:
    """Warp every sample by SimpleITK's own filter; conversions stay outside the timing."""
    import SimpleITK as sitk

    image, field = inputs
    # SimpleITK indexes arrays backwards, and vectors with them.
    images = [sitk.GetImageFromArray(sample[0].numpy()) for sample in image]
    fields = [
        sitk.GetImageFromArray(sample.flip(0).movedim(0, -1).contiguous().numpy(), isVector=True)
        for sample in field
    ]
    fields = [sitk.Cast(one, sitk.sitkVectorFloat64) for one in fields]
    images *= len(fields) // len(images)

    def function(*_: Tensor) -> list:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(torch.get_num_threads())
        return [sitk.Warp(i, f) for i, f in zip(images, fields, strict=True)]

    def read(moved: list) -> Tensor:
        arrays = [torch.from_numpy(sitk.GetArrayFromImage(one)) for one in moved]
        return torch.stack(arrays).unsqueeze(1)

    return Contender(
        function=function, inputs=(), read=read, exact=(), differentiable=False, inside=True
    )


def _deepali_units(field: Tensor) -> Tensor:
    """Return displacements in [-1, 1] units, components last axis first, ``(B, d, *S)``."""
    spans = field.new_tensor([n - 1 for n in field.shape[2:]])

    return (field * (2 / spans).view(1, -1, *[1] * (field.ndim - 2))).flip(1)


def _deepali_warp(inputs: Inputs) -> Contender:
    from deepali.core import functional
    from deepali.core.grid import Grid

    image, field = inputs
    grid = Grid(shape=field.shape[2:], align_corners=True).coords(device=field.device)
    grid = grid.unsqueeze(0).expand(field.shape[0], *grid.shape)

    def function(image: Tensor, flow: Tensor) -> Tensor:
        return functional.warp_image(image, grid, flow=flow.movedim(1, -1), padding="border")

    return Contender(function=function, inputs=(image, _deepali_units(field)), exact=(0,))


def _deepali_svf(inputs: Inputs) -> Contender:
    from deepali.core import functional

    def function(flow: Tensor) -> Tensor:
        return functional.expv(flow, steps=STEPS)

    def read(flow: object) -> Tensor:
        return flow.flip(1) / _deepali_units(torch.ones_like(flow)).flip(1)

    return Contender(function=function, inputs=(_deepali_units(inputs[0]),), read=read, exact=())
