"""The template: a mesh, and the lattice of cubic B-splines on which its velocities live.

A velocity is given by one vector, in mm, at every active control point: those near the mesh, since
elsewhere there is nothing to move. With b(x) the splines at a place,

    v(x) = sum_a b_a(x) p_a,    phi = exp(v),

phi moves vertices and, inverted by exp(-v), pulls label maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data.grid import Grid
from cardiogen.data.mesh import Surface, Topology
from cardiogen.population.anatomy import heart_vertices
from cardiogen.population.conditions import AGE_RANGE
from cardiogen.population.heart import sample_heart
from cardiogen.population.template import template_topology
from cardiogen.transforms.lattice import Lattice

Array = NDArray[np.float64]

# Squarings of every exponential: a fixed number, so that training and use agree.
SQUARINGS = 5
_REACH = 1e-3
WEDGE_MM = 2.0
# Of 25 ACDC patients twelve crossed themselves with 2 mm, all but one at the insertion.
WEDGES_MM = (WEDGE_MM, 3.0, 4.0, 6.0)
_AVERAGED = 400


@dataclass(frozen=True, eq=False)
class DeformationTemplate:
    """What all hearts of one model are deformations of.

    Attributes:
        vertices: at end diastole, heart frame ``(V, 3)`` mm.
        topology: faces and regions.
        spacing_mm: of the voxels on which velocities are exponentiated.
        control_mm: distance of the control points.
        margin_mm: of the lattice around the mesh; velocities vanish there.
    """

    vertices: Array
    topology: Topology
    spacing_mm: float = 5.0
    control_mm: float = 10.0
    margin_mm: float = 20.0

    def opened(self, wedge_mm: float = WEDGE_MM) -> Array:
        """Return the vertices that hearts are made of, the right wall's wedge opened.

        Where the right wall is inserted it narrows to nothing between faces of 13 mm. Velocities
        keep points in order, not the straight faces between them: these crossed in one heart of
        ten. So the epicardial vertices next to the insertion lie some way off the right cavity.

        Args:
            wedge_mm: that way.
        """
        if "rv_epi" not in self.topology.parts:
            return self.vertices
        from scipy.spatial import cKDTree

        from cardiogen.models.deformation.surfaces import dense_points

        outer = self.topology.parts["rv_epi"]
        cavity = self.topology.surfaces[Surface.RV_ENDO]
        inserted = np.isin(outer, cavity)
        next_to = np.setdiff1d(outer[inserted.any(axis=1)], outer[inserted])
        points = dense_points(self.vertices[cavity])
        gap, nearest = cKDTree(points).query(self.vertices[next_to])
        away = (self.vertices[next_to] - points[nearest]) / gap[:, None]
        vertices = self.vertices.copy()
        vertices[next_to] += away * np.maximum(wedge_mm - gap, 0.0)[:, None]

        return vertices

    @cached_property
    def grid(self) -> Grid:
        """Voxels on which velocities are exponentiated."""
        low = self.vertices.min(axis=0) - self.margin_mm
        extent = self.vertices.max(axis=0) + self.margin_mm - low
        shape = tuple(int(n) for n in np.ceil(extent / self.spacing_mm) + 1)

        return Grid.regular(shape, (self.spacing_mm,) * 3, tuple(low))

    @cached_property
    def lattice(self) -> Lattice:
        """Where the control points lie."""
        return Lattice.of(self.grid, control_spacing=self.control_mm)

    @cached_property
    def active(self) -> NDArray[np.bool_]:
        """Control points that reach the mesh, and their neighbors, ``(d, h, w)``."""
        from scipy.ndimage import binary_dilation

        reach = self._all_splines().max(axis=0) > _REACH

        return binary_dilation(reach.reshape(self.lattice.shape[1:]))

    @property
    def size(self) -> int:
        """Number A of active control points; a velocity is ``(3, A)``."""
        return int(self.active.sum())

    @cached_property
    def splines(self) -> Array:
        """Every active spline at every vertex, ``(V, A)``."""
        return self._all_splines()[:, self.active.ravel()]

    def velocity(self, params: Tensor) -> Tensor:
        """Return parameters ``(N, 3, A)`` mm as velocities ``(N, 3, *S)``, voxels of ``grid``."""
        places = torch.from_numpy(np.flatnonzero(self.active)).to(params.device)
        full = params.new_zeros((len(params), 3, self.active.size))
        full = full.index_copy(2, places, params / self.spacing_mm)

        return self.lattice.field(full.unflatten(2, self.active.shape))

    def displacement(self, params: Tensor) -> Tensor:
        """Return ``exp(v)`` of parameters ``(N, 3, A)``, ``(N, 3, *S)`` voxels."""
        return ops.exponentiate(self.velocity(params), steps=SQUARINGS)

    def move(self, points: Tensor, displacement: Tensor) -> Tensor:
        """Move heart-frame points ``(N, P, 3)`` mm by displacements ``(N, 3, *S)``."""
        return ops.warp_points(points, displacement, self.grid)

    def _all_splines(self) -> Array:
        """Every spline at every vertex ``(V, d h w)``, read as the dense field is read."""
        weights = []
        places = self.grid.to_voxel(self.vertices)
        for axis, (count, size) in enumerate(
            zip(self.lattice.shape[1:], self.grid.shape, strict=True)
        ):
            # As a plane that does not vary along its second axis: splines sum to one.
            plane = torch.eye(count, dtype=torch.float64)[:, None, :, None]
            dense = ops.expand(
                plane.expand(-1, 1, -1, count), (size, size), spacing=(self.spacing_mm,) * 2,
                control_spacing=(self.control_mm,) * 2,
            )[:, 0, :, 0].T.numpy()  # fmt: skip
            at = np.clip(places[:, axis], 0, size - 1 - 1e-9)
            cell = at.astype(np.int64)
            share = (at - cell)[:, None]
            weights.append((1 - share) * dense[cell] + share * dense[cell + 1])

        return np.einsum("va,vb,vc->vabc", *weights).reshape(len(places), -1)


@cache
def population_template() -> DeformationTemplate:
    """Return the mean heart of the reference population as a template."""
    ages = np.linspace(*AGE_RANGE, _AVERAGED)
    from cardiogen.data.factors import Factors

    hearts = [sample_heart(0, i, Factors(age=float(age))) for i, age in enumerate(ages)]
    mean = np.mean([heart.ed for heart in hearts], axis=0)

    return DeformationTemplate(heart_vertices(mean[None])[0], template_topology())
