"""Parametrized transforms: affine family, displacement, FFD, SVF, SVFFD, periodic motion, files.

Every transform is a thin module over ``cardiogen.ops``: it holds a grid and parameters, and maps
points of the fixed image to the moving one (``fixed_to_moving``, world RAS mm).
"""

from cardiogen.transforms.base import ParametricTransform, Transform
from cardiogen.transforms.composition import Composition
from cardiogen.transforms.field import FFD, SVF, SVFFD, Displacement, FieldTransform
from cardiogen.transforms.itk_affine import read_itk_affine, write_itk_affine
from cardiogen.transforms.lattice import carry
from cardiogen.transforms.learn2reg import read_learn2reg, write_learn2reg
from cardiogen.transforms.linear import Affine, LinearTransform, Rigid
from cardiogen.transforms.nifti_field import read_displacement, write_displacement
from cardiogen.transforms.store import load_transform, save_transform
from cardiogen.transforms.temporal import TemporalSVF, fourier_basis

__all__ = [
    "FFD",
    "SVF",
    "SVFFD",
    "Affine",
    "Composition",
    "Displacement",
    "FieldTransform",
    "LinearTransform",
    "ParametricTransform",
    "Rigid",
    "TemporalSVF",
    "Transform",
    "carry",
    "fourier_basis",
    "load_transform",
    "read_displacement",
    "read_itk_affine",
    "read_learn2reg",
    "save_transform",
    "write_displacement",
    "write_itk_affine",
    "write_learn2reg",
]
