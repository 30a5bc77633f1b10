"""Tracking by registration of pairs: direct, sequential, and blended from both ways round.

All return ``ed_to_frame`` ``(T, 3, *S)`` in voxels, in the order in which the frames follow ED:
frame 0 is ED and exactly zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cardiogen import ops
from cardiogen.data import Grid
from registration.config import RegistrationConfig
from registration.register import register

_Rows = list[dict[str, object]]


def direct(images: Tensor, grid: Grid, config: RegistrationConfig) -> tuple[Tensor, _Rows]:
    """Register every frame ``(T, 1, *S)`` to ED by itself."""
    later = images[1:]
    result = register(images[:1].expand_as(later), later, grid, config=config)

    return _from_rest(result.displacement), list(result.energy_rows)


def sequential(images: Tensor, grid: Grid, config: RegistrationConfig) -> tuple[Tensor, _Rows]:
    """Register every frame to the one before it, and compose on the ED grid (Lagrangian).

    ``u_0t+1(x) = u_0t(x) + u_tt+1(x + u_0t(x))``; errors of all steps add up.
    """
    result = register(images[:-1], images[1:], grid, config=config)

    return _from_rest(_composed(result.displacement)), list(result.energy_rows)


def blend(images: Tensor, grid: Grid, config: RegistrationConfig) -> tuple[Tensor, _Rows]:
    """Compose forwards from ED and backwards from its return; weigh both by the way they came.

    ``u_t = (1 - t / T) forward_t + t / T backward_t``: the drift of either is 0 at its own ED, so
    that the cycle closes. Neighbors are registered once; backwards their inverse is taken.
    """
    frames = len(images)
    following = images.roll(-1, dims=0)
    result = register(images, following, grid, config=config)
    ahead = result.displacement
    back = result.transform.inverse().displacement().detach()
    forward = _composed(ahead[:-1])
    # From ED, the next frame backwards is the last one.
    backward = _composed(back.flip(0)[:-1]).flip(0)
    share = torch.arange(1, frames).to(images).view(-1, 1, 1, 1, 1) / frames

    return _from_rest((1 - share) * forward + share * backward), list(result.energy_rows)


def round_trip(closing: Tensor, grid: Grid, config: RegistrationConfig, last: Tensor) -> Tensor:
    """Return where ED arrives after one cycle, ``(1, 3, *S)``: the drift of ``sequential``.

    Args:
        closing: last frame and ED, ``(2, 1, *S)``.
        grid: their lattice.
        config: how pairs are registered.
        last: ``ed_to_frame`` of the last frame ``(1, 3, *S)``.
    """
    result = register(closing[:1], closing[1:], grid, config=config)

    return ops.compose(last, result.displacement)


def _composed(steps: Tensor) -> Tensor:
    """Return the displacements from the first frame to all later ones."""
    total, found = steps[:1], [steps[:1]]
    for step in steps[1:]:
        total = ops.compose(total, step.unsqueeze(0))
        found.append(total)

    return torch.cat(found)


def _from_rest(fields: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(fields[:1]), fields])
