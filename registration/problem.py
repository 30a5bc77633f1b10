"""One registration problem at one resolution, and the pyramid of them.

Convention: fixed and moving image share one grid; the moving one already carries whatever earlier
stages have found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid
from cardiogen.losses import Energy, EnergyValue
from cardiogen.transforms import SVF, SVFFD, Transform


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """What is compared at one level.

    Attributes:
        grid: lattice of all tensors.
        fixed: image ``(B, C, *S)`` or None if only labels are compared.
        moving: image ``(B, C, *S)`` or None.
        fixed_labels: one-hot without background ``(B, K, *S)`` float, or None.
        moving_labels: the same of the moving image, or None.
        mask: where fixed voxels count ``(B or 1, 1, *S)`` in [0, 1], or None.
    """

    grid: Grid
    fixed: Tensor | None = None
    moving: Tensor | None = None
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    mask: Tensor | None = None

    @property
    def batch(self) -> int:
        """Number of pairs."""
        return len(self._any())

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self._any().device

    def _any(self) -> Tensor:
        return self.fixed if self.fixed is not None else self.fixed_labels

    def sample(self, index: int) -> Problem:
        """Return the problem of one pair alone."""
        return self._with(lambda x: x[index : index + 1] if len(x) > 1 else x)

    def moved_by(self, displacement: Tensor) -> Problem:
        """Return the problem that is left after a displacement ``fixed_to_moving``."""
        return Problem(
            grid=self.grid,
            fixed=self.fixed,
            moving=None if self.moving is None else ops.warp(self.moving, displacement),
            fixed_labels=self.fixed_labels,
            moving_labels=_warped_labels(self.moving_labels, displacement),
            mask=self.mask,
        )

    def _with(self, change: object) -> Problem:
        tensors = (self.fixed, self.moving, self.fixed_labels, self.moving_labels, self.mask)
        fixed, moving, fixed_labels, moving_labels, mask = (
            None if x is None else change(x) for x in tensors
        )
        return Problem(grid=self.grid, fixed=fixed, moving=moving, fixed_labels=fixed_labels,
                       moving_labels=moving_labels, mask=mask)  # fmt: skip


def pyramid(problem: Problem, levels: int) -> list[Problem]:
    """Return the problem at several resolutions, coarsest first; see ``ops.pyramid``."""
    tensors = [problem.fixed, problem.moving, problem.fixed_labels, problem.moving_labels,
               problem.mask]  # fmt: skip
    steps = [
        [None] * levels if x is None else ops.pyramid(x, levels, affine=problem.grid.affine)
        for x in tensors
    ]
    found = []
    for level in reversed(range(levels)):
        here = [None if step[level] is None else step[level] for step in steps]
        affine = next(h[1] for h in here if h is not None)
        images = [None if h is None else h[0] for h in here]
        shape = next(tuple(x.shape[2:]) for x in images if x is not None)
        found.append(Problem(grid=Grid(shape, affine), fixed=images[0], moving=images[1],
                             fixed_labels=images[2], moving_labels=images[3],
                             mask=images[4]))  # fmt: skip

    return found


def evaluate(problem: Problem, transform: Transform, energy: Energy) -> EnergyValue:
    """Return the energy of a transform per pair, differentiable in its parameters.

    Regularizers see the velocity of SVF and SVFFD and the displacement of all others.
    """
    displacement = transform.displacement(problem.grid)
    kinds = energy.kinds
    image = label = field = None
    if "image" in kinds:
        image = (_expanded(problem.fixed, displacement), ops.warp(problem.moving, displacement))
    if "label" in kinds:
        moved = _warped_labels(problem.moving_labels, displacement)
        label = (_expanded(problem.fixed_labels, displacement), moved)
    if "field" in kinds:
        field = transform.velocity() if isinstance(transform, SVF | SVFFD) else displacement
    masks = {} if problem.mask is None else {"image": problem.mask, "label": problem.mask}

    return energy(
        spacing=problem.grid.spacing, image=image, label=label, field=field,
        masks={kind: mask for kind, mask in masks.items() if kind in kinds},
    )  # fmt: skip


def _expanded(fixed: Tensor, displacement: Tensor) -> Tensor:
    return fixed.expand(len(displacement), *fixed.shape[1:]) if len(fixed) == 1 else fixed


def _warped_labels(labels: Tensor | None, displacement: Tensor) -> Tensor | None:
    # As images, labels go on beyond the border during the fit: a heart that leaves the view is
    # cut, it does not end.
    return None if labels is None else ops.warp(labels, displacement)
