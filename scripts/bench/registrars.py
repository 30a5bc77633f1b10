"""Who is compared on real pairs: ours, SimpleITK's demons and, where installed, ANTs.

Convention: a registrar takes a pair and returns ``fixed_to_moving`` ``(1, 3, D, H, W)`` in voxels;
what is timed is the call. Peers run at the settings that their users run, multi-resolution in the
plane; their fields come back exactly, as vectors in mm.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.acdc_pairs import CardiacPair
from cardiogen.data import Grid

Registrar = Callable[[CardiacPair], Tensor]

_DEMONS = {"levels": 3, "iterations": 60, "sigma": 1.0}


def registrars(wanted: list[str]) -> dict[str, Registrar]:
    """Return the wanted registrars that are installed, by name, in a fixed order."""
    known: dict[str, tuple[str | None, Registrar]] = {
        "none": (None, lambda pair: torch.zeros(1, 3, *pair.grid.shape)),
        "ours fast": (None, lambda pair: ours(pair, "fast")),
        "ours accurate": (None, lambda pair: ours(pair, "accurate")),
        "SimpleITK demons": ("SimpleITK", simpleitk_demons),
        "ANTs SyN": ("ants", ants_syn),
    }

    return {
        name: call
        for name, (module, call) in known.items()
        if (not wanted or name in wanted)
        and (module is None or importlib.util.find_spec(module) is not None)
    }


def ours(pair: CardiacPair, preset: str) -> Tensor:
    """Return the field of a preset."""
    from registration import register

    return register(pair.fixed, pair.moving, pair.grid, preset=preset).displacement


def simpleitk_demons(pair: CardiacPair) -> Tensor:
    """Return the field of diffeomorphic demons, coarse to fine, histograms matched."""
    import SimpleITK as sitk

    fixed, moving = (_itk_image(x, pair.grid) for x in (pair.fixed, pair.moving))
    moving = sitk.HistogramMatching(moving, fixed, 128, 10, True)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(_DEMONS["iterations"])
    demons.SetSmoothDisplacementField(True)
    demons.SetStandardDeviations(_DEMONS["sigma"])
    field = None
    for level in reversed(range(_DEMONS["levels"])):
        small = [_shrunk(image, 2**level) for image in (fixed, moving)]
        if field is None:
            field = demons.Execute(*small)
        else:
            field = sitk.Resample(field, small[0], sitk.Transform(), sitk.sitkLinear, 0.0,
                                  field.GetPixelID(), True)  # fmt: skip
            field = demons.Execute(*small, field)
    vectors = sitk.GetArrayFromImage(sitk.Cast(field, sitk.sitkVectorFloat64))

    return _voxels(vectors, pair.grid)


def ants_syn(pair: CardiacPair) -> Tensor:
    """Return the field of ANTs' SyN with cross-correlation."""
    import ants

    images = []
    for image in (pair.fixed, pair.moving):
        array = image[0, 0].numpy().transpose(2, 1, 0)
        images.append(ants.from_numpy(array, spacing=pair.grid.spacing[::-1]))
    found = ants.registration(*images, type_of_transform="SyNOnly", syn_metric="CC",
                              syn_sampling=4, initial_transform="identity")  # fmt: skip
    field = ants.image_read(next(p for p in found["fwdtransforms"] if p.endswith("Warp.nii.gz")))

    return _voxels(field.numpy().transpose(2, 1, 0, 3), pair.grid)


def _itk_image(image: Tensor, grid: Grid) -> object:
    """Return an image in a world of its own: axes x, y, z along w, h, d, in mm."""
    import SimpleITK as sitk

    made = sitk.GetImageFromArray(image[0, 0].numpy())
    made.SetSpacing(grid.spacing[::-1])

    return made


def _shrunk(image: object, factor: int) -> object:
    """Return an image smoothed and shrunk in its plane."""
    import SimpleITK as sitk

    if factor == 1:
        return image
    spacing = image.GetSpacing()
    smooth = sitk.SmoothingRecursiveGaussian(image, [0.5 * factor * s for s in spacing[:2]]
                                             + [1e-3 * spacing[2]])  # fmt: skip

    return sitk.Shrink(smooth, [factor, factor, 1])


def _voxels(vectors: np.ndarray, grid: Grid) -> Tensor:
    """Turn ``(D, H, W, 3)`` mm with components (w, h, d) to ours."""
    field = np.moveaxis(vectors[..., ::-1], -1, 0) / np.array(grid.spacing)[:, None, None, None]

    return torch.from_numpy(np.ascontiguousarray(field, dtype=np.float32))[None]
