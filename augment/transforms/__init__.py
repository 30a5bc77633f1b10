"""Transforms of images: draw parameters, keep them in bounds, apply them; 2D and 3D, batched.

Bounds are physical: mm, degrees, factors, standard deviations of the image. ``Geometric`` ones
move positions, ``Photometric`` ones change intensities.
"""

from augment.transforms.affine import Affine, Flip
from augment.transforms.base import Geometric, Params, Photometric, Transform
from augment.transforms.bias import BiasField
from augment.transforms.convolution import RandomConvolution
from augment.transforms.intensity import Contrast, Gamma
from augment.transforms.kspace import Gibbs, KSpaceMotion
from augment.transforms.morph import Morph
from augment.transforms.noise import GaussianNoise, RicianNoise
from augment.transforms.resolution import Blur, LowResolution
from augment.transforms.slices import SliceCut, SliceShift, SliceThickness

__all__ = [
    "Affine",
    "BiasField",
    "Blur",
    "Contrast",
    "Flip",
    "Gamma",
    "GaussianNoise",
    "Geometric",
    "Gibbs",
    "KSpaceMotion",
    "LowResolution",
    "Morph",
    "Params",
    "Photometric",
    "RandomConvolution",
    "RicianNoise",
    "SliceCut",
    "SliceShift",
    "SliceThickness",
    "Transform",
]
