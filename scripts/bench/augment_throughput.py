"""The same random chain by several packages: milliseconds for an image and its labels.

Chain: rotation, scaling and shift, elastic deformation, bias field, gamma, contrast, noise, blur;
image float32 and labels of four classes, one volume after another, as a loader's worker does it.
Against a package that lacks some of these ours leaves them out as well. Packages that are absent
are skipped: pip install monai torchio batchgeneratorsv2.
"""

from __future__ import annotations

import importlib.util
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from augment import (
    Affine,
    BiasField,
    Blur,
    Chain,
    Contrast,
    Gamma,
    GaussianNoise,
    Morph,
)

_SPACING = (1.4, 1.4, 1.4)
_TRANSFORMS = (
    Affine(rotation_deg=20.0, tilt_deg=20.0, shear=0.0), Morph(), BiasField(), Gamma(), Contrast(),
    GaussianNoise(), Blur(),
)  # fmt: skip

Volume = tuple[torch.Tensor, torch.Tensor]
Run = Callable[[torch.Tensor, torch.Tensor], object]


@dataclass(frozen=True)
class Package:
    """Another package.

    Attributes:
        module: that must be there.
        make: its chain.
        lacks: transforms of ours that it does not have.
    """

    module: str
    make: Callable[[], Run]
    lacks: tuple[type, ...] = ()


@dataclass(frozen=True)
class Row:
    """Median milliseconds of CPU time a volume, of a package and of ours with its operations."""

    package: str
    theirs: float
    ours: float

    @property
    def met(self) -> bool:
        """Whether ours is the faster one."""
        return self.ours < self.theirs

    def __str__(self) -> str:
        word = "met" if self.met else "missed"
        return f"{self.package} {self.theirs:.0f} ms, cardiogen {self.ours:.0f} ms: {word}"


def throughput_rows(size: int, *, rounds: int) -> Iterator[Row]:
    """Yield a row for every package that is installed, all measured in the same rounds."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, size, size, size, generator=generator)
    labels = torch.randint(0, 4, (1, size, size, size), generator=generator)
    there = {n: p for n, p in PACKAGES.items() if importlib.util.find_spec(p.module)}
    runs: dict[tuple[str, bool], Run] = {}
    for name, package in there.items():
        runs |= {(name, False): package.make(), (name, True): _ours(package.lacks)}
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run(image, labels)
    shuffler = random.Random(0)
    for _ in range(rounds):
        for key in shuffler.sample(list(runs), len(runs)):
            start = time.process_time()
            runs[key](image, labels)
            times[key].append(time.process_time() - start)
    medians = {key: 1e3 * float(np.median(values)) for key, values in times.items()}
    for name in there:
        yield Row(name, medians[name, False], medians[name, True])


def _ours(lacks: tuple[type, ...] = ()) -> Run:
    transforms = tuple(t for t in _TRANSFORMS if not isinstance(t, lacks))
    chain = Chain(transforms=transforms, least=len(transforms))
    generator = torch.Generator().manual_seed(0)

    def run(image: torch.Tensor, labels: torch.Tensor) -> Volume:
        return chain.augment(
            image[None], labels[None], spacing=_SPACING, generator=generator, classes=4
        )

    return run


def _monai() -> Run:
    from monai import transforms as m

    both, one = ["image", "labels"], ["image"]
    modes = ["bilinear", "nearest"]
    chain = m.Compose([
        m.RandAffined(both, prob=1.0, rotate_range=(0.35,) * 3, scale_range=(0.15,) * 3,
                      translate_range=(7,) * 3, mode=modes, padding_mode="border"),
        m.Rand3DElasticd(both, sigma_range=(6, 8), magnitude_range=(50, 100), prob=1.0, mode=modes,
                         padding_mode="border"),
        m.RandBiasFieldd(one, prob=1.0),
        m.RandAdjustContrastd(one, prob=1.0, gamma=(0.6, 1.6)),
        m.RandScaleIntensityd(one, prob=1.0, factors=0.4),
        m.RandGaussianNoised(one, prob=1.0, std=0.1),
        m.RandGaussianSmoothd(one, prob=1.0),
    ])  # fmt: skip

    return lambda image, labels: chain({"image": image, "labels": labels.float()})


def _torchio() -> Run:
    import torchio as tio

    chain = tio.Compose([
        tio.RandomAffine(scales=0.15, degrees=20, translation=7),
        tio.RandomElasticDeformation(num_control_points=7, max_displacement=6),
        tio.RandomBiasField(), tio.RandomGamma((-0.4, 0.4)), tio.RandomNoise(std=(0, 0.1)),
        tio.RandomBlur((0, 1.5)),
    ])  # fmt: skip

    def run(image: torch.Tensor, labels: torch.Tensor) -> object:
        return chain(
            tio.Subject(image=tio.ScalarImage(tensor=image), labels=tio.LabelMap(tensor=labels))
        )

    return run


def _batchgenerators() -> Run:
    from batchgeneratorsv2.helpers.scalar_type import RandomScalar
    from batchgeneratorsv2.transforms.intensity.brightness import (
        MultiplicativeBrightnessTransform,
    )
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

    scalar: RandomScalar = (0.7, 1.4)

    def made(size: int) -> ComposeTransforms:
        return ComposeTransforms([
            SpatialTransform((size,) * 3, 0, False, p_elastic_deform=1.0, p_rotation=1.0,
                             rotation=(-0.35, 0.35), p_scaling=1.0, scaling=(0.85, 1.15)),
            MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False, 1.0),
            ContrastTransform(BGContrast((0.75, 1.25)), True, False, 1.0),
            GammaTransform(BGContrast(scalar), 0.0, False, True, 1.0),
            GaussianNoiseTransform((0, 0.1), 1.0, True),
            GaussianBlurTransform((0.5, 1.0), False, True, 1.0),
        ])  # fmt: skip

    return lambda image, labels: made(image.shape[-1])(
        image=image.clone(), segmentation=labels.to(torch.int16)
    )


PACKAGES = {
    "MONAI": Package("monai", _monai),
    "TorchIO": Package("torchio", _torchio, lacks=(Contrast,)),
    "batchgeneratorsv2": Package("batchgeneratorsv2", _batchgenerators, lacks=(BiasField,)),
}
