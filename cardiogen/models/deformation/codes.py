"""Velocity codes: the velocities that bring the template to given meshes.

For a mesh Y at end diastole and Y_t in other frames, both with the template's topology T,

    exp(v_ed)(T) = Y,    exp(v_ed)(exp(v_t)(T)) = Y_t,    v_ed(0) = 0,

as nearly as a smooth spline does so. Each step adds a smooth spline through what is left,

    p <- p + argmin_d |B d - r|^2 / V + s |L d|^2 + w |L (p + d)|^2,   r = Y - exp(v)(T),

L the Laplacian, s steadying the step and w the result, subject to the volumes of the closed
surfaces being right to first order: a mesh may have ridges that no smooth velocity follows, and
volumes are what hearts are judged by.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen import ops
from cardiogen.data.mesh import Surface
from cardiogen.models.deformation.template import DeformationTemplate

_SURFACES = (Surface.LV_ENDO, Surface.LV_EPI, Surface.RV_ENDO)
_RIDGE = 1e-6
_MEMORY, _MIXING_RIDGE = 5, 1e-8


@dataclass(frozen=True, eq=False)
class CodeFitter:
    """Fits velocities to meshes, many hearts at once.

    Attributes:
        template: what is deformed.
        step_smoothness: s, in units of one vertex a control point.
        smoothness: w, in the same units.
        iterations: number of steps at end diastole.
        frame_iterations: number of steps in every later frame, from the velocity before it.
    """

    template: DeformationTemplate
    step_smoothness: float = 1e-2
    smoothness: float = 3e-2
    iterations: int = 14
    frame_iterations: int = 6

    def fit(self, meshes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the velocities of sequences ``(N, T, V, 3)`` that begin at end diastole.

        Returns:
            v_ed ``(N, 3, A)`` and v_t ``(N, T, 3, A)``, mm; those of frame 0 are zero.
        """
        ed = self.fit_ed(meshes[:, 0])
        frames = [torch.zeros_like(ed)]
        for mesh in meshes.unbind(1)[1:]:
            frames.append(self.fit_frame(mesh, ed, frames[-1]))

        return ed, torch.stack(frames, dim=1)

    def fit_ed(self, meshes: Tensor) -> Tensor:
        """Return the velocities ``(N, 3, A)`` mm that end at meshes ``(N, V, 3)``."""
        start = meshes.new_zeros((len(meshes), 3, self.template.size))

        return self._fit(meshes, meshes, None, start, self.iterations)

    def fit_frame(self, meshes: Tensor, ed: Tensor, start: Tensor) -> Tensor:
        """Return the velocities of one frame ``(N, V, 3)``.

        Args:
            meshes: of the frame.
            ed: v_ed ``(N, 3, A)``.
            start: where the search begins, such as the velocity of the frame before.
        """
        there = self.template.displacement(ed)
        pulled = self.template.move(meshes, self.template.displacement(-ed))

        return self._fit(pulled, meshes, there, start, self.frame_iterations)

    @torch.no_grad()
    def _fit(
        self, targets: Tensor, meshes: Tensor, onward: Tensor | None, params: Tensor, steps: int
    ) -> Tensor:
        """Fit meshes pulled to the template, ``targets``; volumes count in ``meshes`` itself."""
        origin = torch.from_numpy(self.template.vertices).to(targets)
        origin = origin.expand(len(targets), -1, -1)
        volumes = self._volumes(meshes)
        mending = _Mending.of(self, meshes)
        mixing = _Anderson()
        for _ in range(steps):
            moved = self.template.move(origin, self.template.displacement(params))
            seen = moved if onward is None else self.template.move(moved, onward)
            smooth = torch.einsum("av,nvc->nca", self._smoother, targets - moved)
            smooth = smooth - torch.einsum("ab,ncb->nca", self._relaxer, params)
            step = mending.completed(smooth, volumes - self._volumes(seen))
            params = mixing.next(params, step)

        return params

    @cached_property
    def _smoother(self) -> Tensor:
        """The smooth spline through values at the vertices, ``(A, V)``."""
        splines = self.template.splines
        scale = self.template.size / len(splines)

        return torch.from_numpy(scale * scipy.linalg.cho_solve(self._normal, splines.T)).float()

    @cached_property
    def _relaxer(self) -> Tensor:
        """What smoothness takes from parameters in a step, ``(A, A)``."""
        bend = self._bend.toarray()

        return torch.from_numpy(
            self.smoothness * scipy.linalg.cho_solve(self._normal, bend)
        ).float()

    @cached_property
    def _bend(self) -> scipy.sparse.csr_matrix:
        bend = laplacian(self.template.active)
        return bend.T @ bend

    @cached_property
    def _normal(self) -> tuple[NDArray[np.float64], bool]:
        splines, count = self.template.splines, self.template.size
        stiffness = (self.step_smoothness + self.smoothness) * self._bend.toarray()
        normal = count / len(splines) * splines.T @ splines + stiffness

        return scipy.linalg.cho_factor(normal + _RIDGE * np.eye(count))

    @cached_property
    def _splines(self) -> Tensor:
        return torch.from_numpy(self.template.splines).float()

    @cached_property
    def _faces(self) -> list[Tensor]:
        surfaces = self.template.topology.surfaces
        return [torch.from_numpy(np.ascontiguousarray(surfaces[s])) for s in _SURFACES]

    def _volumes(self, meshes: Tensor) -> Tensor:
        """Return the volumes of the closed surfaces, ``(N, 3)`` mm^3."""
        found = [ops.mesh_volume_ml(meshes.double(), faces) for faces in self._faces]

        return 1000.0 * torch.stack(found, dim=1).to(meshes)

    def _volume_gradients(self, meshes: Tensor) -> Tensor:
        """Return the derivatives of ``_volumes``, ``(N, 3, V, 3)`` mm^2."""
        found = []
        for faces in self._faces:
            a, b, c = meshes[:, faces].unbind(2)
            gradient = torch.zeros_like(meshes)
            for corner, others in enumerate(((b, c), (c, a), (a, b))):
                gradient.index_add_(1, faces[:, corner], torch.linalg.cross(*others) / 6)
            found.append(gradient)

        return torch.stack(found, dim=1)


@dataclass(frozen=True, eq=False)
class _Mending:
    """Smooth ways to change the three volumes.

    Attributes:
        gradients: of the volumes by the parameters ``(N, 3, 3 A)``.
        ways: changes of the parameters ``(N, 3, 3 A)``.
        gained: volumes gained by each way ``(N, 3, 3)``.
    """

    gradients: Tensor
    ways: Tensor
    gained: Tensor

    @classmethod
    def of(cls, fitter: CodeFitter, meshes: Tensor) -> _Mending:
        pulls = fitter._volume_gradients(meshes)
        gradients = torch.einsum("va,nsvc->nsca", fitter._splines, pulls).flatten(2)
        ways = torch.einsum("av,nsvc->nsca", fitter._smoother, pulls).flatten(2)

        return cls(gradients, ways, gradients @ ways.mT)

    def completed(self, step: Tensor, missing: Tensor) -> Tensor:
        """Return a step ``(N, 3, A)`` changed so that it adds ``missing`` ``(N, 3)`` mm^3."""
        already = torch.einsum("nsp,np->ns", self.gradients, step.flatten(1))
        share = torch.linalg.solve(self.gained, missing - already)

        return step + torch.einsum("ns,nsp->np", share, self.ways).view_as(step)


class _Anderson:
    """Anderson mixing of a fixed-point iteration ``p <- p + g(p)``, each sample on its own.

    The next point is the combination of the last ones whose steps cancel best in least squares
    (Walker and Ni, SIAM J. Numer. Anal. 2011).
    """

    def __init__(self) -> None:
        self._past: list[tuple[Tensor, Tensor]] = []

    def next(self, params: Tensor, step: Tensor) -> Tensor:
        flat, move = params.flatten(1), step.flatten(1)
        if not self._past:
            self._past = [(flat, move)]
            return params + step
        steps = torch.stack([move - g for _, g in self._past], dim=1)
        places = torch.stack([flat - p for p, _ in self._past], dim=1)
        self._past = [*self._past[1 - _MEMORY :], (flat, move)]
        normal = steps @ steps.mT
        damping = _MIXING_RIDGE * normal.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-30)
        normal = normal + damping[:, None, None] * torch.eye(normal.shape[1])
        share = torch.linalg.solve(normal, (steps @ move.unsqueeze(-1)))
        change = move - ((places + steps).mT @ share).squeeze(-1)

        return params + change.view_as(params)


def laplacian(active: NDArray[np.bool_]) -> scipy.sparse.csr_matrix:
    """Return the Laplacian over active points; beyond them values are 0."""
    count = int(active.sum())
    number = np.full(active.shape, -1)
    number[active] = np.arange(count)
    pairs = []
    for axis in range(3):
        ahead = np.moveaxis(number, axis, 0)
        pairs.append(np.stack([ahead[:-1].ravel(), ahead[1:].ravel()]))
    edges = np.concatenate(pairs, axis=1)
    edges = edges[:, (edges >= 0).all(axis=0)]
    near = scipy.sparse.coo_matrix((np.ones(edges.shape[1]), edges), shape=(count, count))

    return (scipy.sparse.diags(np.full(count, 6.0)) - near - near.T).tocsr()
