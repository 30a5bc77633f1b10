"""Warp operators: pure functions of tensors, 2D ``(B, C, H, W)`` and 3D ``(B, C, D, H, W)`` alike.

Positions and displacements are in voxels, components in axis order; whatever is in mm says so.
"""

from cardiogen.ops.affine import (
    affine_exp,
    affine_log,
    affine_matrix,
    affine_to_displacement,
    grid_to_world,
    transform_points,
    voxel_affine_to_displacement,
    world_to_grid,
)
from cardiogen.ops.check import GridLike, check_shape
from cardiogen.ops.energy import (
    bending_energy,
    bending_map,
    diffusion_energy,
    diffusion_map,
)
from cardiogen.ops.field import Inversion, automatic_steps, compose, exponentiate, invert
from cardiogen.ops.filter import box, gaussian, gradient
from cardiogen.ops.jacobian import (
    Folding,
    folding,
    folding_determinants,
    jacobian,
    jacobian_determinant,
)
from cardiogen.ops.kernels import active_backend, use_backend
from cardiogen.ops.mesh import face_normals, mesh_edges, mesh_volume_ml, vertex_normals, voxelize
from cardiogen.ops.resize import pyramid, resize, resize_field
from cardiogen.ops.sample import Padding, count, push, sample
from cardiogen.ops.spline import control_coords, control_shape, expand, subdivide
from cardiogen.ops.warp import (
    argmax_labels,
    displaced_coords,
    identity_coords,
    one_hot,
    resample,
    sample_at_points,
    warp,
    warp_frames,
    warp_labels,
    warp_points,
)

__all__ = [
    "Folding",
    "GridLike",
    "Inversion",
    "Padding",
    "active_backend",
    "affine_exp",
    "affine_log",
    "affine_matrix",
    "affine_to_displacement",
    "argmax_labels",
    "automatic_steps",
    "bending_energy",
    "bending_map",
    "box",
    "check_shape",
    "compose",
    "control_coords",
    "control_shape",
    "count",
    "diffusion_energy",
    "diffusion_map",
    "displaced_coords",
    "expand",
    "exponentiate",
    "face_normals",
    "folding",
    "folding_determinants",
    "gaussian",
    "gradient",
    "grid_to_world",
    "identity_coords",
    "invert",
    "jacobian",
    "jacobian_determinant",
    "mesh_edges",
    "mesh_volume_ml",
    "one_hot",
    "push",
    "pyramid",
    "resample",
    "resize",
    "resize_field",
    "sample",
    "sample_at_points",
    "subdivide",
    "transform_points",
    "use_backend",
    "vertex_normals",
    "voxel_affine_to_displacement",
    "voxelize",
    "warp",
    "warp_frames",
    "warp_labels",
    "warp_points",
    "world_to_grid",
]
